"""Starting an attempt: what it gets for its life, and why it could not be started, and whose fault that is."""

from __future__ import annotations

import errno
import os

from worker import processes
from worker.keeper.attempt import Ending, WorkerProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from worker.isolation.isolator import Isolator
    from worker.keeper.attempt import Attempt
    from worker.keeper.news import News
    from worker.keeper.packing import Room
    from worker.keeper.pipes import Pipes
    from worker.keeper.slots import Slots
    from worker.limits.limiter import Limiter

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the exit codes a shell gives

# The machine is out of something, which is not the job's fault.
SHORTAGE = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, in bytes or in files

SENTENCES = {
    errno.ENOENT: "command not found: %s (or the interpreter its first line names)",
    errno.ENOTDIR: "command not found: %s",
    errno.EACCES: "not executable: %s",
    errno.EISDIR: "not executable: %s",
    errno.ENOEXEC: "neither a program for this machine nor a script with a #! line: %s",
    errno.E2BIG: "the command line and environment are too long for: %s",
}


def is_shortage(problem: Exception) -> bool:
    return isinstance(problem, OSError) and problem.errno in SHORTAGE


def may_pass(problem: Exception) -> bool:
    """The machine lacks what it may have again in a moment: other jobs end, and what they left is being removed."""
    return is_shortage(problem) or (isinstance(problem, WorkerProblem) and problem.errno in FULL)


def why_not_started(argv: list[str], problem: Exception) -> tuple[Ending, int | None]:
    """How the attempt ends, and its wait status. The worker's fault hands it back, the job's own fails it."""
    if isinstance(problem, WorkerProblem) or is_shortage(problem):
        return Ending("returned", "start-failed", "the worker could not start it: %s" % problem), None
    number = problem.errno if isinstance(problem, OSError) else None
    sentence = SENTENCES.get(number or 0)
    text = sentence % argv[0] if sentence else "could not be started: %s" % problem
    code = NOT_FOUND if number in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
    return Ending("failed", "start-failed", text), code << 8


def _make_checkpoint(directory: str, user: tuple[int, int] | None) -> None:
    from worker import checkpoints  # most keepers never need it

    checkpoints.make(directory, user)


def _is_final(attempt: Attempt) -> bool:
    """Nobody goes on where it was: it has succeeded, or was cancelled and not just given to another worker."""
    ending = attempt.ending
    return attempt.status == 0 if ending is None else ending.outcome == "cancelled" and ending.reason != "stale"


def _fill(attempt: Attempt, folder: str, user: tuple[int, int] | None) -> None:
    from worker.keeper import filling  # most keepers never need it

    if attempt.slot is not None:
        filling.fill(folder, attempt.slot.path, user)


def _set_aside(attempt: Attempt, folder: str) -> None:
    from worker.keeper import filling

    if attempt.slot is not None and filling.is_wanted(attempt):
        attempt.kept_at = filling.set_aside(attempt.slot, folder)


class Starter:
    """Starts an attempt, with its share of the room, a directory, a pipe and an environment; takes them back later."""

    def __init__(
        self,
        room: Room,
        slots: Slots,
        pipes: Pipes,
        env: dict[str, str],
        nothing: int,
        limiter: Callable[[], Limiter],
        isolator: Callable[[], Isolator],
        news: News,
    ) -> None:
        self._room = room
        self._news = news
        self.checks_gpus = False
        self._unchecked: set[str] = set()  # that jobs have left
        self._limiter = limiter
        self._isolator = isolator
        self._slots = slots
        self._pipes = pipes
        self._env = env  # what every job's environment starts from
        self._nothing = nothing  # a descriptor of /dev/null

    def start(self, attempt: Attempt) -> None:
        """Raises OSError, ValueError or TypeError for what cannot be started; what it was given is to be taken back."""
        self.prepare(attempt)
        self.launch(attempt)

    def prepare(self, attempt: Attempt) -> None:
        """The first half, after which a hook may come."""
        attempt.gpus = self._room.take(attempt.asks)
        self._prepare(attempt)

    def launch(self, attempt: Attempt) -> None:
        """The second half, in its directory."""
        if attempt.limits is None or self._elsewhere(attempt):
            self._spawn(attempt)
        else:
            self._limiter().spawn(attempt, self._spawn)

    def resume(self, attempt: Attempt) -> None:
        """After the hook, which ran elsewhere."""
        if attempt.slot is not None:
            os.chdir(attempt.slot.path)
        self.launch(attempt)

    def _elsewhere(self, attempt: Attempt) -> bool:
        """An engine's: its limits are the engine's too."""
        return attempt.way is not None and self._isolator().is_elsewhere(attempt)

    def _spawn(self, attempt: Attempt) -> None:
        if attempt.way is not None:
            self._isolator().spawn(attempt, self._environment(attempt))
            return
        attempt.pid = processes.spawn(attempt.argv, self._environment(attempt), self._nothing, attempt.pipe_in)

    def _prepare(self, attempt: Attempt) -> None:
        """Its directory, which becomes ours too, because a process starts in its parent's; its pipe."""
        try:
            user = None if attempt.way is None else self._isolator().user_of(attempt)
            attempt.slot = self._slots.take(attempt.owner, user)
            if attempt.checkpoint is not None and attempt.checkpoint[2]:
                _make_checkpoint(attempt.checkpoint[2], user)
            os.chdir(attempt.slot.path)
            self._pipes.open(attempt)
            if attempt.files is not None and attempt.files[0]:
                _fill(attempt, attempt.files[0], user)
        except OSError as problem:
            raise WorkerProblem(problem.errno, problem.strerror, problem.filename) from problem

    def _environment(self, attempt: Attempt) -> dict[str, str]:
        home = attempt.slot.path if attempt.slot else ""
        env = {**self._env, "HOME": home, "TMPDIR": home, **attempt.env}
        if attempt.checkpoint is not None and attempt.checkpoint[2]:
            env["WM_CHECKPOINT_DIR"] = attempt.checkpoint[2]
        if self._room.knows_gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(attempt.gpus)
        return env

    def _give_back(self, attempt: Attempt) -> None:
        """Its share of the room; but GPUs wait until their memory is free, where somebody looks at it."""
        if self.checks_gpus and attempt.gpus:
            self._room.give_back(tuple(ask for ask in attempt.asks if ask[0] != "gpus"), [])
            self._unchecked.update(attempt.gpus)
            self._news.left_gpus(attempt.gpus)
        else:
            self._room.give_back(attempt.asks, attempt.gpus)
        attempt.gpus = []

    def gpu_is_free(self, gpu: str) -> None:
        """Or lost: then the room keeps it to itself."""
        if gpu in self._unchecked:
            self._unchecked.remove(gpu)
            self._room.give_back((("gpus", 1),), [gpu])

    def undo(self, attempt: Attempt) -> None:
        """It was not started after all, and may be tried again."""
        from worker.keeper import filling

        filling.empty(attempt)

    def take_back(self, attempt: Attempt, reusable: bool) -> None:
        """`reusable` False: a process may still hold its directory."""
        self._pipes.close(attempt)
        self._give_back(attempt)
        if attempt.limits is not None:
            self._limiter().release(attempt)
        if attempt.way is not None:
            self._isolator().release(attempt)
        if attempt.files is not None:
            _set_aside(attempt, self._slots.kept)
        if attempt.slot is not None:
            if not attempt.kept_at:
                self._slots.give_back(attempt.slot, reusable)
            attempt.slot = None
        if attempt.checkpoint is not None and attempt.checkpoint[2] and _is_final(attempt):
            self._slots.garbage.append(attempt.checkpoint[2])
