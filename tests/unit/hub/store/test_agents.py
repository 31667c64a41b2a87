"""Workers' own calls: registration, polls, reports, leases."""

import pytest

from tests.unit.hub.store.house import House, job, sha
from worker.protocol import Shape
from worker_manager.hub.contract import LogPiece
from worker_manager.hub.refusals import Conflict, Gone, Unauthorized


def test_a_join_token_admits_one_worker_and_repeats_its_answer(house: House) -> None:
    house.claim("s")
    first = house.worker("s-0", token="join-s-0")
    assert house.worker("s-0", token="join-s-0") == first
    for second in ({"nonce": "another"}, {"credential_sha256": sha("another")}):
        with pytest.raises(Conflict) as refusal:
            house.worker("s-0", token="join-s-0", **second)
        assert refusal.value.code == "second-registrant"
    assert len(house.store.list_workers()) == 1


def test_unknown_revoked_and_expired_tokens_are_told_apart(house: House) -> None:
    house.claim("s")
    house.store.bury("m", ["s-0"], "never came").result()
    house.store.create_token(sha("old"), "ann", ["worker"], house.clock.now_ms() + 1, "t").result()
    house.store.create_token(sha("reader"), "ann", ["read"], None, "t").result()
    house.clock.advance(10)
    refused = {}
    for token in ("join-s-0", "nonsense", "old", "reader"):
        with pytest.raises(Unauthorized) as refusal:
            house.worker("s-0", token=token)
        refused[token] = refusal.value.code
    assert refused == {
        "join-s-0": "token-revoked",
        "nonsense": "token-unknown",
        "old": "token-expired",
        "reader": "token-unknown",
    }


def test_a_lost_poll_reply_is_sent_again_and_an_acknowledged_one_is_not(house: House) -> None:
    house.submit(job(), job())
    house.worker("w")
    first = house.poll("w", ack=False)
    assert house.poll("w", ack=False)["assign"] == first["assign"]
    house.poll("w")
    again = house.poll("w")
    assert (again["assign"], again["seq"]) == ([], first["seq"])


def test_a_repeated_report_gives_the_same_answer_and_does_nothing_twice(house: House) -> None:
    house.submit(job(retries=3), job())
    house.worker("w")
    failed = {"job": "j1", "epoch": 1, "outcome": "failed", "run_ms": 1}
    unknown = {"job": "j7", "epoch": 1, "outcome": "failed"}
    answers = [house.again("w", 1, results=[failed, unknown]) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["stale"] == [["j7", 1]]
    assert house.store.get_job("j1")["attempt"] == 2
    house.restart()
    assert house.again("w", 1, results=[failed, unknown]) == answers[0]
    assert house.store.get_job("j1")["attempt"] == 2


def test_only_the_current_epoch_may_report(house: House) -> None:
    house.submit(job(retries=1))
    house.worker("w")
    house.end("w", ("j1", 1), outcome="failed")
    assert house.end("w", ("j1", 1))["stale"] == [["j1", 1]]
    assert house.start("w", ("j1", 1))["stale"] == [["j1", 1]]
    assert house.state("j1") == "assigned"
    assert house.end("w", ("j1", 2))["stale"] == []
    assert house.state("j1") == "succeeded"


def test_start_and_result_may_come_in_one_report(house: House) -> None:
    house.submit(job())
    house.worker("w")
    house.report(
        "w",
        started=[["j1", 1, 0]],
        results=[{"job": "j1", "epoch": 1, "outcome": "succeeded", "exit_code": 0, "run_ms": 2}],
    )
    shown = house.store.get_job("j1")
    assert (shown["state"], shown["exit_code"], shown["run_ms"]) == ("succeeded", 0, 2)
    assert shown["started_ms"] == house.clock.now_ms()
    assert house.store.info()["jobs"]["running"] == 0


def test_another_credential_or_session_is_refused(house: House) -> None:
    house.worker("w")
    with pytest.raises(Unauthorized):
        house.store.poll("w", sha("x"), 1, 0)
    with pytest.raises(Conflict) as refusal:
        house.store.poll("w", sha("w"), 0, 0)
    assert refusal.value.code == "session-superseded"
    with pytest.raises(Gone):
        house.store.poll("nobody", sha("w"), 1, 0)


def test_a_silent_worker_is_lost_and_its_jobs_go_elsewhere(house: House) -> None:
    house.submit(job(), job())
    house.worker("w")
    house.start("w", ("j1", 1))
    house.clock.advance(30_000)
    house.poll("w")
    house.store.sweep().result()
    house.clock.advance(59_000)
    assert house.store.sweep().result().lost == ()
    house.clock.advance(2_000)
    assert house.store.sweep().result().lost == ("w",)
    assert (house.state("j1"), house.state("j2")) == ("queued", "queued")
    assert house.store.get_job("j1")["losses"] == 1
    house.worker("v")
    assert house.taken("v") == [("j1", 2), ("j2", 2)]


def test_a_lost_worker_that_speaks_again_is_told_to_kill_and_gets_new_jobs(house: House) -> None:
    house.submit(job())
    house.worker("w")
    house.start("w", ("j1", 1))
    house.clock.advance(61_000)
    house.store.sweep().result()
    assert house.end("w", ("j1", 1))["stale"] == [["j1", 1]]
    polled = house.poll("w")
    assert [(c["job"], c["epoch"]) for c in polled["cancel"]] == [("j1", 1)]
    assert [(a["job"], a["epoch"]) for a in polled["assign"]] == [("j1", 2)]
    assert house.store.get_worker("w")["state"] == "ready"


def test_a_start_of_the_hub_grants_every_worker_a_full_lease(house: House) -> None:
    house.submit(job())
    house.worker("w")
    house.clock.advance(600_000)
    house.restart()
    assert house.store.sweep().result().lost == ()
    house.clock.advance(59_000)
    house.poll("w")
    house.clock.advance(2_000)
    assert house.store.sweep().result().lost == ()
    house.clock.advance(60_000)
    assert house.store.sweep().result().lost == ("w",)


def test_a_poll_that_only_waits_is_no_sign_of_life(house: House) -> None:
    house.worker("w")
    house.clock.advance(61_000)
    house.store.poll("w", sha("w"), 1, 0, waits=True)
    assert house.store.sweep().result().lost == ("w",)
    house.store.poll("w", sha("w"), 1, 0, waits=True)  # the loss itself wakes it
    house.store.sweep().result()
    assert house.store.get_worker("w")["state"] == "lost"
    house.store.poll("w", sha("w"), 1, 0)
    house.store.sweep().result()
    assert house.store.get_worker("w")["state"] == "ready"


def test_a_job_whose_inputs_nobody_can_fetch_says_so_in_the_end(house: House) -> None:
    house.submit(job())
    house.worker("w")
    for n in range(5):
        [(name, epoch)] = house.taken("w")
        assert epoch == n + 1
        house.report(
            "w",
            results=[
                {"job": name, "epoch": epoch, "outcome": "returned", "reason": "staging-failed", "text": "no such host"}
            ],
        )
    shown = house.store.get_job("j1")
    assert (shown["state"], shown["reason"]) == ("failed", "lost-too-often")
    assert shown["text"] == "it came back from its worker 5 times; the last time: no such host"


def test_a_job_that_loses_its_worker_five_times_fails(house: House) -> None:
    house.submit(job())
    for n in range(5):
        house.worker(f"w{n}")
        assert house.taken(f"w{n}") == [("j1", n + 1)]
        house.store.declare_gone("", [f"w{n}"], "spot").result()
    shown = house.store.get_job("j1")
    assert (shown["state"], shown["reason"]) == ("failed", "lost-too-often")
    assert shown["text"] == "it came back from its worker 5 times; the last time: spot"
    assert [a["outcome"] for a in shown["attempts"]] == ["lost"] * 4 + ["failed"]
    assert house.group_counts() == []


def test_a_worker_that_leaves_hands_back_and_is_gone(house: House) -> None:
    house.submit(job(), job())
    house.worker("w")
    returned = {"job": "j1", "epoch": 1, "outcome": "returned", "reason": "drained"}
    house.report("w", results=[returned], leaving="idle")
    assert [house.state(j) for j in ("j1", "j2")] == ["queued", "queued"]
    with pytest.raises(Gone):
        house.poll("w")
    with pytest.raises(Gone):
        house.report("w")


def test_a_worker_started_by_hand_may_come_again_under_its_name_once_it_is_gone(house: House) -> None:
    house.worker("w")
    with pytest.raises(Conflict):
        house.worker("w", nonce="second")
    house.report("w", leaving="bye")
    again = house.worker("w", nonce="second")
    assert again["session"] == 2


def test_an_agent_that_drains_gets_nothing_more_and_no_plan_undoes_it(house: House) -> None:
    house.submit(job())
    house.worker("w", cpus=1)
    house.submit(job())
    house.report("w", draining=True)
    house.end("w", ("j1", 1))
    assert house.state("j2") == "queued"
    assert house.store.uncordon("m", ["w"]).result() == []
    assert house.poll("w")["drain"]["reason"]["code"] == "agent"


def test_an_agent_may_say_why_it_drains_and_say_it_later(house: House) -> None:
    house.worker("w", cpus=1)
    house.report("w", draining=True)
    why = {"code": "spot-interruption", "text": "EC2 will terminate this spot instance"}
    for _ in range(2):
        house.report("w", draining=True, why=why)
    house.report("w", draining=True)
    assert house.poll("w")["drain"]["reason"] == why
    told = {event["data"]["reason"]["code"] for event in house.store.list_events(kind="worker.draining")[0]}
    assert told == {"agent", "spot-interruption"}


def test_walltime_that_is_told_again_is_not_taken_off_twice(house: House) -> None:
    """An hour, of which forty minutes are over: a job of fifteen fits, one of twenty-five does not."""
    house.worker("w", shape={"cpus": 1000, "walltime": 3_600_000})
    house.clock.advance(2_400_000)
    house.report("w", shape={"cpus": 1000, "walltime": 1_200_000})
    house.submit(*(job(shape=Shape(cpus=1000, walltime=minutes * 60_000)) for minutes in (25, 15)))
    house.poll("w")
    assert (house.state("j1"), house.state("j2")) == ("queued", "assigned")


def test_a_worker_that_lets_its_drains_deadline_pass_is_told_to_stop(house: House) -> None:
    house.submit(job())
    for name in ("w", "v"):
        house.worker(name, cpus=1)
    house.start("w", ("j1", 1))
    house.store.drain_worker("w", "op", deadline_ms=house.clock.now_ms() + 5_000).result()
    house.store.drain_worker("v", "op", deadline_ms=house.clock.now_ms() + 50_000).result()
    house.clock.advance(14_000)
    house.store.sweep().result()
    assert not house.poll("w")["stop"], "it hands back by itself"
    house.clock.advance(2_000)
    house.store.sweep().result()
    house.store.sweep().result()
    assert (house.poll("w")["stop"], house.poll("v")["stop"]) == (True, False)
    overdue = house.store.list_events(kind="worker.overdue")[0]
    assert [(one["subject"], one["data"]["jobs"]) for one in overdue] == [("w", 1)]


def test_a_worker_takes_what_fits_what_it_really_has(house: House) -> None:
    house.submit(job(shape=Shape(cpus=1000, memory=2**40)), job(shape=Shape(gpus=1)), job(shape=Shape(tags=("x",))))
    house.worker("w")
    assert house.taken("w") == []
    house.worker("g", shape=Shape(cpus=1000, gpus=1).to_wire())
    assert house.taken("g") == [("j2", 1)]
    house.report("w", shape=Shape(cpus=2000, memory=2**41).to_wire())
    assert house.taken("w") == [("j1", 1)]


def test_a_worker_takes_no_more_jobs_than_its_last_runs(house: House) -> None:
    house.submit(*[job() for _ in range(5)])
    house.worker("w", cpus=4, max_runs=3)
    taken = house.taken("w")
    assert len(taken) == 3
    house.end("w", *taken)
    assert house.taken("w") == []


def test_output_is_indexed_once_and_only_for_its_own_attempts(house: House) -> None:
    house.submit(job(), job())
    house.worker("w", cpus=1)
    house.worker("v", cpus=1)
    mine = LogPiece("j1", 1, 0, 5, "seg-1", 100)
    more = LogPiece("j1", 1, 5, 3, "seg-1", 105)
    stolen = LogPiece("j2", 1, 0, 9, "seg-1", 108)
    house.again("w", 1, logs=[mine, stolen])
    house.again("w", 1, logs=[mine, stolen])
    house.again("w", 2, logs=[more], results=[{"job": "j1", "epoch": 1, "outcome": "succeeded"}])
    house.again("w", 3, logs=[LogPiece("j1", 1, 8, 1, "seg-2", 0)])
    view = house.store.log_view("j1")
    assert [(p.offset, p.length, p.segment) for p in view.pieces] == [(0, 5, "seg-1"), (5, 3, "seg-1"), (8, 1, "seg-2")]
    assert (view.size, view.complete) == (9, True)
    assert [p.offset for p in house.store.log_view("j1", offset=6).pieces] == [5, 8]
    assert house.store.log_view("j2").pieces == ()
