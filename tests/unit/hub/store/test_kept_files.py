"""What attempts keep: stored with the result, listed page by page, taken by later jobs, removed with the job."""

from typing import Any

import pytest

from tests.unit.hub.store.house import House, job, sha
from worker_manager.hub.contract import JobFilter, NewJob
from worker_manager.hub.refusals import Conflict, Gone, Invalid, NotFound, Unauthorized

DAY = 86_400_000


def keeping(*places: str, **more: Any) -> NewJob:
    outputs = [{"glob": "**", "to": place, "required": False, "always": True} for place in places or ("hub",)]
    return job(work={"outputs": outputs}, **more)


def in_hub(house: House, path: str, text: str = "x", owner: str = "ann") -> dict[str, Any]:
    house.store.add_blob(owner, sha(text), len(text)).result()
    return {"path": path, "size": len(text), "sha256": sha(text), "at": f"blob:{sha(text)}"}


def paths(house: House, name: str, **asked: Any) -> list[str]:
    return [each["path"] for each in house.store.list_files(name, **asked)["files"]]


def left_out(house: House) -> list[dict[str, Any]]:
    return [event["data"] for event in house.store.list_events(kind="job.files-left-out")[0]]


def test_files_come_with_the_result_and_are_listed_by_path(house: House) -> None:
    (name,) = house.submit(keeping())
    house.worker("w")
    files = [in_hub(house, path) for path in ("out/b", "a", "out/a.txt", "z")]
    house.end("w", *house.taken("w"), files=files)
    page = house.store.list_files(name, limit=3)
    assert (page["count"], page["size"], page["attempt"], page["job"]) == (4, 4, 1, name)
    assert [each["path"] for each in page["files"]] == ["a", "out/a.txt", "out/b"]
    rest = house.store.list_files(name, limit=3, cursor=page["next"])
    assert ([each["path"] for each in rest["files"]], rest["next"]) == (["z"], None)
    kept = house.store.kept_file(name, None, "out/b")
    assert kept is not None and (kept.size, kept.sha256, kept.at) == (1, sha("x"), f"blob:{sha('x')}")
    assert house.store.kept_file(name, None, "out") is None
    one = house.store.get_job(name)
    assert (one["files"], len(one["outputs"])) == ({"count": 4, "size": 4}, 1)
    assert "outputs" not in house.store.list_jobs(JobFilter())[0][0]
    assert left_out(house) == []
    with pytest.raises(Invalid):
        house.store.list_files(name, cursor="x")
    with pytest.raises(NotFound):
        house.store.list_files("j99")


def test_what_the_hub_has_not_or_lies_elsewhere_than_asked_is_left_out(house: House) -> None:
    (name,) = house.submit(keeping("hub", "s3://bucket/{job}/"))
    house.worker("w")
    bobs = in_hub(house, "of-bob", "bob's", owner="bob")
    lies = {**in_hub(house, "lies"), "sha256": sha("other")}
    never = {"path": "never", "size": 1, "sha256": sha("never"), "at": f"blob:{sha('never')}"}
    there = {"path": "a/b", "size": 1, "sha256": sha("q"), "at": f"s3://bucket/{name}/a/b"}
    elsewhere = {**there, "path": "c", "at": "s3://bucket/secrets/c"}
    house.end("w", *house.taken("w"), files=[bobs, lies, never, there, elsewhere, in_hub(house, "good")])
    assert house.state(name) == "succeeded"
    assert paths(house, name) == ["a/b", "good"]
    assert left_out(house) == [{"files": 4, "first": "c"}]


def test_a_job_that_asked_for_nothing_keeps_nothing(house: House) -> None:
    (name,) = house.submit(job())
    house.worker("w")
    house.end("w", *house.taken("w"), files=[in_hub(house, "a")])
    assert (house.state(name), paths(house, name)) == ("succeeded", [])


def test_each_attempt_has_its_own_files(house: House) -> None:
    (name,) = house.submit(keeping(retries=1))
    house.worker("w")
    house.end("w", *house.taken("w"), outcome="failed", files=[in_hub(house, "first")])
    assert paths(house, name) == ["first"]
    house.start("w", *house.taken("w"))
    assert paths(house, name) == ["first"]
    house.end("w", (name, 2), files=[in_hub(house, "second", "y")])
    assert paths(house, name) == ["second"]
    assert (paths(house, name, attempt=1), paths(house, name, attempt=3)) == (["first"], [])


def test_what_is_handed_back_has_kept_nothing(house: House) -> None:
    (name,) = house.submit(keeping())
    house.worker("w")
    house.end("w", *house.taken("w"), outcome="returned", files=[in_hub(house, "a")])
    assert paths(house, name, attempt=1) == []


def test_tasks_keep_theirs_apart(house: House) -> None:
    (name,) = house.submit(keeping("hub", "s3://bucket/{job}/", array=2))
    house.worker("w")
    for task, epoch in house.taken("w"):
        far = {"path": "f", "size": 1, "sha256": sha("f"), "at": f"s3://bucket/{task}/f"}
        house.end("w", (task, epoch), files=[in_hub(house, f"of-{task}"), far])
    assert paths(house, f"{name}-1") == ["f", f"of-{name}-1"]
    assert house.store.list_files(name)["count"] == 0


def test_a_later_job_takes_a_file_or_a_folder(house: House) -> None:
    (name,) = house.submit(keeping())
    house.worker("w")
    house.end("w", *house.taken("w"), files=[in_hub(house, path) for path in ("out/a", "out/sub/b", "outer", "log")])

    def taken(path: str) -> list[str]:
        return [each.path for each in house.store.files_taken("ann", name, path)]

    assert taken("out/a") == [""]
    assert taken("out") == taken("out/") == ["a", "sub/b"]
    assert taken("") == ["log", "out/a", "out/sub/b", "outer"]
    assert taken("log/") == taken("nothing") == []
    with pytest.raises(NotFound):
        house.store.files_taken("bob", name, "out")


def test_a_later_job_takes_what_all_tasks_have_kept(house: House) -> None:
    (name,) = house.submit(keeping(array=2, retries=1))
    house.worker("w")
    first, second = house.taken("w")
    house.end("w", first, outcome="failed", files=[in_hub(house, "out/table", "of a try that failed")])
    house.end("w", second, files=[in_hub(house, path) for path in ("out/table", "out/sub/b", "log")])
    house.end("w", *house.taken("w"), files=[in_hub(house, "out/table", "good")])

    def taken(path: str, most: int = 99) -> dict[str, str]:
        return {each.path: each.sha256 for each in house.store.files_taken("ann", name, path, most)}

    good, other = sha("good"), sha("x")
    assert taken("out/table") == {"0/table": good, "1/table": other}
    assert taken("out") == taken("out/") == {"0/table": good, "1/table": other, "1/sub/b": other}
    assert len(taken("")) == 4
    assert taken("nothing") == {}
    assert len(taken("", most=3)) == 3
    with pytest.raises(NotFound):
        house.store.files_taken("bob", name, "")


def test_files_go_with_their_job_and_their_blobs_are_free_then(house: House) -> None:
    (name,) = house.submit(keeping())
    house.worker("w")
    house.end("w", *house.taken("w"), files=[in_hub(house, "a")])
    house.clock.advance(29 * DAY)
    house.store.purge().result()
    assert house.store.unused_blobs(house.clock.now_ms() + 1, 10) == []
    house.clock.advance(2 * DAY)
    house.store.purge().result()
    assert house.store.unused_blobs(house.clock.now_ms() + 1, 10) == [(sha("x"), "ann", 1)]
    with pytest.raises(NotFound):
        house.store.list_files(name)


def test_many_files_are_removed_in_several_small_steps(house: House) -> None:
    (array,) = house.submit(keeping(array=4))
    (plain,) = house.submit(keeping())
    house.worker("w")
    for number in range(60):
        in_hub(house, "", str(number))
    files = [in_hub(house, f"out/{number}", str(number)) for number in range(60)]
    for _ in range(3):
        for attempt in house.taken("w"):
            house.end("w", attempt, files=files)
    house.clock.advance(31 * DAY)
    steps = []
    while True:
        purged = house.store.purge(5).result()
        steps.append(purged.jobs)
        if not purged.more:
            break
    assert (len(steps) >= 3, sum(steps)) == (True, 6)
    assert len(house.store.unused_blobs(house.clock.now_ms() + 1, 100)) == 60
    for gone in (array, plain, f"{array}-0"):
        with pytest.raises(NotFound):
            house.store.list_files(gone)


def test_blobs_that_a_job_takes_must_be_its_owners_and_stay_with_it(house: House) -> None:
    in_hub(house, "", "mine")
    in_hub(house, "", "theirs", owner="bob")
    taking = job(work={"inputs": [{"to": "a", "source": f"blob:{sha('mine')}"}]})
    house.submit(taking)
    assert house.store.unused_blobs(house.clock.now_ms() + 1, 10) == [(sha("theirs"), "bob", 6)]
    both = [{"to": "a", "source": f"blob:{sha('mine')}"}, {"to": "b", "source": f"blob:{sha('theirs')}"}]
    with pytest.raises(Invalid) as refused:
        house.submit(job(), job(work={"inputs": both}))
    assert refused.value.errors[0][0] == "jobs[1].inputs[1].source"
    assert "PATCH" in refused.value.detail and sha("theirs") in refused.value.detail
    assert house.group_counts() == [1]


def test_only_who_holds_an_attempt_is_told_of_it(house: House) -> None:
    (name,) = house.submit(keeping())
    house.worker("w")
    house.worker("v", cpus=0)
    ((_, epoch),) = house.taken("w")
    held = house.store.held_attempt("w", sha("w"), 1, name, epoch)
    assert (held.job, held.owner, held.work["outputs"][0]["to"]) == (name, "ann", "hub")
    refusals: list[tuple[type[Exception], Any]] = [
        (Conflict, ("v", sha("v"), 1, name, epoch)),
        (Conflict, ("w", sha("w"), 1, name, epoch + 1)),
        (Conflict, ("w", sha("w"), 2, name, epoch)),
        (Conflict, ("w", sha("w"), 1, "j99", epoch)),
        (Unauthorized, ("w", sha("v"), 1, name, epoch)),
        (Gone, ("nobody", sha("w"), 1, name, epoch)),
    ]
    for error, asked in refusals:
        with pytest.raises(error):
            house.store.held_attempt(*asked)
    house.end("w", (name, epoch))
    with pytest.raises(Conflict):
        house.store.held_attempt("w", sha("w"), 1, name, epoch)
