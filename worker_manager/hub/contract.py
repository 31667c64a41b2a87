"""What the hub's service asks of its store.

Writes return a `concurrent.futures.Future` (the service awaits it with `asyncio.wrap_future`): one writer thread takes
what arrived together, runs each in a savepoint of its own, commits once and only then resolves the futures. So a result
means that it is on disk. A write that is refused raises one of `refusals`; one that could not be committed raises
StoreError, and nothing of it was acknowledged. When too much waits the future fails with `Overloaded` at once.

Reads block for a few milliseconds and use connections of their own: call them in a thread.

Instants are UTC milliseconds and read from the clock that the store was given. Values that leave are plain wire
dictionaries, exactly as docs/reference/http-api.md and worker/protocol.py name their fields.
The store that ships: `worker_manager.hub.store.open_store(url_or_state_dir, clock, settings=Settings())`; it raises
StoreError (corrupt, locked, of a newer schema, on a network file system) with what to do.

Token, credential and join-token secrets never reach the store: only their SHA-256, in hex.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from worker.protocol import Polled, Registered, Report, Reported, Shape
from worker.protocol import Register as RegisterMessage
from worker_manager.hub.inventory import Inventory

Wire = dict[str, Any]
EVERYONE = "*"  # among a claim's owners

# Topics of `HubStore.listen`, called after the commit that made them true.
BACKLOG = "backlog"  # the backlog's version rose
EVENTS = "events"  # events were added


def worker_topic(worker: str) -> str:
    """There is something new for its poll."""
    return f"worker:{worker}"


def job_topic(job: str) -> str:
    """It changed its state, or more of its output can be read."""
    return f"job:{job}"


def manager_topic(manager: str) -> str:
    """A command came for it."""
    return f"manager:{manager}"


Listener = Callable[[frozenset[str]], None]


@dataclass(frozen=True, slots=True)
class Settings:
    lease_ms: int = 60_000  # a worker silent for this long is lost
    poll_ms: int = 50_000
    heartbeat_ms: int = 10_000
    silent_manager_ms: int = 120_000  # so long without a report of its own: idle workers of it may go by themselves
    lost_cap: int = 5  # times that a job may lose its worker
    prefetch_ms: int = 500  # measured work that may wait on a worker, for each slot
    prefetch_jobs: int = 256
    soon_ms: int = 100  # unstarted jobs that start later than this are called back while another worker is free
    patience_ms: int = 60_000  # a job that waits for longer has a worker keep its room for it; 0: never
    retention_ms: int = 30 * 86_400_000
    max_groups: int = 10_000
    max_pending_writes: int = 10_000
    busy_ms: int = 5_000  # how long a database that another process keeps locked is waited for


@dataclass(frozen=True, slots=True)
class Access:
    """What a token may do. `id` names the token, never its secret."""

    id: str
    owner: str
    scopes: frozenset[str]  # read, submit, worker, manager, operator


@dataclass(frozen=True, slots=True)
class Dependency:
    job: str  # a job's id, or `#n`: the n-th job of the same request (an earlier one)
    needs: str = "success"  # success | end
    where: str = ""  # in the job, where it is not one of depends_on


@dataclass(frozen=True, slots=True)
class NewJob:
    """One JobSpec, checked and with its amounts as integers."""

    command: tuple[str, ...]
    shape: Shape  # with tags, and the time limit as walltime
    name: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    queue: str = "default"
    priority: int = 0
    grace_ms: int = 10_000
    retries: int = 0
    depends_on: tuple[Dependency, ...] = ()
    array: int | None = None  # how many tasks
    output_limit: int = 64 * 2**20
    work: Mapping[str, Any] = field(default_factory=dict)  # how it is to be run beyond its command: an Assignment's


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of which an attempt has told that it was kept."""

    path: str
    size: int
    sha256: str
    at: str  # blob:SHA256, or the object's URI


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """What a worker has at the moment: whose it is and how it is to be run."""

    job: str
    owner: str
    work: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Where bytes of an attempt's output lie. The bytes are in the segment file before the piece is reported."""

    job: str
    epoch: int
    offset: int  # in the attempt's output
    length: int
    segment: str
    segment_offset: int


@dataclass(frozen=True, slots=True)
class LogView:
    """The pieces of one attempt's output from `offset` on, in order; overlaps and gaps are possible."""

    job: str
    epoch: int
    pieces: tuple[LogPiece, ...]
    size: int  # bytes known: end of the last piece
    complete: bool  # the attempt has ended: no more will come


@dataclass(frozen=True, slots=True)
class Claim:
    """LaunchClaim as it arrives, with whom its workers serve: without `owners` the manager's own, with EVERYONE among
    them everyone; without `queues` every queue."""

    submission: str
    pool: str
    workers: tuple[str, ...]
    token_hashes: tuple[str, ...]
    call_deadline: int
    covers: tuple[tuple[str, int], ...] = ()
    backlog_version: int = 0
    owners: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    identity: str = ""  # its workers hold no token: who vouches for them (aws), and `token_hashes` is empty


@dataclass(frozen=True, slots=True)
class CordonOrder:
    worker: str
    only_if_idle: bool
    reason: Mapping[str, Any]
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class JobFilter:
    state: str | None = None
    owner: str | None = None
    queue: str | None = None
    name: str | None = None
    array: str | None = None  # an array's id: its opened tasks
    worker: str | None = None
    limit: int = 100
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    lost: tuple[str, ...] = ()  # workers whose lease ended
    recalled: int = 0
    expired_commands: int = 0


@dataclass(frozen=True, slots=True)
class Purged:
    jobs: int = 0
    events: int = 0
    segments: tuple[str, ...] = ()  # log segments that nothing refers to any more: delete their files
    more: bool = False  # the limit was reached: call again soon


class Removed(Enum):
    """What became of a blob that was to be removed."""

    NO = "somebody needs it again"
    ROW = "others still own the same bytes"
    LAST = "nobody owns these bytes any more"


class Writer(Protocol):
    """The one thread that writes."""

    def submit(self, op: Callable[[Any], Any]) -> "Future[Any]":
        """Queue `op(transaction)`. The future resolves after the commit; an op that raises fails alone."""

    def close(self) -> None:
        """Finish what is queued, then stop."""


class HubStore(Protocol):
    settings: Settings
    inventory: Inventory  # what workers' caches hold, in memory

    # ------------------------------------------------------------ life

    def listen(self, listener: Listener) -> None:
        """`listener(topics)` is called in the writer's thread after each commit that changed something: be quick
        (`loop.call_soon_threadsafe`)."""

    def count_commits(self, observe: Callable[[int, float], None]) -> None:
        """`observe(changes, seconds)` is called in the writer's thread after each commit: be quick."""

    def healthy(self) -> str | None:
        """From memory: None when the store writes; else a sentence that says why not."""

    def failed(self) -> "Future[None]":
        """Fails with StoreError when the database must not be used any more (an fsync failed): exit then."""
        ...

    def close(self) -> None: ...

    def sweep(self) -> "Future[Swept]":
        """Once a second or so: leases that ended, drains overdue, commands that expired. Tells how many jobs were
        called back since."""
        ...

    def holds_ahead(self) -> bool:
        """From memory: some worker holds jobs for which it has no room yet."""
        ...

    def recall(self) -> "Future[None]":
        """A few times a second while one does: what stands behind jobs that take longer than expected is called back
        when anybody has room. A worker that gets room finds the rest by itself, in its own commit."""
        ...

    def purge(self, limit: int = 1000) -> "Future[Purged]":
        """One small step of retention."""
        ...

    # ------------------------------------------------------------ access

    def jobs_to_holders(self) -> int:
        """From memory: jobs that went before others to a worker that holds their inputs."""
        ...

    def authenticate(self, token_sha256: str) -> Access | None:
        """Read. None for an unknown, revoked or expired token."""

    def create_token(
        self, token_sha256: str, owner: str, scopes: Sequence[str], expires_ms: int | None, by: str
    ) -> "Future[Wire]":
        """{id, owner, scopes, expires_ms, created_ms}. The same hash again: the same answer."""
        ...

    def list_tokens(self) -> list[Wire]: ...

    def delete_token(self, token: str, by: str) -> "Future[None]": ...

    # ------------------------------------------------------------ jobs

    def submit_jobs(
        self, owner: str, jobs: Sequence[NewJob], key: str | None = None, request_sha256: str = ""
    ) -> "Future[list[Wire]]":
        """[{id, count}]. With `key` the same request gives the same answer; another body IdempotencyMismatch."""
        ...

    def cancel_job(self, job: str, owner: str | None, by: str) -> "Future[tuple[bool, Wire]]":
        """(something changed, Job). `owner` None: an operator, who may cancel everyone's. Else Forbidden for
        another's. Queued jobs end at once; running ones are told to."""
        ...

    def cancel_jobs(self, jobs: Sequence[str], owner: str | None, by: str) -> "Future[list[Wire]]":
        """The same for many in one commit: for each {id, state} as it is then, or {id, code, detail} why not."""
        ...

    def get_job(self, job: str) -> Wire:
        """Job with `attempts` and, while it waits, `why`."""
        ...

    def list_jobs(self, wanted: JobFilter) -> tuple[list[Wire], str | None]:
        """(jobs, next cursor)."""
        ...

    def explain_job(self, job: str) -> Wire: ...

    def log_view(self, job: str, attempt: int | None = None, offset: int = 0, limit: int = 1000) -> LogView:
        """At most `limit` pieces. `attempt` None: the newest."""
        ...

    # ------------------------------------------------------------ blobs

    def find_blob(self, owner: str, sha256: str) -> int | None:
        """Read. Its size, if this owner has it."""

    def add_blob(self, owner: str, sha256: str, size: int) -> "Future[bool]":
        """Its bytes are in place, whole and durable. Whether nobody had them before."""
        ...

    def renew_blob(self, owner: str, sha256: str) -> "Future[None]":
        """One that no job needs is kept as if it had come now."""
        ...

    def is_blob_unused(self, owner: str, sha256: str, before_ms: int) -> bool:
        """Read. No job has needed it since before then."""
        ...

    def unused_blobs(self, before_ms: int, limit: int) -> list[tuple[str, str, int]]:
        """Read. [(sha256, owner, size)] that no job has needed since before then."""
        ...

    def remove_blob(self, owner: str, sha256: str, before_ms: int) -> "Future[Removed]":
        """Only if no job has needed it since then."""
        ...

    def count_blobs(self) -> tuple[int, int]:
        """Read, and not cheap: (blobs, bytes), the same bytes of several owners counted once."""
        ...

    def known_blobs(self, digests: Sequence[str]) -> set[str]:
        """Read. Those that anybody owns."""
        ...

    def list_files(self, job: str, attempt: int | None = None, limit: int = 100, cursor: str | None = None) -> Wire:
        """{job, attempt, count, size, files, next}: what it has kept. `attempt` None: the newest that ended."""
        ...

    def kept_file(self, job: str, attempt: int | None, path: str) -> KeptFile | None: ...

    def files_taken(self, owner: str, job: str, path: str, most: int = 10_000) -> list[KeptFile]:
        """What another job of this owner takes from it: a file (its path is then empty), or all below a folder; of an
        array that of each task, in folders with their numbers."""
        ...

    # ------------------------------------------------------------ workers' own calls

    def register(self, message: RegisterMessage, token_sha256: str) -> "Future[Registered]":
        """`token_sha256` is a join token's, or that of a token with the scope `worker`."""
        ...

    def join(self, message: RegisterMessage, names: Sequence[str]) -> "Future[Registered]":
        """For a worker without a token: `names` are what its platform vouches for, by any of which its launch may
        know it. Raises NotYet while no launch does."""
        ...

    def awaits_identities(self) -> bool:
        """Read. Some launch's workers hold no token."""
        ...

    def admit_worker(self, worker: str, credential_sha256: str) -> None:
        """Read. Raises Unauthorized or Gone when this is not the credential of a worker that is here."""

    def held_attempt(self, worker: str, credential_sha256: str, session: int, job: str, epoch: int) -> HeldAttempt:
        """Read. Raises Unauthorized, Gone or Conflict: that attempt is not this worker's now."""
        ...

    def poll(self, worker: str, credential_sha256: str, session: int, ack: int, waits: bool = False) -> Polled:
        """Read. Answers at once; there is news when `seq > ack`, else wait for `worker_topic` and ask again.
        Counts as a sign of life, but not while it only `waits`: its worker may have died since it asked."""
        ...

    def report(
        self, worker: str, credential_sha256: str, message: Report, logs: Sequence[LogPiece] = ()
    ) -> "Future[Reported]":
        """`message['logs']` is ignored: the service wrote the bytes already and says where in `logs`."""
        ...

    # ------------------------------------------------------------ operators

    def get_worker(self, worker: str) -> Wire: ...

    def list_workers(self, pools: Sequence[str] | None = None, gone: bool = False) -> list[Wire]: ...

    def awaited_workers(self) -> list[Wire]: ...

    def drain_worker(
        self, worker: str, by: str, reason: str = "", deadline_ms: int | None = None
    ) -> "Future[Wire]": ...

    def undrain_worker(self, worker: str, by: str) -> "Future[Wire]": ...

    def ask_logs(self, worker: str, max_bytes: int, by: str) -> "Future[Wire]": ...

    def delete_worker(self, worker: str, force: bool, grace_ms: int, by: str) -> "Future[Wire]":
        """{command: id or null (started by hand: no manager to relay to)}."""
        ...

    def list_pools(self) -> list[Wire]: ...

    def explain_pool(self, pool: str) -> list[Wire]:
        """One entry for each manager that publishes a pool of this name. NotFound when none does."""
        ...

    def freeze_pool(
        self, pool: str, until_ms: int, text: str, by: str, manager: str | None = None
    ) -> "Future[Wire]": ...

    def unfreeze_pool(self, pool: str, by: str, manager: str | None = None) -> "Future[Wire]":
        """Both: {command: id of the first, commands: [ids]}; with several managers of such a pool, one for each."""
        ...

    def get_command(self, command: str) -> Wire: ...

    def list_events(
        self, after: str | None = None, kind: str | None = None, subject: str | None = None, limit: int = 100
    ) -> tuple[list[Wire], str]:
        """(events, cursor for the next call). `after` None: from the oldest kept; "now": only what comes."""
        ...

    def summary(self, since_ms: int | None = None) -> Wire: ...

    def info(self) -> Wire:
        """{generation, jobs: counts by state, workers: counts by state, version, now_ms}."""
        ...

    # ------------------------------------------------------------ managers

    def backlog(self, manager: str | None = None) -> Wire:
        """{version, now_ms, groups}. For a manager, what other managers launch for already is taken off."""
        ...

    def version(self) -> int:
        """The backlog's, from memory: cheap enough for the event loop."""
        ...

    def sync(self, manager: str, pools: Sequence[str]) -> Wire:
        """Read: {version, now_ms, groups, workers, commands}."""
        ...

    def has_commands(self, manager: str) -> bool:
        """From memory: a pending command waits for this manager, so its sync answers at once."""
        ...

    def publish(self, manager: str, report: Mapping[str, Any]) -> "Future[None]":
        """`pools` and `verdicts` replace what was told before, where the report has them; `decisions` are added."""
        ...

    def claim_launch(self, manager: str, claim: Claim, owner: str = "") -> "Future[None]":
        """Idempotent by submission. `owner`: the manager's token's. Raises CoverageTaken."""
        ...

    def identify(self, manager: str, told: Mapping[str, str]) -> "Future[list[str]]":
        """Worker → the identity by which it joins, for launches that were claimed so. Told again, or anew, at will
        until it has registered. Returns those of which it holds now."""
        ...

    def bury(self, manager: str, workers: Sequence[str], reason: str) -> "Future[list[str]]": ...

    def cordon(self, manager: str, orders: Sequence[CordonOrder]) -> "Future[dict[str, int | None]]": ...

    def uncordon(self, manager: str, workers: Sequence[str]) -> "Future[list[str]]": ...

    def declare_gone(self, manager: str, workers: Sequence[str], reason: str) -> "Future[None]": ...
