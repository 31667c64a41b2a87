"""The hub's words as facts: every field, the two clocks, and answers that make no sense."""

from typing import Any

import pytest

from worker.protocol import Shape
from worker_manager.clock import ManualClock
from worker_manager.errors import HubError, SourceUnavailable
from worker_manager.sources.base import Cordon, CoverageTaken, LaunchClaim
from worker_manager.sources.hub import HubSource

NOW = ManualClock().now_ms()


class Client:
    """Answers each path with what the test wrote down, and keeps what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def post(self, path: str, json: Any, **options: Any) -> Any:
        what = path.rpartition("/")[2]
        assert path == f"/v1/managers/m/{what}"
        self.asked.append((what, json, options))
        answer = self.answers.get(what, {})
        if isinstance(answer, Exception):
            raise answer
        return answer


def source(client: Client) -> HubSource:
    return HubSource(client, "m", ("p",), lambda: NOW)  # type: ignore[arg-type]


def synced(hub_now: int = NOW, **more: Any) -> dict[str, Any]:
    worker = {
        "id": "m-1-0", "pool": "p", "manager": "m", "state": "draining", "shape": {"cpus": 2000}, "free": {"cpus": 500},
        "running": 1, "assigned": 2, "runs": 7, "jobs": [], "ready_ms": hub_now - 50, "seen_ms": hub_now - 1,
        "idle_since_ms": None, "cordon": {"generation": 4, "reason": {"code": "idle"}, "deadline_ms": hub_now + 9},
        "host": {}, "config": "c",
    }  # fmt: skip
    group = {
        "key": "k", "asks": {"memory": 5}, "count": 3, "oldest_ms": hub_now - 20, "owner": "o", "queue": "q",
        "priority": 2, "run_ms": None, "running": 4,
    }  # fmt: skip
    command = {
        "id": "c1", "pool": "p", "kind": "freeze", "target": None, "generation": None, "expires_at": hub_now + 60,
        "options": {"until_ms": hub_now + 70}, "by": "alice",
    }  # fmt: skip
    return {"version": 12, "now_ms": hub_now, "groups": [group], "workers": [worker], "commands": [command], **more}


def test_a_sync_becomes_facts() -> None:
    client = Client(sync=synced())
    seen = source(client).observe(11, 20_000)
    what, body, options = client.asked[0]
    assert (what, body) == ("sync", {"seen_version": 11, "wait_ms": 20_000, "pools": ["p"]})
    assert options["timeout"] > 20
    assert options["idempotent"] is True
    (group,) = seen.backlog.groups
    assert (group.key, group.asks, group.count, group.oldest) == ("k", Shape(memory=5), 3, NOW - 20)
    assert (group.owner, group.queue, group.priority, group.run_ms, group.running) == ("o", "q", 2, None, 4)
    (worker,) = seen.backlog.workers
    assert (worker.id, worker.pool, worker.state, worker.config) == ("m-1-0", "p", "draining", "c")
    assert (worker.shape, worker.free) == (Shape(cpus=2000), Shape(cpus=500))
    assert (worker.running, worker.assigned, worker.runs) == (1, 2, 7)
    assert (worker.ready_at, worker.seen_at, worker.idle_since) == (NOW - 50, NOW - 1, None)
    assert (worker.drain_deadline, worker.drain_code) == (NOW + 9, "idle")
    (command,) = seen.commands
    assert (command.id, command.kind, command.target, command.by) == ("c1", "freeze", "", "alice")
    assert seen.backlog.version == 12
    assert seen.backlog.registers


def test_a_hub_whose_clock_is_off_is_brought_into_our_time_and_back() -> None:
    behind = 3_600_000
    client = Client(sync=synced(NOW - behind), cordon={"cordoned": {"m-1-0": 5}})
    hub = source(client)
    seen = hub.observe(None, 0)
    assert seen.backlog.groups[0].oldest == NOW - 20
    assert seen.backlog.workers[0].drain_deadline == NOW + 9
    assert seen.commands[0].expires_at == NOW + 60
    assert seen.commands[0].options["until_ms"] == NOW + 70
    assert hub.cordon([Cordon("m-1-0", True, {"code": "idle"}, NOW + 100)]) == {"m-1-0": 5}
    assert client.asked[-1][1]["cordons"][0]["deadline_ms"] == NOW - behind + 100
    hub.announce(LaunchClaim("m-2", "p", ("m-2-0",), ("aa",), NOW + 5, (("k", 1),), 12))
    assert client.asked[-1][1]["call_deadline"] == NOW - behind + 5


def test_a_blink_of_difference_is_ignored() -> None:
    seen = source(Client(sync=synced(NOW - 1_500))).observe(None, 0)
    assert seen.backlog.groups[0].oldest == NOW - 1_500 - 20


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"version": 1, "now_ms": NOW},
        synced(groups=None),
        synced(groups=[{"key": "k"}]),
        synced(workers=[{"id": "x"}]),
        synced(version="new"),
        synced(workers=[7]),
    ],
)
def test_an_answer_that_makes_no_sense_is_unread(answer: Any) -> None:
    with pytest.raises(SourceUnavailable, match="makes no sense"):
        source(Client(sync=answer)).observe(None, 0)


@pytest.mark.parametrize("what", ["bury", "cordon", "uncordon"])
def test_an_answer_without_its_part_means_nothing(what: str) -> None:
    hub = source(Client())
    call = {"bury": lambda: hub.bury(["w"], ""), "cordon": lambda: hub.cordon([]), "uncordon": lambda: hub.uncordon([])}
    with pytest.raises(SourceUnavailable, match="lacks"):
        call[what]()


def test_coverage_that_is_taken_is_told_apart_from_any_other_conflict() -> None:
    claim = LaunchClaim("m-2", "p", ("m-2-0",), ("aa",), NOW + 5, (("k", 1),), 12, ("o",), ("q",))
    client = Client(launches=HubError(409, "coverage-taken", "m2 covers k"))
    with pytest.raises(CoverageTaken):
        source(client).announce(claim)
    sent = client.asked[0][1]
    assert (sent["owners"], sent["queues"], sent["covers"]) == (["o"], ["q"], [["k", 1]])
    with pytest.raises(HubError):
        source(Client(launches=HubError(409, "other", "?"))).announce(claim)


@pytest.mark.parametrize(("status", "unavailable"), [(503, True), (500, True), (429, True), (401, False), (409, False)])
def test_what_passes_by_itself_is_unavailable_and_the_rest_is_said(status: int, unavailable: bool) -> None:
    hub = source(Client(bury=HubError(status, "code", "words")))
    with pytest.raises(SourceUnavailable if unavailable else HubError, match="words"):
        hub.bury(["w"], "r")


def test_a_shape_is_read_once_while_its_group_stands_and_anew_when_it_changes() -> None:
    client = Client(sync=synced())
    hub = source(client)
    first = hub.observe(None, 0).backlog.groups[0].asks
    assert hub.observe(None, 0).backlog.groups[0].asks is first
    changed = synced()
    changed["groups"][0]["asks"] = {"memory": 6}
    client.answers["sync"] = changed
    assert hub.observe(None, 0).backlog.groups[0].asks == Shape(memory=6)


def test_a_report_is_cut_to_what_the_hub_takes() -> None:
    client = Client()
    source(client).publish({"pools": [], "decisions": [{}] * 10_500})
    assert len(client.asked[0][1]["decisions"]) == 10_000


def test_it_tells_of_the_workers_of_those_pools_that_are_served() -> None:
    client = Client(sync=synced())
    hub = source(client)
    hub.serve(["p", "left"])
    hub.observe(None, 0)
    assert client.asked[0][1]["pools"] == ["p", "left"]


def test_a_launch_by_identity_says_so_and_any_other_says_nothing_of_it() -> None:
    """So that a hub of the version before takes every other launch, and refuses this one."""
    client = Client(launches={}, identities={"identified": ["m-1-0"]})
    hub = source(client)
    hub.announce(LaunchClaim("m-1", "p", ("m-1-0",), ("hash",), NOW, (), 1))
    hub.announce(LaunchClaim("m-2", "p", ("m-2-0",), (), NOW, (), 1, identity="aws"))
    (_, first, _), (_, second, _) = client.asked
    assert "identity" not in first
    assert (second["identity"], second["token_hashes"]) == ("aws", [])
    assert hub.identify({"m-1-0": "aws:1:i"}) == ("m-1-0",)
    assert client.asked[-1][:2] == ("identities", {"identities": {"m-1-0": "aws:1:i"}})
    with pytest.raises(SourceUnavailable):
        source(Client(identities={})).identify({})
