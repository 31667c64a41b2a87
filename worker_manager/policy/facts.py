"""What was observed and remembered, before it is put together: the input of `derive`.

`control/observe.py` fills these from the ledger, the backends and the source; the simulator fills them from its own
virtual world. They carry no judgement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.protocol import Shape
from worker_manager.policy.model import History, JobGroup, Limits, Note


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool as configured; frozen for the life of a configuration."""

    name: str
    backend: str  # empty: not known any more, and never listed
    shape: Shape
    limits: Limits = Limits()
    law: str = "pack"
    law_options: Mapping[str, Any] = field(default_factory=dict)
    owners: tuple[str, ...] = ()  # empty: the manager's own; "*": everyone
    queues: tuple[str, ...] = ()
    max_batch: int = 1
    list_lag_ms: int = 0
    config: str = ""
    runs_per_worker: int | None = None
    configured: bool = True  # False: taken out of the configuration while it had workers
    confirms_end: bool = True  # the backend's capability: ended, or vanished, means its processes are dead


@dataclass(frozen=True, slots=True)
class IntentFact:
    """One row of the ledger that is not closed."""

    id: str
    pool: str
    state: str  # requested | submitted | unknown: what the create call said
    shape: Shape
    requested_at: int
    call_deadline: int  # the create call is over for certain after this
    submitted_at: int | None = None
    handle: str | None = None
    seen_listed_at: int | None = None  # last complete listing that showed it
    missed_listings: int = 0  # complete listings in a row, past the backend's lag, that did not (closing.note_listing)
    registered_at: int | None = None
    end_asked_at: int | None = None
    force_asked_at: int | None = None
    config: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """One worker on a backend's listing (backends.base.Seen, in the policy's words)."""

    id: str
    phase: str  # backends.base.WorkerPhase's values
    handle: str
    started_at: int | None = None
    refusal: str | None = None
    detail: str = ""
    identity: str = ""  # as whom its platform vouches for it, where it has no token


@dataclass(frozen=True, slots=True)
class Sights:
    """One pool's listing; `failed` says why there is none."""

    at: int
    seen: tuple[Sight, ...] = ()
    complete: bool = True
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerFact:
    """One worker as the source has heard of it."""

    id: str
    pool: str
    state: str  # ready | draining | lost | gone
    shape: Shape
    free: Shape
    running: int
    assigned: int
    runs: int
    ready_at: int
    seen_at: int
    idle_since: int | None
    drain_deadline: int | None = None
    drain_code: str = ""
    config: str = ""


@dataclass(frozen=True, slots=True)
class BacklogFact:
    """What the source said; `failed` says why it could not be read."""

    version: int = 0
    groups: tuple[JobGroup, ...] = ()
    workers: tuple[WorkerFact, ...] = ()
    registers: bool = True  # workers register with the source, so silence means something
    failed: str | None = None
    owner: str = ""  # ours, as the source knows us; empty: it knows no owners


@dataclass(frozen=True, slots=True)
class PoolMemory:
    history: History = History()
    frozen_until: int | None = None
    freeze_text: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """All that the ledger gives to a tick."""

    intents: tuple[IntentFact, ...] = ()
    pools: Mapping[str, PoolMemory] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
