"""The backlog of a hub of ours, over HTTP (docs/reference/http-api.md, Managers).

The hub's instants are in the hub's time. Where its clock is off by more than a blink, they are brought into ours, and
deadlines of ours into its, so that nothing waits longer, or goes sooner, because two machines disagree.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worker.protocol import Shape
from worker_manager.errors import HubError, SourceUnavailable
from worker_manager.hub_client import HubClient
from worker_manager.policy.facts import BacklogFact, WorkerFact
from worker_manager.policy.model import JobGroup
from worker_manager.sources.base import Command, Cordon, CoverageTaken, LaunchClaim, Observation

SKEW_IGNORED_MS = 2_000
WAIT_SLACK_S = 15.0  # how much later than it said a long poll may answer
LIVE_STATES = frozenset({"ready", "draining", "lost", "gone"})
AT_MOST = {"verdicts": 100_000, "decisions": 10_000, "results": 1_000}  # of one report


class HubSource:
    registers = True

    def __init__(self, client: HubClient, manager: str, pools: Sequence[str], now_ms: Callable[[], int]) -> None:
        self._client = client
        self._path = f"/v1/managers/{manager}"
        self._now_ms = now_ms
        self._ahead = 0  # by how much our clock is ahead of the hub's
        self._shapes: dict[str, tuple[Mapping[str, Any], Shape]] = {}
        self.pools = tuple(pools)

    def serve(self, pools: Sequence[str]) -> None:
        self.pools = tuple(pools)

    def observe(self, seen_version: int | None, wait_ms: int) -> Observation:
        body = {"seen_version": seen_version, "wait_ms": wait_ms, "pools": list(self.pools)}
        told = self._ask("sync", body, timeout=wait_ms / 1000 + WAIT_SLACK_S)
        try:
            return self._observation(told)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceUnavailable(f"the hub's answer makes no sense: {type(error).__name__} {error}") from None

    def announce(self, claim: LaunchClaim) -> None:
        body = {
            "submission": claim.submission,
            "pool": claim.pool,
            "workers": list(claim.workers),
            "token_hashes": list(claim.token_hashes),
            "call_deadline": claim.call_deadline - self._ahead,
            "covers": [list(cover) for cover in claim.covers],
            "backlog_version": claim.backlog_version,
            "owners": list(claim.owners),
            "queues": list(claim.queues),
        }
        if claim.identity:  # a hub of the version before does not know it, and refuses such a launch
            body["identity"] = claim.identity
        try:
            self._ask("launches", body)
        except HubError as error:
            if error.code == "coverage-taken":
                raise CoverageTaken(error.detail) from None
            raise

    def identify(self, identities: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(_part(self._ask("identities", {"identities": dict(identities)}), "identified"))

    def bury(self, workers: Sequence[str], reason: str) -> tuple[str, ...]:
        told = self._ask("bury", {"workers": list(workers), "reason": reason})
        return tuple(_part(told, "buried"))

    def cordon(self, cordons: Sequence[Cordon]) -> Mapping[str, int | None]:
        wishes = [
            {
                "worker": cordon.worker,
                "only_if_idle": cordon.only_if_idle,
                "reason": dict(cordon.reason),
                "deadline_ms": cordon.deadline - self._ahead,
            }
            for cordon in cordons
        ]
        return dict(_part(self._ask("cordon", {"cordons": wishes}), "cordoned"))

    def uncordon(self, workers: Sequence[str]) -> tuple[str, ...]:
        return tuple(_part(self._ask("uncordon", {"workers": list(workers)}), "uncordoned"))

    def declare_gone(self, workers: Sequence[str], reason: str) -> None:
        self._ask("gone", {"workers": list(workers), "reason": reason})

    def publish(self, report: Mapping[str, Any]) -> None:
        self._ask("publish", {name: value[: AT_MOST.get(name, len(value))] for name, value in report.items()})

    # ------------------------------------------------------------ the wire

    def _ask(self, what: str, body: Mapping[str, Any], timeout: float | None = None) -> Any:
        """Every one of these calls may be repeated: the hub sees to it."""
        try:
            return self._client.post(f"{self._path}/{what}", body, timeout=timeout, idempotent=True)
        except HubError as error:
            if error.status >= 500 or error.status in (408, 429):
                raise SourceUnavailable(f"the hub answers {error.status}: {error.detail}") from None
            raise

    def _observation(self, told: Mapping[str, Any]) -> Observation:
        ahead = self._now_ms() - int(told["now_ms"])
        self._ahead = ahead if abs(ahead) > SKEW_IGNORED_MS else 0
        backlog = BacklogFact(
            version=int(told["version"]),
            groups=self._groups(told["groups"]),
            workers=tuple(self._worker(wire) for wire in told["workers"] if wire["state"] in LIVE_STATES),
            registers=True,
            owner=told.get("owner", ""),
        )
        return Observation(backlog, tuple(self._command(wire) for wire in told["commands"]))

    def _groups(self, wires: Sequence[Mapping[str, Any]]) -> tuple[JobGroup, ...]:
        """A group's shape is read once for as long as the group stands."""
        known, self._shapes = self._shapes, {}
        groups = []
        for wire in wires:
            key, asks = wire["key"], wire["asks"]
            before = known.get(key)
            shape = before[1] if before is not None and before[0] == asks else Shape.from_wire(asks)
            self._shapes[key] = (asks, shape)
            groups.append(
                JobGroup(
                    key=key,
                    asks=shape,
                    count=int(wire["count"]),
                    oldest=int(wire["oldest_ms"]) + self._ahead,
                    owner=wire.get("owner", ""),
                    queue=wire.get("queue", "default"),
                    priority=wire.get("priority", 0),
                    run_ms=wire.get("run_ms"),
                    running=int(wire.get("running") or 0),
                )
            )
        return tuple(groups)

    def _worker(self, wire: Mapping[str, Any]) -> WorkerFact:
        cordon = wire.get("cordon") or {}
        return WorkerFact(
            id=wire["id"],
            pool=wire["pool"],
            state=wire["state"],
            shape=Shape.from_wire(wire["shape"]),
            free=Shape.from_wire(wire["free"]),
            running=int(wire["running"]),
            assigned=int(wire["assigned"]),
            runs=int(wire["runs"]),
            ready_at=int(wire["ready_ms"]) + self._ahead,
            seen_at=int(wire["seen_ms"]) + self._ahead,
            idle_since=self._instant(wire.get("idle_since_ms")),
            drain_deadline=self._instant(cordon.get("deadline_ms")),
            drain_code=str((cordon.get("reason") or {}).get("code", "")),
            config=wire.get("config") or "",
        )

    def _command(self, wire: Mapping[str, Any]) -> Command:
        options = dict(wire.get("options") or {})
        if isinstance(options.get("until_ms"), int):
            options["until_ms"] += self._ahead
        return Command(
            id=wire["id"],
            pool=wire["pool"],
            kind=wire["kind"],
            target=wire.get("target") or "",
            generation=wire.get("generation"),
            expires_at=int(wire["expires_at"]) + self._ahead,
            options=options,
            by=wire.get("by") or "",
        )

    def _instant(self, ms: int | None) -> int | None:
        return None if ms is None else ms + self._ahead


def _part(told: Any, name: str) -> Any:
    try:
        return told[name]
    except (KeyError, TypeError):
        raise SourceUnavailable(f"the hub's answer lacks {name!r}") from None
