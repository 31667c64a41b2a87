"""The shapes of what the hub answers, for the OpenAPI document. docs/reference/http-api.md says what they mean."""

from typing import Any, TypedDict


class Empty(TypedDict):
    pass


class Health(TypedDict):
    status: str


class Problem(TypedDict, total=False):
    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, str]]


class Info(TypedDict):
    version: str
    protocol: int
    generation: int
    jobs: dict[str, int]
    workers: dict[str, int]
    now_ms: int


class SubmittedJob(TypedDict):
    id: str
    count: int


class Submitted(TypedDict):
    jobs: list[SubmittedJob]


class CancelledJob(TypedDict, total=False):
    id: str
    state: str
    code: str
    detail: str


class CancelledJobs(TypedDict):
    jobs: list[CancelledJob]


class Job(TypedDict, total=False):
    id: str
    name: str
    owner: str
    queue: str
    priority: int
    state: str
    command: list[str]
    resources: dict[str, Any]
    tags: list[str]
    env: dict[str, str]
    time_limit_ms: int | None
    max_processes: int
    max_files: int
    cpu_affinity: bool
    progress_regex: str
    checkpoint: dict[str, Any]
    isolation: str
    image: str
    network: bool
    inputs: list[Any]
    outputs: list[Any]
    files: dict[str, int] | None
    retries: int
    attempt: int
    worker: str | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    text: str | None
    submitted_ms: int
    queued_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    run_ms: int | None
    cpu_ms: int | None
    max_rss: int | None
    usage: dict[str, Any] | None
    progress: dict[str, Any] | None
    array: dict[str, int] | None
    unservable: Any
    waits: dict[str, Any] | None
    waits_for: list[str]
    attempts: list[dict[str, Any]]
    why: Any


class Jobs(TypedDict):
    jobs: list[Job]
    next: str | None


class File(TypedDict):
    path: str
    size: int
    sha256: str
    at: str


class Files(TypedDict):
    job: str
    attempt: int
    count: int
    size: int
    files: list[File]
    next: str | None


class JobExplained(TypedDict, total=False):
    job: str
    state: str
    text: str
    verdicts: list[dict[str, Any]]
    ahead: int | None
    held_bytes: int | None


class Worker(TypedDict, total=False):
    id: str
    pool: str
    manager: str | None
    state: str
    shape: dict[str, Any]
    free: dict[str, Any]
    running: int
    assigned: int
    runs: int
    jobs: list[Any]
    ready_ms: int | None
    seen_ms: int | None
    idle_since_ms: int | None
    cordon: dict[str, Any] | None
    host: dict[str, Any]
    config: str
    usage: dict[str, Any] | None
    cache: dict[str, int] | None


class AwaitedWorker(TypedDict):
    id: str
    pool: str
    manager: str
    state: str
    requested_ms: int
    refusal: str | None
    text: str


class Workers(TypedDict):
    workers: list[Worker]
    awaited: list[AwaitedWorker]


class CommandGiven(TypedDict, total=False):
    command: str | None
    commands: list[str]


class Command(TypedDict, total=False):
    id: str
    pool: str
    kind: str
    target: str
    generation: int | None
    expires_at: int
    options: dict[str, Any]
    by: str
    state: str
    result: Any


class Pools(TypedDict):
    pools: list[dict[str, Any]]


class Group(TypedDict):
    key: str
    asks: dict[str, Any]
    count: int
    oldest_ms: int
    owner: str
    queue: str
    priority: int
    run_ms: int | None
    running: int


class Backlog(TypedDict):
    version: int
    now_ms: int
    groups: list[Group]


class Synced(TypedDict):
    version: int
    now_ms: int
    groups: list[Group]
    workers: list[Worker]
    commands: list[Command]
    owner: str


class Buried(TypedDict):
    buried: list[str]


class Identified(TypedDict):
    identified: list[str]


class Cordoned(TypedDict):
    cordoned: dict[str, int | None]


class Uncordoned(TypedDict):
    uncordoned: list[str]


class Event(TypedDict):
    seq: int
    at_ms: int
    kind: str
    subject: str
    data: Any


class Events(TypedDict):
    events: list[Event]
    next: str | None


class Token(TypedDict, total=False):
    id: str
    owner: str
    scopes: list[str]
    expires_ms: int | None
    created_ms: int


class TokenMade(Token, total=False):
    token: str


class Tokens(TypedDict):
    tokens: list[Token]
