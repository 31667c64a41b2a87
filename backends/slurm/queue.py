"""What squeue and sacct write, read strictly: text that is no answer is an error, never an empty queue. Pure.

Text, not --json: squeue's json says "no jobs" with success when the controller is down, and sacct's loses exit codes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.base import RefusalKind, Seen, WorkerPhase, clipped
from backends.slurm import states
from backends.slurm.names import Owner, is_submission, read_comment, submission_of

_BETWEEN = "\x1f"  # in no state, reason or name of ours
_FIELDS = (
    *("ArrayJobID", "ArrayTaskID", "JobID", "State", "exit_code", "StartTime", "NodeList", "Reason"),
    *("Name", "Comment"),  # in jobs that are not ours these may hold anything, line breaks too
)


class Garbage(Exception):
    """What came is no answer."""


@dataclass(frozen=True)
class Job:
    id: str  # as scancel takes it: 12, or 12_3 in an array; the handle
    state: str
    name: str
    exit_code: int | None = None
    started_at: int | None = None  # UTC ms
    nodes: str = ""
    reason: str = ""
    comment: str = ""

    @property
    def number(self) -> int:
        return int(self.id.partition("_")[0])

    @property
    def index(self) -> int:
        return int(self.id.partition("_")[2] or 0)

    @property
    def phase(self) -> WorkerPhase:
        return states.phase_of(self.state)

    @property
    def is_over(self) -> bool:
        return self.phase is WorkerPhase.ENDED


# ---------------------------------------------------------------- squeue


def squeue(user: int) -> list[str]:
    """All jobs of this user, each worker of an array by itself, ended ones as long as Slurm remembers them."""
    fields = ",".join(f"{field}:{_BETWEEN}" for field in _FIELDS)
    return ["squeue", "--noheader", "--array", "--states=all", f"--user={user}", f"--Format={fields}"]


def parse_squeue(text: str) -> tuple[Job, ...]:
    """Raises Garbage. Every field ends with the separator, every record with a line break; a line break within a field
    is one of somebody's name or comment."""
    *fields, rest = text.split(_BETWEEN)
    width = len(_FIELDS)
    if len(fields) % width or rest != ("\n" if fields else ""):
        raise Garbage(f"squeue wrote what is no list of jobs: {clipped(text)}")
    return tuple(_job(fields[at : at + width], at > 0) for at in range(0, len(fields), width))


def _job(fields: Sequence[str], follows: bool) -> Job:
    array, task, number, state, status, started, nodes, reason, name, comment = fields
    if follows and array.startswith("\n"):
        array = array[1:]
    if not (array.isdecimal() and number.isdecimal()):
        raise Garbage(f"squeue wrote what is no job: {clipped(' '.join(fields))}")
    return Job(
        id=f"{array}_{task}" if task.isdecimal() else number,
        state=state,
        name=name,
        exit_code=_exit_code(state, int(status)) if status.isdecimal() else None,
        started_at=int(started) * 1000 if started.isdecimal() else None,
        nodes=nodes,
        reason=reason,
        comment=comment,
    )


def _exit_code(state: str, status: int) -> int | None:
    """As a shell says it. Slurm writes 0 for jobs that never came to exit."""
    if status == 0 and state != "COMPLETED":
        return None
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


# ---------------------------------------------------------------- sacct


def sacct(jobs: Iterable[int]) -> list[str]:
    """What became of jobs that the controller has forgotten."""
    ids = ",".join(map(str, sorted(jobs)))
    fields = "JobID,State,ExitCode,NodeList,JobName"
    return ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={ids}", f"--format={fields}"]


def parse_sacct(text: str) -> tuple[Job, ...]:
    """Those that are over; the others are not known there any better than to squeue. Raises Garbage."""
    found = []
    for line in text.splitlines():
        fields = line.split("|", 4)
        if len(fields) != 5:
            raise Garbage(f"sacct wrote what is no job: {clipped(line)}")
        id, state, exit, nodes, name = fields
        code, _, number = exit.partition(":")
        if not re.fullmatch(r"\d+(_\d+)?", id) or not (code.isdecimal() and number.isdecimal()):
            continue  # a part of an array that never began: 12_[3-5]
        said = int(number) | int(code) << 8
        job = Job(id, state, name, _exit_code(state, said), nodes="" if nodes == "None assigned" else nodes)
        if job.is_over:
            found.append(job)
    return tuple(found)


# ---------------------------------------------------------------- both


def submission_if_ours(job: Job, owner: Owner, recorded: Iterable[str]) -> str:
    """The submission that it belongs to; "" when it is of another manager or pool, or no worker at all."""
    said = read_comment(job.comment)
    if said is not None:
        return said[1] if said[0] == owner and is_submission(said[1]) else ""
    name = submission_of(job.name)
    return name if name in recorded else ""


def seen(job: Job, submission: str) -> Seen:
    phase = job.phase
    waits = phase in (WorkerPhase.PENDING, WorkerPhase.STARTING)
    return Seen(
        submission=submission,
        index=job.index,
        handle=job.id,
        phase=phase,
        started_at=None if waits else job.started_at,  # while it waits, only an estimate
        exit_code=job.exit_code if job.is_over else None,
        refusal=_refusal(job),
        detail=clipped(_detail(job)),
    )


def _refusal(job: Job) -> RefusalKind | None:
    if job.phase is WorkerPhase.PENDING:
        return states.refusal_of_waiting(job.reason)
    if not job.is_over:
        return None
    word = job.state.split(maxsplit=1)[0]
    if word in states.ENDED_BY_SITE:
        return states.ENDED_BY_SITE[word]
    stuck = states.refusal_of_waiting(job.reason)  # it was accepted, and then could not be
    return stuck if stuck is RefusalKind.CONFIG and word != "CANCELLED" else None


def _detail(job: Job) -> str:
    """State, where, why: `NODE_FAIL on n3`, `PENDING: Resources`."""
    where = f" on {job.nodes}" if job.nodes else ""
    status = f" with status {job.exit_code}" if job.is_over and job.exit_code else ""
    why = states.explained(job.reason)
    return f"{job.state}{where}{status}{': ' + why if why else ''}"
