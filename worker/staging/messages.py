"""What the agent and its stager say to each other, over a socket pair with `worker.channel.Channel`.

The stager moves the files of jobs: it puts inputs together in a folder before a job starts, and sends what is kept of
its directory when it has ended. It is a process of its own (`starting.start` begins one), so nothing that hangs or
takes long ever holds up the agent or its keeper.

**The agent says**

    setup        once, first: a `Setup`
    stage        job, epoch, owner, inputs, user             → one Staged or NotStaged
    collect      job, epoch, owner, folder, outputs, succeeded → one Collected or NotCollected
    drop         job, epoch     the attempt is over, or unwanted: what is under way for it stops, its pins are let go
                                and its staging folder is removed. No answer, and none to what was asked before it; may
                                be repeated, and may name what was never staged. Every attempt that was named in
                                `stage`, `collect` or `held` needs one in the end, also after NotStaged
                                (what was on its way to the agent already may still come: it is to be ignored)
    end                         let everything go, and exit. A closed channel means the same. It takes some seconds at
                                the most, unless the cache's file server hangs: then kill it

`inputs` and `outputs` are those of the job's work, `user` is (uid, gid) of the job where it does not run as the agent,
else None. `folder` is the job's directory, set aside; nothing in it is changed, and removing it is the agent's.
`succeeded` False: only outputs that are `always` kept are looked for, and one that is missing is no failure.

**The stager says**

    staged        job, epoch, folder, visible, stats
    not_staged    job, epoch, outcome, reason, text
    collected     job, epoch, files, stats
    not_collected job, epoch, outcome, reason, text, files    `files`: what was kept all the same
    progress      job, epoch, phase, done, whole or None      bytes; at most one a second for each attempt
    cache         CacheNews                                   every few seconds where there is news; with all counts
    note          text                                        for the agent's log: what people should know of

`folder` is one below `<work_dir>/staged`: what lies in it is moved into the job's directory, by renames. It belongs
to the job's user already, except links. A read-only input is a link to an entry of the cache, which stays where it is
until `drop`; or, where there is no cache to be used, the file or folder itself. `visible` lists the entries that the
links lead to: a sandbox or container mounts each at its own path, read-only. Every folder on the way to an entry that
is the cache's can be entered, but not listed, by the job's user; the folders above the cache are not ours.

**Outcomes.** `failed`: it will never work, here or elsewhere: reasons `input-refused` (not there, not allowed, not what
it was said to be), `input-corrupt` (another digest or size), `input-unsafe` (an archive or a listing that means harm),
`output-missing`, `output-refused`, `output-changed`. `returned`: another worker may do better: `disk-full`,
`staging-failed` (the hub or a source cannot be reached, the hub's certificate is not the one that was pinned, the disk
fails, a file server hangs). A cache that cannot be used, or is full, is none of these: the job's files are then fetched
for it alone.

**When the stager dies** the agent starts another at once, with the same `cache_name` and the attempts that still use
their inputs in `held`: their pins are kept, everything else that the dead one left is removed. What it was staging or
collecting is to be asked again. Do not wait for the next job with files: a worker of the cache that is silent for three
minutes is taken for dead, and its pins with it.

No message carries a signed address. `setup` and `session` carry the worker's credential and perhaps a proxy's
password, which is why they are messages and not arguments or variables.
"""

import os
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypedDict, Union

from worker.files import File, Input, Output
from worker.link.address import Endpoint

Message = Tuple[Any, ...]
User = Tuple[int, int]  # uid, gid

PARALLEL, EACH = 4, 2
# Tries in a row without a byte of progress, the first pause and the longest.
PATIENCE = [8, 0.5, 30.0]
LONG_PATIENCE = [120, 0.5, 30.0]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")  # of the environment, in small or capital letters
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Setup(TypedDict, total=False):
    server: List[Any]  # an Endpoint
    worker: str  # as the hub calls it
    credential: str
    session: int
    work_dir: str  # the worker's own folder; job directories lie on the same file system
    cache_dir: str  # "": no cache
    cache_quota: Optional[int]
    cache_name: str  # of this agent's process and no other: see `cache_name`
    agent: int  # pid: while it lives, what is pinned stays pinned
    numbers: str  # of the list that users of jobs have their numbers from
    input_paths: List[str]  # where file:/// sources may lie
    parallel: int  # transfers at a time
    each: int  # of one attempt
    env: Dict[str, str]  # of PROXIES and AUTHORITIES: for everything but the hub itself
    held: List[List[Any]]  # [job, epoch] of attempts whose inputs are in use: after a stager has died
    counts: Dict[str, int]  # as the last CacheNews of the stager before had them: they go on from there
    patience: List[float]  # with what is fetched
    timeout_s: float  # of silence, after which a line is given up
    beat_s: float  # between two signs of life to the cache's other workers
    stall_s: float  # without a step, after which a transfer is taken to hang
    long_patience: List[float]  # with what is sent: the work of a job that has ended is lost with it


def cache_name(worker: str) -> str:
    """A name for one agent process among all the workers of a cache. Make it once for each."""
    plain = re.sub("[^a-z0-9-]", "-", worker.lower())[:51].strip("-") or "worker"
    return "%s-%s" % (plain, os.urandom(6).hex())


# ---------------------------------------------------------------- the agent's


def setup(server: Endpoint, told: Setup) -> Message:
    return ("setup", {**told, "server": list(server)})


def stage(
    job: str, epoch: int, owner: str, inputs: Sequence[Mapping[str, Any]], user: Optional[Sequence[int]]
) -> Message:
    return ("stage", job, epoch, owner, [dict(each) for each in inputs], None if user is None else tuple(user))


def collect(
    job: str, epoch: int, owner: str, folder: str, outputs: Sequence[Mapping[str, Any]], succeeded: bool
) -> Message:
    return ("collect", job, epoch, owner, folder, [dict(each) for each in outputs], succeeded)


def drop(job: str, epoch: int) -> Message:
    return ("drop", job, epoch)


END: Message = ("end",)


# ---------------------------------------------------------------- the stager's


class Stats(TypedDict, total=False):
    """Of staging: how many inputs and bytes a job got. Of collecting: how many files and bytes were kept."""

    files: int
    bytes: int
    hits: int  # inputs that the cache had
    hit_bytes: int
    fetched_bytes: int  # that came over a line, or from a folder of the site
    sent_bytes: int  # the rest was there already
    ms: int
    left_out: List[str]  # what a pattern matched and is no plain file, with the reason; the first few
    left_out_count: int


class Staged(NamedTuple):
    job: str
    epoch: int
    folder: str
    visible: List[str]
    stats: Stats


class NotStaged(NamedTuple):
    job: str
    epoch: int
    outcome: str
    reason: str
    text: str


class Collected(NamedTuple):
    job: str
    epoch: int
    files: List[File]
    stats: Stats


class NotCollected(NamedTuple):
    job: str
    epoch: int
    outcome: str
    reason: str
    text: str
    files: List[File]


class Progress(NamedTuple):
    job: str
    epoch: int
    phase: str
    done: int
    whole: Optional[int]
    text: str = ""  # why it waits


class Cache(NamedTuple):
    news: Dict[str, Any]  # CacheNews


class Note(NamedTuple):
    text: str


Said = Union[Staged, NotStaged, Collected, NotCollected, Progress, Cache, Note]

KINDS: Dict[str, Any] = {
    "staged": Staged,
    "not_staged": NotStaged,
    "collected": Collected,
    "not_collected": NotCollected,
    "progress": Progress,
    "cache": Cache,
    "note": Note,
}
NAMES = {kind: name for name, kind in KINDS.items()}


def encode(said: Said) -> Message:
    """For the channel: it takes plain tuples only."""
    return (NAMES[type(said)], *said)


def decode(message: Message) -> Said:
    said: Said = KINDS[message[0]](*message[1:])
    return said


Inputs = List[Input]
Outputs = List[Output]
