"""Wire values shared by manager, hub, backends and agent: shapes, units, states, messages.

Everything here is plain data. Stdlib only and Python 3.9, because it travels inside `worker.pyz`.
Amounts are integers: bytes, milli-CPUs, milliseconds. Unknown is None, never zero.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, TypedDict

PROTOCOL_VERSION = 1

# ---------------------------------------------------------------- units

_BYTES = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
LARGEST = 2**62


class UnitError(ValueError):
    """An amount whose text cannot be read."""


def parse_bytes(text: "str | int") -> int:
    """`64GiB`, `500 MB` or a number of bytes. MB is 10^6, MiB is 2^20."""
    if isinstance(text, bool):
        raise UnitError("a size is a number with a unit such as 64GiB, not %r" % (text,))
    match = _AMOUNT.fullmatch(str(text).strip())
    if not match or match.group(2) not in _BYTES:
        units = ", ".join(unit for unit in _BYTES if unit)
        raise UnitError("%r is not a size: write a number and one of %s%s" % (text, units, _meant(str(text).strip())))
    return _bounded(_scaled(match.group(1), _BYTES[match.group(2)]), text)


def _meant(word: str) -> str:
    """`4G` is what most people type; half of them mean 4 GB, the others 4 GiB."""
    if not re.fullmatch(r"\d+(?:\.\d+)?[kKmMgGtTpP]", word):
        return ""
    number, letter = word[:-1], word[-1].upper()
    return " (%s%siB is a power of two, %s%sB of ten)" % (number, letter, number, "k" if letter == "K" else letter)


def parse_cpus(text: "str | int | float") -> int:
    """Milli-CPUs from `1.5`, `2` or `500m`."""
    if isinstance(text, bool):
        raise UnitError("cpus is a number such as 2, 0.5 or 500m, not %r" % (text,))
    match = _AMOUNT.fullmatch(str(text).strip())
    if not match or match.group(2) not in ("", "m"):
        raise UnitError("%r is not a number of cpus: write 2, 0.5 or 500m" % (text,))
    return _bounded(_scaled(match.group(1), 1 if match.group(2) else 1000), text)


def parse_duration(text: "str | int | float") -> int:
    """Milliseconds from `90s`, `1h30m`, `2d`; a bare number is seconds."""
    if isinstance(text, bool):
        raise UnitError("a duration is written 90s, 10m or 1h30m, not %r" % (text,))
    word = str(text).strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", word):
        return _bounded(_scaled(word, 1000), text)
    if not _DURATION.fullmatch(word):
        raise UnitError("%r is not a duration: write 90s, 10m, 1h30m or 2d" % (text,))
    return _bounded(sum(_scaled(n, _MILLISECONDS[u]) for n, u in _DURATION_PART.findall(word)), text)


def _scaled(number: str, unit: int) -> int:
    whole, _, part = number.partition(".")
    return int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)


def _bounded(value: int, text: object) -> int:
    if value > LARGEST:
        raise UnitError("%r is too large" % (text,))
    return value


def format_bytes(value: int) -> str:
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        if value >= _BYTES[unit]:
            return "%.4g %s" % (value / _BYTES[unit], unit)
    return "%d B" % value


def format_cpus(value: int) -> str:
    return "%g" % (value / 1000)


def format_duration(ms: int) -> str:
    if ms < 1000:
        return "%dms" % ms
    parts = []
    seconds = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append("%d%s" % (count, unit))
    return "".join(parts[:2])


# ---------------------------------------------------------------- shapes

_LISTS = ("tags", "can")
ANYTHING = "*"  # of a worker that is not there yet: what it can is learned from the first that comes


@dataclass(frozen=True)
class Shape:
    """What a job asks for, or what a worker has. One type, so that one `fits` compares them."""

    cpus: int = 1000  # milli-CPUs
    memory: int = 0  # bytes
    gpus: int = 0
    gpu_type: str = ""  # asked: this type or any when empty; had: the type
    disk: int = 0  # bytes
    walltime: Optional[int] = None  # ms; asked: the time limit; had: time left; None is unknown or unlimited
    tags: Tuple[str, ...] = ()  # asked: all of these; had: offered. Sorted, without repeats
    custom: Tuple[Tuple[str, int], ...] = ()  # further countable things, sorted by name
    exclusive: bool = False  # had: takes only jobs that ask for one of its tags
    can: Tuple[str, ...] = ()  # asked: all of these ways to run a job; had: those that it knows. Sorted
    machine: str = ""  # had: what it has it shares with all workers that say the same, so nothing waits on any of them

    def to_wire(self) -> Dict[str, Any]:
        """Only what differs from the default, so that messages stay short."""
        wire = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                wire[field.name] = (
                    dict(value) if field.name == "custom" else list(value) if field.name in _LISTS else value
                )
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Shape":
        """The inverse of `to_wire`; fields of a newer version are ignored."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in wire.items() if name in known}
        for name in _LISTS:
            if name in values:
                values[name] = tuple(sorted(set(values[name])))
        if "custom" in values:
            values["custom"] = tuple(sorted(dict(values["custom"]).items()))
        return cls(**values)

    def less(self, asked: "Shape", times: int = 1) -> "Shape":
        """What is left after `times` jobs that ask for `asked`."""
        return self._shifted(asked, -times)

    def plus(self, asked: "Shape", times: int = 1) -> "Shape":
        return self._shifted(asked, times)

    def _shifted(self, asked: "Shape", times: int) -> "Shape":
        custom = self.custom
        if asked.custom:
            amounts = dict(self.custom)
            for name, count in asked.custom:
                amounts[name] = amounts.get(name, 0) + times * count
            custom = tuple(sorted(amounts.items()))
        return replace(
            self,
            cpus=self.cpus + times * asked.cpus,
            memory=self.memory + times * asked.memory,
            gpus=self.gpus + times * asked.gpus,
            disk=self.disk + times * asked.disk,
            custom=custom,
        )


@dataclass(frozen=True)
class Misfit:
    """One resource of which a job asks more than a worker has."""

    resource: str
    asked: Any
    has: Any

    def __str__(self) -> str:
        show = {
            "memory": format_bytes,
            "disk": format_bytes,
            "cpus": format_cpus,
            "walltime": format_duration,
        }.get(self.resource, str)
        return "%s: job asks %s, worker has %s" % (self.resource, show(self.asked), show(self.has))


def fits(asked: Shape, has: Shape) -> Tuple[Misfit, ...]:
    """Empty when a job that asks for `asked` fits into `has`; else every reason why not."""
    misfits = [
        Misfit(name, getattr(asked, name), getattr(has, name))
        for name in ("cpus", "memory", "gpus", "disk")
        if getattr(asked, name) > getattr(has, name)
    ]
    if asked.gpus and asked.gpu_type and asked.gpu_type != has.gpu_type:
        misfits.append(Misfit("gpu_type", asked.gpu_type, has.gpu_type or "none"))
    if asked.walltime is not None and has.walltime is not None and asked.walltime > has.walltime:
        misfits.append(Misfit("walltime", asked.walltime, has.walltime))
    if asked.custom:
        amounts = dict(has.custom)
        misfits += [Misfit(n, count, amounts.get(n, 0)) for n, count in asked.custom if count > amounts.get(n, 0)]
    missing = [tag for tag in asked.tags if tag not in has.tags]
    if missing:
        misfits.append(Misfit("tags", ",".join(missing), ",".join(has.tags) or "none"))
    if asked.can and ANYTHING not in has.can:
        cannot = [way for way in asked.can if way not in has.can]
        if cannot:
            misfits.append(Misfit("can", ",".join(cannot), ",".join(has.can) or "nothing of the kind"))
    if has.exclusive and not set(asked.tags) & set(has.tags):
        misfits.append(Misfit("tags", ",".join(asked.tags) or "none", ",".join(has.tags) + " only"))
    return tuple(misfits)


def how_many(asked: Shape, has: Shape, at_most: int) -> int:
    """How many jobs that ask for `asked` fit into `has` together, `at_most` at the most."""
    if fits(asked, has):
        return 0
    amounts = dict(has.custom)
    pairs = [
        (asked.cpus, has.cpus),
        (asked.memory, has.memory),
        (asked.gpus, has.gpus),
        (asked.disk, has.disk),
    ]
    pairs += [(count, amounts[name]) for name, count in asked.custom]
    return min([at_most] + [had // wanted for wanted, had in pairs if wanted > 0])


# ---------------------------------------------------------------- states


class JobState:
    BLOCKED = "blocked"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    ALL = (BLOCKED, QUEUED, ASSIGNED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
    FINAL = (SUCCEEDED, FAILED, CANCELLED)


class WorkerState:
    REQUESTED = "requested"  # an intent is written, no call made
    SUBMITTED = "submitted"  # the backend took it; it waits for a machine
    STARTING = "starting"  # the backend says it runs; it has not registered
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"
    UNKNOWN = "unknown"  # the create call was ambiguous
    LOST = "lost"  # registered once, its heartbeat stopped
    STUCK = "stuck"  # does not do what it was told for too long

    ALL = (REQUESTED, SUBMITTED, STARTING, READY, DRAINING, GONE, UNKNOWN, LOST, STUCK)


class Outcome:
    """How an attempt ended, as the agent reports it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # exit status not zero, a signal, a limit: spends a retry
    CANCELLED = "cancelled"  # it was told to
    RETURNED = "returned"  # handed back: spends no retry

    ALL = (SUCCEEDED, FAILED, CANCELLED, RETURNED)


# ---------------------------------------------------------------- messages
# Keys not named here are ignored by both sides, so that one version back still speaks.


class Identity(TypedDict, total=False):
    """A request to the platform's identity service, signed by the worker and sent by the hub, which so learns from the
    service itself who signed it. `aws`: the headers of an `sts:GetCallerIdentity`; everything else of it is fixed."""

    kind: str  # aws
    headers: Dict[str, str]  # names in lower case; JOIN_HEADERS among those that are signed


# What binds the signature to one hub and one registration, so that it is worth nothing anywhere else.
HUB_HEADER = "x-wm-hub"  # the hub's URL as the worker was told, a space, and what it pins: sha256:…, or -
WORKER_HEADER = "x-wm-worker"  # the registration's nonce, a space, and its credential_sha256
JOIN_HEADERS = (HUB_HEADER, WORKER_HEADER)
IDENTITY_BODY = "Action=GetCallerIdentity&Version=2011-06-15"


class Register(TypedDict, total=False):
    """POST /v1/workers, `Authorization: Bearer <join token>`. An identical repeat gets the same answer."""

    protocol: int
    worker: str  # the intent's id; chosen by the agent when it was started by hand
    nonce: str  # random, chosen once per agent process
    credential_sha256: str  # hex; every later request carries the credential itself as bearer token
    pool: str
    shape: Dict[str, Any]  # what it really has
    host: Dict[str, Any]  # hostname, pid, python, agent version: for people
    idle_exit_ms: Optional[int]  # None: never by itself
    max_runs: Optional[int]
    config: str  # digest of the pool's launch configuration, empty when unknown
    identity: Identity  # POST /v1/join, without a token: who its platform says that it is


class Registered(TypedDict, total=False):
    worker: str
    session: int  # sent with every poll and report; a smaller one is refused with 409
    lease_ms: int  # fence yourself when no answer came for this long
    poll_ms: int  # how long a poll may wait
    heartbeat_ms: int
    now_ms: int  # the hub's UTC clock, to measure skew


class Assignment(TypedDict, total=False):
    job: str
    epoch: int  # only the current epoch may report
    name: str
    owner: str
    command: List[str]
    env: Dict[str, str]
    shape: Dict[str, Any]
    time_limit_ms: Optional[int]
    grace_ms: int  # between TERM and KILL
    output_limit: int  # bytes kept of its output
    array_index: Optional[int]
    work: Dict[str, Any]  # how it is to be run beyond its command; only for workers that `can`


class Poll(TypedDict, total=False):
    """POST /v1/workers/{id}/poll: waits until there is something to do, or `poll_ms`."""

    session: int
    ack: int  # the last `seq` whose content was taken; anything newer is sent again


class Polled(TypedDict, total=False):
    seq: int
    assign: List[Assignment]
    cancel: List[Dict[str, Any]]  # {job, epoch, reason}
    recall: List[Dict[str, Any]]  # {job, epoch}: give back if not started
    drain: Optional[Dict[str, Any]]  # {reason, deadline_ms, cordon} or None: not draining
    stop: bool  # hand everything back and exit now (delete worker --force)
    lease_ms: int
    now_ms: int


class Result(TypedDict, total=False):
    job: str
    epoch: int
    outcome: str  # one of Outcome.ALL
    exit_code: Optional[int]
    signal: Optional[int]
    reason: str  # empty, or a code: time-limit, memory-limit, start-failed, drained, agent-stopped, …
    text: str  # one sentence for people
    started_ms: int  # UTC
    run_ms: int  # by a clock that does not jump
    cpu_ms: Optional[int]
    max_rss: Optional[int]  # bytes
    output: int  # bytes of output in all
    files: List[Dict[str, Any]]  # `files.File`: what was kept of its directory


class LogChunk(TypedDict, total=False):
    job: str
    epoch: int
    offset: int  # of the first byte, in the attempt's output
    text: str  # when it is UTF-8
    b64: str  # when it is not


class Usage(TypedDict, total=False):
    """Of one moment, not long ago. What cannot be measured is left out."""

    cpus: int  # milli-CPUs of agent and keeper themselves, since the time before
    memory: int  # bytes of theirs
    disk: int  # bytes that are free where jobs have their directories
    load: int  # runnable processes of the whole machine, times 1000, over a minute
    gpus: List[List[Any]]  # [id, percent busy, bytes in use]
    jobs: List[List[Any]]  # [job, epoch, cpu_ms so far, milli-CPUs since then or None, bytes, most bytes, GPU ids]


class Phase:
    """Where an attempt is, as its progress names it."""

    STAGING = "staging"  # its inputs come; done and whole are bytes
    RUNNING = "running"  # what the job says of itself
    COLLECTING = "collecting"  # its outputs go; bytes


class CacheNews(TypedDict, total=False):
    """What a worker's cache holds, as far as its hub was not told yet."""

    all: bool  # `added` is everything there is: forget what was told before
    added: List[List[Any]]  # [scope, key, bytes]
    gone: List[List[Any]]  # [scope, key]
    counts: Dict[str, int]  # since the worker began: hits, hit_bytes, misses, built_bytes, evicted, evicted_bytes, …


class Report(TypedDict, total=False):
    """POST /v1/workers/{id}/report: resent as it is, same `seq`, until it is acknowledged. Also the heartbeat."""

    session: int
    seq: int
    started: List[List[Any]]  # [job, epoch, started_ms]
    results: List[Result]
    logs: List[LogChunk]
    running: int  # jobs whose process runs now
    shape: Dict[str, Any]  # only when what it has changed
    why: Dict[str, str]  # beside draining: {code, text}, where there is more to say than that it was told to
    usage: Dict[str, Any]  # `Usage`, with a heartbeat now and then
    progress: List[List[Any]]  # [job, epoch, phase, done, whole or None, text]: the newest of each, where there is news
    cache: Dict[str, Any]  # `CacheNews`, where there is news
    draining: bool
    leaving: str  # set in the last report: why it exits


class Reported(TypedDict, total=False):
    ack: int
    stale: List[List[Any]]  # [job, epoch] no longer this worker's: kill them
    tell: List[str]  # what the hub has forgotten, or never knew: "cache" (all of it)
    lease_ms: int
    now_ms: int


def join_tags(tags: Iterable[str]) -> Tuple[str, ...]:
    return tuple(sorted(set(tags)))
