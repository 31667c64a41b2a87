"""What a platform says of workers that it lets wait reaches the pool's line and the jobs' verdicts."""

from tests.unit.policy.worlds import HOUR, MINUTE, NOW, SECOND, codes, group, launching, pool, ready, snapshot, texts
from worker_manager.policy.awaited import TOLD
from worker_manager.policy.plan import plan

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"


def test_the_platforms_words_stand_with_the_worker_those_with_a_reason_first() -> None:
    workers = [
        launching("a", requested_at=NOW - SECOND),
        launching("b", requested_at=NOW - HOUR),
        launching("c", requested_at=NOW - SECOND, detail="Priority"),
        launching("d", requested_at=NOW - SECOND, refusal="capacity", detail=NO_GPU),
        ready("e"),
    ]
    (line,) = plan(snapshot([], workers)).pools
    assert [one.worker for one in line.awaited] == ["d", "c", "b", "a"]
    assert (line.awaited[0].refusal, line.awaited[0].text) == ("capacity", NO_GPU)
    assert (line.awaited[2].since, line.awaited[2].text) == (NOW - HOUR, "")


def test_the_pool_and_the_job_say_what_the_platform_says_most_often() -> None:
    workers = [launching(name, refusal="capacity", detail=NO_GPU) for name in ("a", "b")]
    workers += [launching("c", refusal="quota", detail="too many pods"), launching("d")]
    made = plan(snapshot([group(count=16)], workers, [pool(max_workers=4)]))
    assert "platform-holds" in codes(made)
    assert f"the platform lets 3 workers wait (capacity): {NO_GPU}" in texts(made)
    (verdict,) = made.verdicts
    assert (verdict.status, verdict.reason.code) == ("launching", "room-held")
    assert verdict.reason.text == f"room is on its way, but the platform lets 3 workers wait (capacity): {NO_GPU}"


def test_words_without_a_trouble_are_no_reason() -> None:
    made = plan(snapshot([group()], [launching("a", detail="ContainerCreating")]))
    assert "platform-holds" not in codes(made)
    assert made.pools[0].awaited[0].text == "ContainerCreating"


def test_a_page_of_words_is_one_short_line() -> None:
    page = "first line\n" + "x" * 10_000_000
    workers = [launching(f"w{number}", refusal="config", detail=page) for number in range(3 * TOLD)]
    (line,) = plan(snapshot([], workers, [pool(max_workers=200)])).pools
    assert len(line.awaited) == TOLD
    assert line.awaited[0].text.startswith("first line xxx")
    assert len(line.awaited[0].text) <= 500
    assert all(len(reason.text) < 400 for reason in line.reasons)


def test_one_that_registered_is_not_awaited_any_more() -> None:
    here = ready("a", refusal="capacity", detail=NO_GPU, ready_at=NOW - MINUTE)
    (line,) = plan(snapshot([], [here])).pools
    assert line.awaited == ()
