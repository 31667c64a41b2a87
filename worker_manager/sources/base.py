"""The contract of a source: where the backlog comes from, and, where workers register with it, who admits them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from worker_manager.policy.facts import BacklogFact


@dataclass(frozen=True)
class Command:
    """What an operator asked of a pool, relayed by the source. Carried out once; its result is reported back."""

    id: str
    pool: str
    kind: str  # end-worker | freeze | unfreeze
    target: str  # worker id, or empty
    generation: int | None  # of the target's cordon, where that must not have changed
    expires_at: int
    options: Mapping[str, Any]  # force, grace_ms, until_ms, text
    by: str


@dataclass(frozen=True)
class Observation:
    backlog: BacklogFact
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True)
class LaunchClaim:
    """What a manager tells the source before it calls a backend."""

    submission: str
    pool: str
    workers: tuple[str, ...]  # ids, by index
    token_hashes: tuple[str, ...]  # SHA-256 of the join tokens, hex, by index; none with `identity`
    call_deadline: int  # UTC ms
    covers: tuple[tuple[str, int], ...]
    backlog_version: int
    owners: tuple[str, ...] = ()  # whom these workers serve; empty: the manager's owner; "*": everyone
    queues: tuple[str, ...] = ()  # empty: every queue
    identity: str = ""  # its workers hold no token: who vouches for them (aws); `identify` says as whom they come


@dataclass(frozen=True)
class Cordon:
    worker: str
    only_if_idle: bool
    reason: Mapping[str, Any]  # Reason.to_wire()
    deadline: int


class CoverageTaken(Exception):
    """Another manager launches for these jobs already: observe again, then plan again."""


class Source(Protocol):
    """Every method may raise SourceUnavailable. All are safe to repeat."""

    registers: bool  # workers register here: tokens, cordons and burials mean something

    def serve(self, pools: Sequence[str]) -> None:
        """These are our pools from now on: `observe` tells of their workers and commands."""

    def observe(self, seen_version: int | None, wait_ms: int) -> Observation:
        """Everything at once. With `seen_version`, waits up to `wait_ms` until something is newer than it."""

    def announce(self, claim: LaunchClaim) -> None:
        """Before the backend is called: makes the tokens valid and covers the job groups. Raises CoverageTaken."""

    def identify(self, identities: Mapping[str, str]) -> tuple[str, ...]:
        """Worker → as whom its platform vouches for it (backends.base.Seen.identity). Returns those admitted so."""

    def bury(self, workers: Sequence[str], reason: str) -> tuple[str, ...]:
        """Revoke the tokens of workers that never came. Returns those buried; not one that has registered."""

    def cordon(self, cordons: Sequence[Cordon]) -> Mapping[str, int | None]:
        """Worker → cordon generation, or None where it was busy or is gone."""

    def uncordon(self, workers: Sequence[str]) -> tuple[str, ...]:
        """Those that accept jobs again."""

    def declare_gone(self, workers: Sequence[str], reason: str) -> None:
        """The backend confirms that these are dead: their jobs go back at once."""

    def publish(self, report: Mapping[str, Any]) -> None:
        """Pools, plan and verdicts, for `explain` and `get pools`; results of commands."""
