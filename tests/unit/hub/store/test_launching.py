"""What managers do: claims, burials, cordons, the word of a backend, publications and commands."""

import pytest
from sqlalchemy import update

from tests.unit.hub.store.house import House, job, sha
from worker_manager.hub.contract import Claim, CordonOrder
from worker_manager.hub.refusals import Conflict, CoverageTaken, Invalid, NotFound, Unauthorized
from worker_manager.hub.store.tables import workers

REASON = {"code": "idle", "numbers": {}, "text": "idle"}


def only_key(house: House) -> str:
    return str(house.store.backlog()["groups"][0]["key"])


def cordon(house: House, name: str, only_if_idle: bool = True, manager: str = "m") -> int | None:
    order = CordonOrder(name, only_if_idle, REASON, house.clock.now_ms() + 1000)
    return house.store.cordon(manager, [order]).result()[name]


def test_what_one_manager_launches_for_is_not_there_for_another(house: House) -> None:
    house.submit(*[job() for _ in range(10)])
    key = only_key(house)
    house.claim("a", 2, manager="m", covers=((key, 7),))
    with pytest.raises(CoverageTaken):
        house.claim("b", 1, manager="other", covers=((key, 4),))
    assert house.store.sync("other", [])["groups"][0]["count"] == 3
    assert house.store.sync("m", [])["groups"][0]["count"] == 10
    house.claim("b", 1, manager="other", covers=((key, 3),))
    house.claim("c", 1, manager="m", covers=((key, 7),))  # its own launches it knows itself


def test_coverage_ends_with_its_intents(house: House) -> None:
    house.submit(*[job() for _ in range(10)])
    key = only_key(house)
    house.claim("a", 2, covers=((key, 7),))
    house.store.bury("m", ["a-0"], "never came").result()
    assert house.store.sync("other", [])["groups"][0]["count"] == 6  # half of 7, rounded up, is still covered
    house.worker("a-1", cpus=1, token="join-a-1")
    assert house.store.sync("other", [])["groups"][0]["count"] == 10


def test_a_claim_may_be_repeated_but_not_changed(house: House) -> None:
    house.claim("a", 2)
    house.claim("a", 2)
    assert house.store.list_events(kind="launch.claimed")[0][0]["subject"] == "a"
    with pytest.raises(Conflict):
        house.claim("a", 3)
    with pytest.raises(Invalid):
        house.store.claim_launch("m", Claim("b", "p", ("b-0",), (), 0)).result()
    other = Claim("b", "p", ("a-1",), (sha("x"),), 0)
    with pytest.raises(Conflict):
        house.store.claim_launch("m", other).result()


def test_no_two_workers_share_a_token(house: House) -> None:
    house.claim("a", 1)
    with pytest.raises(Conflict) as refused:
        house.store.claim_launch("m", Claim("b", "p", ("b-0",), (sha("join-a-0"),), 0)).result()
    assert refused.value.code == "token-exists"
    house.claim("b", 1)


def test_burial_revokes_a_token_but_never_a_worker_that_came(house: House) -> None:
    house.claim("a", 2)
    house.worker("a-0", token="join-a-0")
    assert house.store.bury("m", ["a-0", "a-1"], "late").result() == ["a-1"]
    assert house.store.bury("m", ["a-1"], "late").result() == ["a-1"]
    assert house.store.bury("other", ["a-1"], "late").result() == []
    with pytest.raises(Unauthorized):
        house.worker("a-1", token="join-a-1")


def test_a_leader_that_slept_cannot_claim_what_was_buried_meanwhile(house: House) -> None:
    assert house.store.bury("m", ["a-0"], "unknown here").result() == ["a-0"]
    with pytest.raises(Conflict):
        house.claim("a")


def test_a_busy_worker_is_never_cordoned_when_it_must_be_idle(house: House) -> None:
    house.claim("a")
    house.worker("a-0", token="join-a-0")
    house.submit(job())
    assert cordon(house, "a-0") is None
    house.end("a-0", ("j1", 1))
    assert cordon(house, "a-0") == 1
    assert cordon(house, "a-0") == 1
    assert cordon(house, "nobody") is None
    assert cordon(house, "a-0", manager="other") is None
    house.submit(job())
    assert house.state("j2") == "queued"
    assert house.poll("a-0")["drain"]["cordon"] == 1
    assert house.store.uncordon("m", ["a-0"]).result() == ["a-0"]
    assert house.state("j2") == "assigned"
    assert house.store.get_worker("a-0")["cordon"] is None


def test_a_manager_does_not_undo_an_operators_drain(house: House) -> None:
    house.claim("a")
    house.worker("a-0", token="join-a-0")
    house.store.drain_worker("a-0", "olga", "new kernel").result()
    assert house.store.uncordon("m", ["a-0"]).result() == []
    shown = house.store.get_worker("a-0")
    assert (shown["state"], shown["cordon"]["reason"]["text"]) == ("draining", "olga: new kernel")
    assert house.store.undrain_worker("a-0", "olga").result()["state"] == "ready"
    with pytest.raises(NotFound):
        house.store.drain_worker("nobody", "olga").result()


def test_the_word_of_the_backend_gives_jobs_back_at_once(house: House) -> None:
    house.submit(job())
    house.claim("a")
    house.worker("a-0", token="join-a-0")
    house.store.declare_gone("other", ["a-0"], "dead").result()
    assert house.state("j1") == "assigned"
    for _ in range(2):
        house.store.declare_gone("m", ["a-0", "nobody"], "dead").result()
    assert house.state("j1") == "queued"
    assert house.store.sync("m", ["p"])["workers"][0]["state"] == "gone"


def test_deleting_a_busy_worker_needs_force_and_is_relayed_to_its_manager(house: House) -> None:
    house.submit(job())
    house.claim("a")
    house.worker("a-0", token="join-a-0")
    with pytest.raises(Conflict) as refusal:
        house.store.delete_worker("a-0", False, 0, "olga").result()
    assert refusal.value.code == "worker-busy"
    command = house.store.delete_worker("a-0", True, 5000, "olga").result()["command"]
    assert house.state("j1") == "queued"
    asked = house.store.sync("m", ["p"])["commands"]
    assert [(c["id"], c["kind"], c["target"], c["options"]["force"]) for c in asked] == [
        (command, "end-worker", "a-0", True)
    ]
    assert house.store.has_commands("m")
    result = {"command": command, "ok": True, "text": "ended"}
    house.store.publish("other", {"results": [result]}).result()
    assert house.store.get_command(command)["state"] == "pending"
    house.store.publish("m", {"results": [result]}).result()
    assert house.store.get_command(command)["state"] == "done"
    assert not house.store.has_commands("m")


def test_what_a_worker_wrote_is_asked_of_its_manager(house: House) -> None:
    """Whether it has registered, never came, or was given up."""
    house.claim("a", 2)
    house.worker("a-0", token="join-a-0")
    house.store.bury("m", ["a-1"], "it never came").result()
    for worker in ("a-0", "a-1"):
        command = house.store.ask_logs(worker, 1000, "olga").result()["command"]
        (asked,) = house.store.sync("m", ["p"])["commands"]
        assert (asked["kind"], asked["target"], asked["options"]) == ("worker-logs", worker, {"max_bytes": 1000})
        long = "x" * 65_536
        house.store.publish("m", {"results": [{"command": command, "ok": True, "text": long}]}).result()
        told = house.store.get_command(command)
        assert (told["state"], told["result"]["text"]) == ("done", long)
        (event,) = house.store.list_events(None, "command.done", command, 10)[0]
        assert len(event["data"]["text"]) <= 2000
    house.worker("by-hand")
    with pytest.raises(Conflict) as refusal:
        house.store.ask_logs("by-hand", 1000, "olga").result()
    assert refusal.value.code == "no-manager"
    with pytest.raises(NotFound):
        house.store.ask_logs("nobody", 1000, "olga").result()


def test_a_freeze_goes_to_the_managers_of_the_pool_and_expires(house: House) -> None:
    with pytest.raises(NotFound):
        house.store.freeze_pool("p", 0, "why", "olga").result()
    for manager in ("m", "other"):
        house.store.publish(manager, {"pools": [{"pool": "p", "wanted": 1}]}).result()
    until = house.clock.now_ms() + 1000
    asked = house.store.freeze_pool("p", until, "why", "olga").result()["commands"]
    assert len(asked) == 2
    assert [pool["manager"] for pool in house.store.explain_pool("p")] == ["m", "other"]
    house.clock.advance(1001)
    assert house.store.sync("m", [])["commands"] == []
    assert house.store.sweep().result().expired_commands == 2
    assert house.store.get_command(asked[0])["state"] == "expired"


def test_a_report_of_results_alone_leaves_what_was_told_of_pools(house: House) -> None:
    verdict = {"group": "g", "pool": "p", "status": "never", "reason": {}}
    house.store.publish("m", {"pools": [{"pool": "p", "wanted": 1}], "verdicts": [verdict]}).result()
    (command,) = house.store.freeze_pool("p", house.clock.now_ms() + 1000, "", "olga").result()["commands"]
    house.store.publish("m", {"results": [{"command": command, "ok": True, "text": ""}]}).result()
    assert house.store.get_command(command)["state"] == "done"
    (shown,) = house.store.explain_pool("p")
    assert (shown["wanted"], len(shown["verdicts"])) == (1, 1)
    house.store.publish("m", {"verdicts": []}).result()
    (shown,) = house.store.explain_pool("p")
    assert (shown["wanted"], shown["verdicts"]) == (1, [])


def test_a_pool_that_names_no_owners_serves_its_managers(house: House) -> None:
    house.submit(job(), owner="ann")
    house.submit(job(), owner="bob")
    house.claim("mine", owner="bob")
    house.worker("mine-0", token="join-mine-0")
    assert house.taken("mine-0") == [("j2", 1)]
    house.claim("all", owner="bob", owners=("*",))
    house.worker("all-0", token="join-all-0")
    assert house.taken("all-0") == [("j1", 1)]


def test_a_pool_that_serves_some_owners_gets_no_others_jobs(house: House) -> None:
    house.claim("a", owners=("bob",), queues=("night",))
    house.worker("a-0", token="join-a-0")
    house.submit(job(queue="night"))
    house.submit(job(), owner="bob")
    house.submit(job(queue="night"), owner="bob")
    assert house.taken("a-0") == [("j3", 1)]


def test_the_backlogs_version_rises_with_what_concerns_a_planner_and_survives(house: House) -> None:
    before = house.store.version()
    house.submit(job())
    after_submit = house.store.version()
    assert after_submit > before
    house.restart()
    assert house.store.version() == after_submit == house.store.backlog()["version"]
    house.worker("w")
    after_worker = house.store.version()
    assert after_worker > after_submit
    house.poll("w")
    assert house.store.version() == after_worker


def test_events_are_one_sequence_that_can_be_resumed(house: House) -> None:
    house.submit(job(), job())
    house.worker("w")
    first, cursor = house.store.list_events(limit=2)
    house.end("w", ("j1", 1))
    rest, end = house.store.list_events(after=cursor)
    everything, _ = house.store.list_events()
    assert first + rest == everything
    assert [e["seq"] for e in everything] == list(range(1, len(everything) + 1))
    assert house.store.list_events(after=end)[0] == []
    assert house.store.list_events(after="now") == ([], end)
    assert house.store.list_events(after="last", limit=2) == (everything[-2:], end)
    assert house.store.list_events(after="last", kind="job.ended")[0] == house.store.list_events(kind="job.ended")[0]
    assert [e["subject"] for e in house.store.list_events(kind="job.ended")[0]] == ["j1"]
    with pytest.raises(Invalid):
        house.store.list_events(after="x")


def test_tokens_are_made_once_listed_without_their_hash_and_revoked(house: House) -> None:
    first = house.store.create_token(sha("t"), "bob", ["submit", "read"], None, "olga").result()
    assert house.store.create_token(sha("t"), "bob", ["submit", "read"], None, "olga").result() == first
    access = house.store.authenticate(sha("t"))
    assert access is not None
    assert (access.owner, access.scopes) == ("bob", {"submit", "read"})
    assert sha("t") not in repr(house.store.list_tokens())
    house.store.delete_token(first["id"], "olga").result()
    assert house.store.authenticate(sha("t")) is None
    with pytest.raises(NotFound):
        house.store.delete_token(first["id"], "olga").result()
    with pytest.raises(Invalid):
        house.store.create_token(sha("u"), "bob", ["everything"], None, "olga").result()


def test_the_summary_counts_waits_and_wasted_time(house: House) -> None:
    house.submit(job(), job())
    house.clock.advance(1000)
    house.worker("w", cpus=1)
    house.start("w", ("j1", 1))
    house.clock.advance(3000)
    house.end("w", ("j1", 1))
    house.start("w", ("j2", 1))
    house.clock.advance(2000)
    house.end("w", ("j2", 1))
    house.clock.advance(5000)
    summary = house.store.summary()
    assert summary["wait_ms"] == {"p50": 4000, "p95": 4000, "max": 4000}
    assert summary["workers"] == {"count": 1, "worker_ms": 10_000, "used_ms": 5000, "wasted_ms": 5000}
    assert summary["jobs"]["succeeded"] == 2


def test_decisions_are_events_once_and_the_last_of_them_are_kept_for_explain(house: House) -> None:
    made = [{"id": number, "at_ms": number, "pool": "p", "action": "launch"} for number in range(1, 131)]
    pools = [{"pool": "p"}]
    house.store.publish("m", {"pools": pools, "decisions": made[:3]}).result()
    house.store.publish("m", {"pools": pools, "decisions": made[:3]}).result()  # its reply was lost
    house.store.publish("m", {"pools": pools, "decisions": []}).result()
    house.store.publish("m", {"pools": pools, "decisions": made[1:130]}).result()
    told, _ = house.store.list_events(None, "decision", None, 1000)
    assert [event["data"]["decision"]["id"] for event in told] == list(range(1, 131))
    (shown,) = house.store.explain_pool("p")
    assert [decision["id"] for decision in shown["decisions"]] == list(range(31, 131))
    house.store.publish("m", {"pools": pools, "decisions": made[:1]}).result()  # of another ledger
    assert len(house.store.list_events(None, "decision", None, 1000)[0]) == 131


def test_an_end_of_a_worker_that_was_freed_meanwhile_is_refused(house: House) -> None:
    house.claim("s")
    house.worker("s-0", token="join-s-0")
    command = house.store.delete_worker("s-0", False, 1000, "olga").result()["command"]
    assert [one["id"] for one in house.store.sync("m", [])["commands"]] == [command]
    freed = update(workers).values(stop=0, cordon=None, state="ready", cordon_generation=2)
    house.store._write(lambda moves: moves.connection.execute(freed) and None).result()
    assert house.store.sync("m", [])["commands"] == []
    house.store.sweep().result()
    shown = house.store.get_command(command)
    assert (shown["state"], shown["result"]["ok"]) == ("failed", False)
    assert not house.store.has_commands("m")


def test_a_drain_is_brought_forward_but_never_put_off(house: House) -> None:
    """A platform that is about to end a worker leaves it less time than who drained it gave."""
    house.claim("a")
    house.worker("a-0", token="join-a-0")
    (job_id,) = house.submit(job())
    assert house.taken("a-0") == [(job_id, 1)]
    now = house.clock.now_ms()

    def order(deadline_ms: int, only_if_idle: bool = False) -> int | None:
        told = CordonOrder("a-0", only_if_idle, {"code": "platform-notice"}, deadline_ms)
        return house.store.cordon("m", [told]).result()["a-0"]

    first = order(now + 60_000)
    assert order(now + 90_000) == first
    assert house.store.get_worker("a-0")["cordon"]["deadline_ms"] == now + 60_000
    assert order(now + 20_000) == first, "what was ordered under this cordon still holds"
    assert house.store.get_worker("a-0")["cordon"]["deadline_ms"] == now + 20_000
    assert house.poll("a-0")["drain"]["deadline_ms"] == now + 20_000
    assert order(now + 1_000, only_if_idle=True) is None
    assert house.store.get_worker("a-0")["cordon"]["deadline_ms"] == now + 20_000


def test_an_operators_drain_stays_one_when_it_is_brought_forward(house: House) -> None:
    house.claim("a")
    house.worker("a-0", token="join-a-0")
    house.store.drain_worker("a-0", "eve", "new kernel").result()
    told = CordonOrder("a-0", False, {"code": "platform-notice"}, house.clock.now_ms() + 20_000)
    house.store.cordon("m", [told]).result()
    cordon = house.store.get_worker("a-0")["cordon"]
    assert cordon["reason"]["code"] == "operator"
    assert cordon["deadline_ms"] == house.clock.now_ms() + 20_000
    assert house.store.uncordon("m", ["a-0"]).result() == []
