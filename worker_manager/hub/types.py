"""What clients, operators and managers may send, and what they get: the source of the OpenAPI document.

A field that is not here is refused, so that a typo does not pass. Amounts are integers; where a person may write one,
text with a unit is taken too (`"4GiB"`, `"0.5"` CPUs, `"10m"`). Workers' own messages are in `worker/protocol.py`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.json_schema import WithJsonSchema

from worker.protocol import LARGEST, Shape, UnitError, parse_bytes, parse_cpus, parse_duration
from worker_manager.hub.files import types as files

MAX_JOBS = 10_000
MAX_TASKS = 1_000_000
MIB = 2**20

# ---------------------------------------------------------------- amounts and names


def _amount(parse: Callable[[str], int], example: str) -> tuple[BeforeValidator, WithJsonSchema, Any]:
    def read(value: object) -> object:
        if isinstance(value, str):
            try:
                return parse(value)
            except UnitError as error:
                raise ValueError(str(error)) from None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"write an integer, or text with a unit such as {example!r}")
        return value

    integer = {"type": "integer", "minimum": 0, "maximum": LARGEST}
    schema = {"anyOf": [integer, {"type": "string", "examples": [example]}]}
    return BeforeValidator(read), WithJsonSchema(schema), Field(ge=0, le=LARGEST)


PATTERN_WORDS: dict[str, str] = {}  # what a person is told instead of a pattern


def _like(pattern: str, words: str) -> StringConstraints:
    PATTERN_WORDS[pattern] = words
    return StringConstraints(pattern=pattern, strict=True)


def _encodable(text: str) -> str:
    if "\0" in text:
        raise ValueError("NUL characters are refused")
    return text


Bytes = Annotated[int, *_amount(parse_bytes, "4GiB")]
MilliCpus = Annotated[int, *_amount(parse_cpus, "0.5")]
Duration = Annotated[int, *_amount(parse_duration, "10m")]
Count = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]
Instant = Annotated[int, Field(ge=0, le=LARGEST, strict=True)]  # UTC ms
MOST_COVERED = 10**9  # jobs of a group: the sums over many launches stay far below what a database's integer holds
Text = Annotated[str, Field(max_length=2000, strict=True), AfterValidator(_encodable)]
Output = Annotated[str, Field(max_length=65_536, strict=True), AfterValidator(_encodable)]  # the end of a worker's
Argument = Annotated[str, Field(max_length=131_072, strict=True), AfterValidator(_encodable)]
EnvName = Annotated[
    str,
    _like(
        r"^[A-Za-z_][A-Za-z0-9_]{0,254}$",
        "a variable begins with a letter or _, and goes on with letters, digits and _; at most 255",
    ),
]
Label = Annotated[
    str,
    _like(
        r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$",
        "at most 64 lowercase letters, digits and dashes, and no dash at the ends",
    ),
]  # workers, managers, pools
Word = Annotated[
    str,
    _like(
        r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}$",
        "at most 63 letters, digits and . _ @ + -, beginning with a letter or digit",
    ),
]  # owners, queues
Tag = Annotated[str, _like(r"^[^\s,\x00-\x1f\x7f]{1,64}$", "1 to 64 characters without spaces and commas")]
JobName = Annotated[str, _like(r"^[^\x00-\x1f\x7f]{0,200}$", "at most 200 characters in one line")]
JobId = Annotated[
    str, _like(r"^j[0-9]{1,18}(-[0-9]{1,7})?$", "an id of a job is j and a number, such as j7; of a task j7-0")
]
Sha256 = Annotated[str, _like(r"^[0-9a-f]{64}$", "64 hexadecimal digits")]
Scope = Literal["read", "submit", "worker", "manager", "operator"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Strict):
    """No field at all: a body `{}` (or none), a query without parameters."""


# ---------------------------------------------------------------- jobs


class CancelJobs(Strict):
    jobs: Annotated[list[Annotated[str, Field(max_length=64, strict=True)]], Field(min_length=1, max_length=1000)]


class Resources(Strict):
    cpus: MilliCpus = 1000
    memory: Bytes = 0
    gpus: Count = 0
    gpu_type: Annotated[str, _like(r"^[^\x00-\x1f\x7f]{0,64}$", "at most 64 characters in one line")] = ""
    disk: Bytes = 0
    custom: dict[Word, Count] = Field(default={}, max_length=32)


class Dependency(Strict):
    job: Annotated[
        str,
        _like(
            r"^(#[0-9]{1,5}|j[0-9]{1,18})$",
            "an id of a job is j and a number, such as j7; #0 is the first job of this request",
        ),
    ]
    needs: Literal["success", "end"] = "success"


class Array(Strict):
    count: Annotated[int, Field(ge=1, le=MAX_TASKS, strict=True)]


WAYS = {  # parts of a job that not every worker knows → what such a worker says that it can
    "max_processes": "max-processes",
    "max_files": "max-files",
    "cpu_affinity": "cpu-affinity",
    "progress_regex": "progress",
}
IMAGES = ("docker", "podman", "apptainer")  # ways of isolation that run a job in an image
Isolation = Literal["process", "sandbox", "docker", "podman", "apptainer"]
Image = Annotated[
    str,
    _like(
        r"^[A-Za-z0-9/][A-Za-z0-9._/:@+-]{0,499}$",
        "an image is a name such as registry/project/image:tag, or for apptainer a file or docker://…",
    ),
]


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it is no regular expression: {error}") from None
    if not groups:
        raise ValueError(r"it needs a group for the percentage, such as (\d+)%, or two: done and whole")
    return text


Pattern = Annotated[
    str, Field(min_length=1, max_length=200, strict=True), AfterValidator(_encodable), AfterValidator(_pattern)
]


class Checkpoint(Strict):
    """It saves what it has done when it hears `signal`, and has `grace` for it."""

    signal: Literal["TERM", "INT", "HUP", "USR1", "USR2", "CONT"] = "TERM"
    grace: Annotated[Duration, Field(gt=0, le=86_400_000)] = 30_000
    dir: Annotated[bool, Field(strict=True)] = True


class JobSpec(Strict):
    """One job, or all tasks of an array."""

    command: Annotated[list[Argument], Field(min_length=1, max_length=10_000)]
    name: JobName = ""
    env: dict[EnvName, Argument] = Field(default={}, max_length=1000)
    resources: Resources = Resources()
    tags: Annotated[list[Tag], Field(max_length=64)] = []
    queue: Word = "default"
    priority: Annotated[int, Field(ge=-100, le=100, strict=True)] = 0
    time_limit: Duration | None = None
    time_limit_ms: Duration | None = None
    grace: Duration | None = None
    grace_ms: Duration | None = None
    retries: Annotated[int, Field(ge=0, le=100, strict=True)] = 0
    depends_on: Annotated[list[Dependency], Field(max_length=1000)] = []
    array: Array | None = None
    output_limit: Annotated[Bytes, Field(le=2**40)] = 64 * MIB
    max_processes: Annotated[int, Field(ge=1, le=2**22, strict=True)] | None = None
    max_files: Annotated[int, Field(ge=16, le=2**20, strict=True)] | None = None
    cpu_affinity: Annotated[bool, Field(strict=True)] = False
    progress_regex: Pattern | None = None
    checkpoint: Checkpoint | None = None
    isolation: Isolation = "process"
    image: Image | None = None
    network: Annotated[bool, Field(strict=True)] = True
    inputs: files.Inputs = []
    outputs: files.Outputs = []

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for name in ("time_limit", "grace"):
            if getattr(self, name) is not None and getattr(self, f"{name}_ms") is not None:
                raise ValueError(f"give {name} or {name}_ms, not both")
        if not self.command[0]:
            raise ValueError("command[0], the program, is empty")
        if sum(map(len, self.command)) + sum(len(k) + len(v) for k, v in self.env.items()) > MIB:
            raise ValueError("command and env are larger than 1 MiB together")
        if self.cpu_affinity and (self.resources.cpus % 1000 or not self.resources.cpus):
            raise ValueError("cpu_affinity binds a job to whole cpus: let it ask for 1, 2, …")
        if self.checkpoint is not None and self.isolation == "apptainer":
            raise ValueError("no checkpoint with isolation apptainer: nobody has tried whether it passes signals on")
        self._can_be_isolated()
        files.make_sense_together(self.inputs, self.outputs, self.array is not None)
        return self

    def _can_be_isolated(self) -> None:
        if self.isolation in IMAGES and self.image is None:
            raise ValueError(f"isolation {self.isolation} needs an image")
        if self.image is not None and self.isolation not in IMAGES:
            raise ValueError(f"isolation {self.isolation} has no image: say docker, podman or apptainer")
        if self.isolation == "process" and not self.network:
            raise ValueError("a plain process cannot be kept from the network: ask for isolation sandbox")
        if self.isolation in ("docker", "podman") and self.cpu_affinity:
            raise ValueError(f"isolation {self.isolation} cannot bind a job to cores")

    @property
    def limit(self) -> int | None:
        return self.time_limit if self.time_limit is not None else self.time_limit_ms

    @property
    def term_grace(self) -> int:
        given = self.grace if self.grace is not None else self.grace_ms
        return 10_000 if given is None else given

    @property
    def work(self) -> dict[str, Any]:
        """How it is to be run beyond its command: only what was asked."""
        asked = {name: getattr(self, name) for name in WAYS}
        found: dict[str, Any] = {name: value for name, value in asked.items() if value}
        if self.checkpoint is not None:
            found["checkpoint"] = {"signal": self.checkpoint.signal, "grace_ms": self.checkpoint.grace}
        if self.isolation != "process":
            found["isolation"] = self.isolation
            found.update({"image": self.image} if self.image else {}, **({} if self.network else {"network": False}))
        return {**found, **files.work_of(self.inputs, self.outputs)}

    @property
    def _needs(self) -> Iterator[str]:
        """What its worker must say that it can."""
        yield from (WAYS[name] for name in self.work if name in WAYS)
        if self.checkpoint is not None:
            yield "checkpoint"
        if self.isolation != "process":
            yield self.isolation
        yield from files.ways_of(self.inputs, self.outputs)

    @property
    def asks(self) -> Shape:
        own = self.resources
        return Shape(
            cpus=own.cpus,
            memory=own.memory,
            gpus=own.gpus,
            gpu_type=own.gpu_type,
            disk=own.disk,
            walltime=self.limit,
            tags=tuple(sorted(set(self.tags))),
            custom=tuple(sorted(own.custom.items())),
            can=tuple(sorted(self._needs)),
        )


class Submit(Strict):
    jobs: Annotated[list[JobSpec], Field(min_length=1, max_length=MAX_JOBS)]


class Reasoned(Strict):
    reason: Text = ""


# ---------------------------------------------------------------- operators


class DrainWorker(Strict):
    deadline_ms: Instant | None = None
    reason: Text = ""


class AskLogs(Strict):
    max_bytes: Annotated[int, Field(ge=1, le=65_536, strict=True)] = 65_536


class Freeze(Strict):
    for_ms: Annotated[Duration, Field(gt=0)] = 1_800_000
    text: Text = ""
    manager: Label | None = None


class Unfreeze(Strict):
    text: Text = ""
    manager: Label | None = None


class NewToken(Strict):
    owner: Word
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=5)]
    expires_ms: Instant | None = None


# ---------------------------------------------------------------- managers


class Sync(Strict):
    seen_version: Count | None = None
    wait_ms: Annotated[int, Field(ge=0, le=50_000, strict=True)] = 0
    pools: Annotated[list[Label], Field(max_length=1000)] = []


class Launches(Strict):
    """What a manager says before it calls a backend (`sources.base.LaunchClaim`)."""

    submission: Label
    pool: Label
    workers: Annotated[list[Label], Field(min_length=1, max_length=10_000)]
    token_hashes: Annotated[list[Sha256], Field(max_length=10_000)] = []  # empty with `identity`
    call_deadline: Instant
    covers: Annotated[list[tuple[Text, Annotated[Count, Field(le=MOST_COVERED)]]], Field(max_length=10_000)] = []
    backlog_version: Count = 0
    owners: Annotated[list[Word | Literal["*"]], Field(max_length=1000)] = []  # empty: the token's; "*": everyone's
    queues: Annotated[list[Word], Field(max_length=1000)] = []
    identity: Literal["", "aws"] = ""  # these workers hold no token: who vouches for them

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.identity and self.token_hashes:
            raise ValueError("with identity its workers hold no token: leave token_hashes out")
        if not self.identity and len(self.workers) != len(self.token_hashes):
            raise ValueError("workers and token_hashes must be of one length")
        if len(set(self.workers)) != len(self.workers):
            raise ValueError("a worker stands twice in workers")
        if len(set(self.token_hashes)) != len(self.token_hashes):
            raise ValueError("a hash stands twice in token_hashes: each worker has a token of its own")
        return self


class Workers(Strict):
    workers: Annotated[list[Label], Field(max_length=10_000)]
    reason: Text = ""


IdentityName = Annotated[
    str,
    _like(
        r"^aws:[0-9]{12}:([\w+=,.@-]{1,64}:)?i-[0-9a-f]{8,32}$",
        "an identity is aws:ACCOUNT:INSTANCE or aws:ACCOUNT:ROLE:INSTANCE",
    ),
]


class Identities(Strict):
    identities: Annotated[dict[Label, IdentityName], Field(max_length=10_000)]  # by worker


class CordonWish(Strict):
    worker: Label
    only_if_idle: bool = True
    reason: dict[str, Any] = {}
    deadline_ms: Instant


class Cordons(Strict):
    cordons: Annotated[list[CordonWish], Field(max_length=10_000)]


class Uncordons(Strict):
    workers: Annotated[list[Label], Field(max_length=10_000)]


class CommandResult(Strict):
    command: Annotated[str, Field(max_length=64, strict=True), AfterValidator(_encodable)]
    ok: bool
    text: Output = ""


class Publish(Strict):
    """A part that is left out stays as it was; an empty one empties it."""

    pools: Annotated[list[dict[str, Any]], Field(max_length=1000)] = []
    verdicts: Annotated[list[dict[str, Any]], Field(max_length=100_000)] = []
    decisions: Annotated[list[dict[str, Any]], Field(max_length=10_000)] = []
    results: Annotated[list[CommandResult], Field(max_length=1000)] = []


# ---------------------------------------------------------------- queries (text, so numbers are read leniently)


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    pass


Limit = Annotated[int, Field(ge=1, le=1000)]
Cursor = Annotated[str, Field(max_length=500), AfterValidator(_encodable)]
WaitMs = Annotated[int, Field(ge=0, le=50_000)]
Short = Annotated[str, Field(max_length=200), AfterValidator(_encodable)]
Number = Annotated[int, Field(ge=0, le=LARGEST)]


class JobsQuery(Query):
    state: Literal["blocked", "queued", "assigned", "running", "succeeded", "failed", "cancelled"] | None = None
    owner: Short | None = None
    queue: Short | None = None
    name: Short | None = None
    array: JobId | None = None
    worker: Short | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class LogsQuery(Query):
    attempt: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    offset: Number = 0
    limit: Annotated[int, Field(ge=1, le=8 * MIB)] = MIB
    wait_ms: WaitMs = 0
    tail: Annotated[int, Field(ge=0, le=8 * MIB)] | None = None


class DeleteQuery(Query):
    force: bool = False
    grace_ms: Number | None = None


class EventsQuery(Query):
    after: Cursor | None = None
    kind: Short | None = None
    subject: Short | None = None
    limit: Limit = 100
    wait_ms: WaitMs = 0


class BacklogQuery(Query):
    version: Number | None = None
    wait_ms: WaitMs = 0


class SummaryQuery(Query):
    since_ms: Number | None = None


class TokenQuery(Query):
    id: Short
