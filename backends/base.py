"""The contract of a backend: how workers begin and end somewhere.

A backend is one module (or package) that exposes

    OPTIONS: tuple[Option, ...]          what a person may set; becomes flags, environment variables, YAML keys
    CAPABILITIES: Capabilities           what the platform can and cannot do
    def create(options: Mapping[str, Any], context: Context) -> Backend

and one line in `registry.py`, or an entry point in the group `worker_manager.backends`.
The conformance suite in `tests/conformance` says the same as this file, executably.

The rules, for every method:
- It is called from one thread at a time for one pool, with a deadline kept by the caller; it must bound its own
  waiting as well (`Context.call_timeout_s`), because a thread that hangs cannot be taken back.
- It never retries a create. Reads and ends may be retried, within the deadline.
- It never decides: no scaling, no cooldown, no clean-up of what it was not asked about.
- A platform's state is translated by one table, with a link to the vendor's page above it; a state not in the table
  is `WorkerPhase.UNKNOWN`, never absent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from worker.protocol import Shape


class RefusalKind(StrEnum):
    CAPACITY = "capacity"  # the platform has no machine of this kind now
    QUOTA = "quota"  # we may not have more
    CONFIG = "config"  # it will never work like this: a person must change something
    AUTH = "auth"  # credentials missing, expired or without the right
    THROTTLED = "throttled"  # too many calls: later


@dataclass(frozen=True)
class Accepted:
    """The platform took the submission. `handles` maps index → the platform's own id, as far as they are known now
    (an ASG's ids appear later: then it is empty and `list` brings them)."""

    handles: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The platform said no, and certainly did nothing."""

    kind: RefusalKind
    text: str  # the vendor's own words, at most 2,000 characters
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Unknown:
    """It may or may not have happened: a time-out, a cut connection, an answer that makes no sense.
    The caller counts the workers as capacity and looks for them with `list`."""

    text: str


LaunchOutcome = Accepted | Refused | Unknown
EndOutcome = Accepted | Refused | Unknown


class WorkerPhase(StrEnum):
    PENDING = "pending"  # waits for a machine
    STARTING = "starting"  # has one, is being set up
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"  # over, and known to be over
    UNKNOWN = "unknown"  # listed in a state that we do not know


@dataclass(frozen=True)
class Seen:
    """One worker as the platform shows it."""

    submission: str
    index: int
    handle: str  # what `terminate` and `logs` take
    phase: WorkerPhase
    started_at: int | None = None  # UTC ms
    exit_code: int | None = None
    refusal: RefusalKind | None = None  # why it is stuck or ended, where the platform tells (quota, capacity, …)
    detail: str = ""  # the platform's words: a reason, a node
    identity: str = ""  # with `secrets` none: as whom its platform vouches for it: `aws:ACCOUNT:i-…`, or, which is
    # safer, with the role whose credentials its instances get: `aws:ACCOUNT:ROLE:i-…`


@dataclass(frozen=True)
class Listing:
    """Everything of this manager and pool that the platform shows. `complete` is False when a page was missing:
    then the absence of a worker means nothing. A listing that could not be read at all is an exception (ListFailed)."""

    seen: tuple[Seen, ...]
    complete: bool = True


class ListFailed(Exception):
    """The platform could not be read. Unknown is never zero, so there is no empty listing for this."""


class BackendUnusable(Exception):
    """Raised by `create`: an SDK is missing (the message is the install line) or an option makes no sense."""


AGENT = "wm-worker"  # the first word of a command whose program is an AgentFile


@dataclass(frozen=True)
class AgentFile:
    """The agent as one file, for nodes that have Python ≥ 3.9 and nothing of ours. What is fetched is held against its
    digest, so neither the line nor who answers on it needs to be trusted."""

    url: str  # where the hub serves it; the digest stands in it, so an older launch finds its own
    sha256: str
    path: str  # a copy on the manager's machine, for backends that bring it along


@dataclass(frozen=True)
class Submission:
    """One call that starts `count` workers, numbered from 0. `id` is the name on the platform and the idempotency
    token; it is a lowercase DNS label of at most 36 characters, so `worker_id(i)` is one of at most 40."""

    id: str
    count: int
    pool: str
    manager: str
    shape: Shape
    command: tuple[str, ...]  # the agent's argv without secrets; `{index}` and `{worker}` are replaced for each worker
    environment: Mapping[str, str]  # no secrets; the same replacements
    join_tokens: tuple[
        str, ...
    ]  # by index; reach the worker as a 0600 file or the platform's secret: WM_JOIN_TOKEN_FILE; with `secrets` none: ()
    config: str = ""  # digest of the pool's launch configuration
    setup: tuple[str, ...] = ()  # shell lines run before the agent where a shell starts it
    work_dir: str = ""  # as the worker sees it; it stands in the command as well
    agent: AgentFile | None = None  # then the command's first word is AGENT and stands for this file

    def worker_id(self, index: int) -> str:
        return f"{self.id}-{index}"

    def filled(self, text: str, index: int) -> str:
        """`text` with `{index}` and `{worker}` replaced; every other brace stays as it is."""
        return text.replace("{index}", str(index)).replace("{worker}", self.worker_id(index))


LONGEST_TEXT = 2000


def clipped(text: str) -> str:
    """A platform's own words, on one page however long they are: their beginning and their end."""
    text = text.replace("\0", "").strip()
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2 - 10
    return f"{text[:half]} […] {text[-half:]}"


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`: what was looked at, how it is, and the command or change that mends it."""

    subject: str
    severity: Severity
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Capabilities:
    max_batch: int = 1  # workers in one submission
    idempotent_create: bool = False  # the same submission id twice makes one worker
    ids_at_launch: bool = True  # Accepted.handles is filled
    list_lag_s: float = 0.0  # how long a created worker may be missing from a complete listing
    confirms_end: bool = True  # ENDED, or absence from a complete listing past the lag, means its processes are dead
    shared_machine: bool = False  # several workers on one host: shapes are slices
    graceful_end: bool = True  # terminate(force=False) gives the worker time to hand back its jobs
    secrets: str = "file"  # how a join token travels: file, platform, environment; none: it cannot (workers share what
    # they are started with), so `join_tokens` is empty, the command names no worker, and each joins by its identity
    elsewhere: bool = False  # workers run on other machines: the hub must be reachable from them, and they may have
    # nothing of ours, so a Submission brings an AgentFile (backends/start.py makes the script that runs it)
    notices: bool = False  # it is a GivesNotice

    @property
    def identity(self) -> str:
        """Who vouches for workers that hold no token; "" where they hold one."""
        return "aws" if self.secrets == "none" else ""


@dataclass(frozen=True)
class Option:
    """One setting of a backend. `type` is one of str, int, float, bool, bytes, cpus, duration, path, list."""

    name: str  # as in YAML and on the command line, with dashes
    type: str = "str"
    default: Any = None  # as `create` gets it: ms, bytes, milli-CPUs
    help: str = ""
    required: bool = False
    secret: bool = False  # given as a file or an environment reference, masked everywhere
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a backend is given besides its options."""

    manager: str
    pool: str
    state_dir: str  # a folder of this pool's own, mode 0700
    now_ms: Callable[[], int]  # UTC
    call_timeout_s: float = 30.0
    shape: Shape | None = None  # of the pool's workers, so that `check` can say whether it fits
    max_workers: int | None = None  # likewise
    server: str = ""  # what its agents are told of the hub, as far as it is known: `check` may try it from over there


class Backend(Protocol):
    def launch(self, submission: Submission) -> LaunchOutcome:
        """Make one call that starts `submission.count` workers. Called once for a submission id, ever, unless
        `idempotent_create`. Part of a submission may be refused only where `max_batch` is 1; else it is all or none."""

    def list(self) -> Listing:
        """Every worker of (manager, pool) that the platform still shows, ended ones included while it shows them.
        Follows all pages. Raises ListFailed."""

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        """End one worker. Already gone is Accepted. Without `force` the agent gets a chance to hand back its jobs
        where `graceful_end`; with it nothing is waited for. Both may be repeated."""

    def logs(self, handle: str, max_bytes: int) -> str:
        """The end of the worker's own output (its bootstrap's too), for people; '' where there is none."""

    def check(self) -> tuple[Finding, ...]:
        """For `doctor`: credentials, rights, that queue or partition exist, that the shape fits. Changes nothing."""

    def render(self, submission: Submission) -> str:
        """Exactly what `launch` would send, as text, with secrets masked."""


@dataclass(frozen=True)
class Notice:
    """The platform is about to end a worker: by itself at `deadline_ms`, or as soon as it is answered."""

    id: str  # what `hold` and `release` take; the same for as long as it is the same notice
    handle: str  # "": no worker of ours is meant, and it need only be released
    reason: str
    deadline_ms: int | None = None  # UTC


class GivesNotice(Backend, Protocol):
    """A backend whose platform says beforehand which worker it is about to end (capability `notices`)."""

    def notices(self) -> tuple[Notice, ...]:
        """Those that are open. Raises ListFailed."""

    def hold(self, notice: Notice) -> EndOutcome:
        """The worker still hands back its jobs: the platform shall wait. Repeated about every half minute. Accepted
        where the platform cannot wait longer, too."""

    def release(self, notice: Notice) -> EndOutcome:
        """The worker is gone, or never was: the platform may go on. May be repeated."""
