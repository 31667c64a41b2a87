"""The values that the policy reads and returns.

Three counts of workers stand side by side everywhere:
    wanted      what the plan asks for now
    requested   intents whose worker has not been seen yet: they are capacity, and they lag by the launch time
    observed    what a backend lists or a source has heard of
Nothing here does I/O or reads a clock: `now` and every other instant are data, in milliseconds of UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.protocol import Shape
from worker_manager.policy.reasons import Reason

# ---------------------------------------------------------------- what the policy reads


@dataclass(frozen=True, slots=True)
class JobGroup:
    """Jobs alike in everything that matters for placing them. The planner never sees a single job."""

    key: str
    asks: Shape
    count: int  # queued, and assigned but not started
    oldest: int  # when the oldest of them was queued
    owner: str = ""
    queue: str = "default"
    priority: int = 0
    run_ms: int | None = None  # measured; None until one has ended
    running: int = 0  # that the source knows to run now; they are not among `count`


@dataclass(frozen=True, slots=True)
class Warned:
    """Its platform is about to end a worker: at `deadline`, or as soon as it is answered."""

    id: str
    handle: str  # "": none of ours
    reason: str  # the platform's words
    deadline: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker, from intent to grave, as ledger, backend and source together know it."""

    id: str
    pool: str
    state: str  # worker.protocol.WorkerState
    shape: Shape  # what it has said it has; before that, what was promised
    free: Shape  # shape less what its jobs hold; equal to shape before it registers
    requested_at: int
    running: int = 0
    assigned: int = 0  # not started
    runs: int = 0  # jobs ended on it
    submitted_at: int | None = None
    ready_at: int | None = None  # registered
    seen_at: int | None = None  # last sign of life
    idle_since: int | None = None
    drain_deadline: int | None = None
    drain_code: str = ""  # why it drains, so that an idle drain may be undone and an operator's not
    end_asked_at: int | None = None
    force_asked_at: int | None = None
    listed: bool | None = None  # on the last complete listing; None where there was none
    config: str = ""  # digest of the configuration it was launched with
    registers: bool = True  # False where the source has no registration (a foreign queue)
    handle: str | None = None
    refusal: str | None = None  # why the platform lets it wait, or ended it: backends.base.RefusalKind's values
    detail: str = ""  # the platform's words
    started_at: int | None = None  # its machine runs since then, as the platform says
    notice: Warned | None = None  # the platform is about to end it
    left: bool = False  # it had registered and has said goodbye; its machine may still be there
    known: bool = True  # the ledger has an intent for it; False for what only a listing or the source shows

    @property
    def busy(self) -> bool:
        return self.running + self.assigned > 0


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed launch, or a worker that died before it was of use."""

    at: int
    kind: str  # backends.base.RefusalKind's values, or boot (died or never registered)
    text: str
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger remembers of a pool. Durable: a restart forgets nothing."""

    last_launch_at: int | None = None
    last_drain_at: int | None = None
    last_success_at: int | None = None  # a worker registered
    failures: tuple[Failure, ...] = ()  # newest last, at most 100, none older than 3 h
    starts: tuple[int, ...] = ()  # ms from request to registration, of the last workers that registered


@dataclass(frozen=True, slots=True)
class Limits:
    min_workers: int = 0
    max_workers: int = 10
    cooldown_up_ms: int = 0
    cooldown_down_ms: int = 0
    stabilise_ms: int = 300_000  # scale-down target is the largest of this window
    step_up: int | None = None  # workers in one tick
    step_down: int | None = None
    idle_ms: int = 600_000  # idle this long before it may go
    max_age_ms: int | None = None
    start_timeout_ms: int = 900_000  # running but not registered
    queue_timeout_ms: int | None = None  # waits for a machine
    lost_timeout_ms: int = 300_000  # silent, before it is ended
    drain_timeout_ms: int = 3_600_000
    end_grace_ms: int = 60_000  # between asking and forcing
    retire_drifted: bool = False  # drain workers of an older configuration when idle
    backoff_ms: int = 300_000
    backoff_cap_ms: int = 1_800_000
    breaker_after: int = 10  # boot failures in a row


@dataclass(frozen=True, slots=True)
class PoolView:
    name: str
    backend: str
    shape: Shape
    limits: Limits
    law: str = "pack"
    law_options: Mapping[str, Any] = field(default_factory=dict)
    owners: tuple[str, ...] = ()  # empty: every owner
    queues: tuple[str, ...] = ()  # empty: every queue
    max_batch: int = 1
    readable: bool = True  # its backend could be listed; if not, nothing is decided about it
    unreadable_text: str = ""
    frozen_until: int | None = None
    freeze_text: str = ""
    history: History = History()
    config: str = ""
    runs_per_worker: int | None = None  # --worker-exit-after-num-runs
    configured: bool = True  # False: its workers are to finish and go


@dataclass(frozen=True, slots=True)
class Note:
    """What a law or limit wants to find again at the next tick. Data only, versioned by its writer."""

    pool: str
    owner: str  # `law:pack`, `limit:stabilise`, …
    version: int
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    now: int
    groups: tuple[JobGroup, ...]
    workers: tuple[WorkerView, ...]
    pools: tuple[PoolView, ...]
    notes: tuple[Note, ...] = ()
    backlog_version: int = 0
    backlog_readable: bool = True
    backlog_text: str = ""


# ---------------------------------------------------------------- what it returns


@dataclass(frozen=True, slots=True)
class Launch:
    pool: str
    count: int
    reason: Reason
    covers: tuple[tuple[str, int], ...] = ()  # (group key, jobs) that these workers are for
    wanted: int = 0  # what law and minimum asked of the pool in all, before any limit
    limited: tuple[Reason, ...] = ()  # the limits that left less than that, in the order in which they applied


@dataclass(frozen=True, slots=True)
class Undrain:
    pool: str
    worker: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Drain:
    """Cordon it if it is (still) idle; it then exits by itself."""

    pool: str
    worker: str
    reason: Reason
    deadline: int
    only_if_idle: bool = True


@dataclass(frozen=True, slots=True)
class End:
    """Through the backend: what did not go by itself, never registered, or is lost."""

    pool: str
    worker: str
    reason: Reason
    force: bool = False


Action = Launch | Undrain | Drain | End


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one job group in one pool."""

    group: str
    pool: str
    status: (
        str  # served (free room now, or soon enough) | launching (room on its way) | waiting (a limit holds) | never
    )
    # | elsewhere (it fits, but another pool has it)
    jobs: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Awaited:
    """One worker that was launched and has not registered."""

    worker: str
    state: str
    since: int  # requested
    refusal: str | None  # what kind of trouble the platform tells of
    text: str  # its words


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool's line on the screen."""

    pool: str
    wanted: int
    requested: int
    observed: int
    ready: int
    idle: int
    draining: int
    min_workers: int
    max_workers: int
    launch: int
    drain: int
    reasons: tuple[
        Reason, ...
    ]  # in the order in which they applied: the law first, then every limit that changed the count
    frozen_until: int | None = None  # an operator's freeze that is in force
    freeze_text: str = ""
    next_due: int | None = None  # when time alone may change something here; None: only an event can
    awaited: tuple[Awaited, ...] = ()  # the first of those that have not registered


@dataclass(frozen=True, slots=True)
class Plan:
    now: int
    backlog_version: int
    actions: tuple[Action, ...]
    pools: tuple[PoolPlan, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[Note, ...]
    next_due: int | None = None  # when time alone changes something; None: only an event can
