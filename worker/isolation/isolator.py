"""The keeper's side of isolation: what is really started for an attempt that asks for more than a process, as which
user, and that nothing of it is left where no signal of ours reaches.

Made when the first such attempt comes; a plain one never gets here.
"""

from __future__ import annotations

import glob
import os
import time

from worker import processes
from worker.isolation import apptainer, containers, sandbox
from worker.isolation.launch import spawn_as, texts_to_read
from worker.isolation.users import REGISTRY, Users, chosen
from worker.isolation.ways import APPTAINER, ENGINES, PROCESS, SANDBOX
from worker.keeper.attempt import Ending, WorkerProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

    from worker.keeper.attempt import Attempt
    from worker.keeper.roster import Roster

LAST_REMOVAL_S = 30.0
OOM, RUN, MONITORS_NOTE = ".oom", ".run", "oom"
NOTE_END = 2000  # of what an engine said, its last characters are told
NOTHING: dict[str, Any] = {
    "root": os.geteuid() == 0,
    "one_user": None,  # (uid, gid) of every job that does not run as us
    "each_owner": False,  # also a plain process runs as a user of its owner
    "registry": REGISTRY,
    "view": ((), (), ()),
    "programs": {},  # kind → path; only what was tried and works
    "sandbox": ("", ""),  # paths of env and setpriv
    "client_env": {},  # of engines' clients
}
GPU_DEVICES = "/dev/nvidia*"


class Isolator:
    def __init__(self, told: Mapping[str, Any], work_dir: str, env: Mapping[str, str], roster: Roster, nothing: int):
        """`told`: what the agent found out (`found.Found.told`); {}: nothing but processes."""
        self._told = told = {**NOTHING, **told}
        self._lock = os.path.join(work_dir, "keeper.lock")
        self._private = os.path.join(work_dir, "private")  # files that a job's wrapper reads, and no job
        self._env = env
        self._keeper = env.get("WM_KEEPER", "")
        self._roster = roster
        self._nothing = nothing
        self._users = Users(told["registry"])
        self._containers: dict[Attempt, str] = {}
        self._view = sandbox.View(*told["view"])
        os.makedirs(self._private, exist_ok=True)
        ways_in = (work_dir, os.path.join(work_dir, "slots"), self._private) if told["each_owner"] else ()
        for path in ways_in:
            os.chmod(path, 0o711)  # noqa: S103 (to enter, not to list; what lies there is private by itself)
        for name in os.listdir(self._private):
            remove(os.path.join(self._private, name))

    # ------------------------------------------------------------ who

    def user_of(self, attempt: Attempt) -> tuple[int, int] | None:
        """None: ours."""
        return chosen(self._told, kind_of(attempt), attempt.owner, self._users)

    def is_elsewhere(self, attempt: Attempt) -> bool:
        """Its processes are not ours: an engine starts them, and limits them."""
        return kind_of(attempt) in ENGINES

    # ------------------------------------------------------------ its start

    def spawn(self, attempt: Attempt, env: dict[str, str]) -> None:
        """`env`: the job's own. Raises OSError and ValueError."""
        kind, user = kind_of(attempt), self.user_of(attempt)
        if kind != PROCESS and kind not in self._told["programs"]:
            raise WorkerProblem("this worker cannot run a job by %s" % kind)  # never run it weaker
        output = (self._nothing, attempt.pipe_in, attempt.pipe_in)
        if user is not None:
            for path in folders_of(attempt):
                os.chown(path, *user)
        if kind == PROCESS:
            attempt.pid = spawn_as(user, attempt.argv, env, output, files=files_of(attempt))
        elif kind == SANDBOX:
            self._spawn_sandbox(attempt, env, user, output)
        elif kind in ENGINES:
            self._spawn_container(attempt, env, user or (os.getuid(), os.getgid()))
        else:
            self._spawn_apptainer(attempt, env, user, output)

    def _spawn_sandbox(
        self, attempt: Attempt, env: dict[str, str], user: tuple[int, int] | None, output: tuple[int, ...]
    ) -> None:
        assert attempt.way and attempt.slot  # noqa: S101 (for the type checker)
        if not attempt.argv or "=" in attempt.argv[0]:
            raise ValueError("the command is empty or has a = in its name")
        devices = sorted(glob.glob(GPU_DEVICES)) if attempt.gpus else []
        text = sandbox.arguments(
            self._view,
            attempt.slot.path,
            user,
            attempt.way[2],
            devices,
            readable=inputs_of(attempt),
            writable=folders_of(attempt),
        )
        programs = sandbox.Programs(self._told["programs"][SANDBOX], *self._told["sandbox"])
        command = sandbox.command(programs, user, attempt.argv)
        with texts_to_read(text, sandbox.env_text(env)) as given:
            descriptors, most = (*output, *given), files_of(attempt)
            attempt.pid = spawn_as(None, command, self._marks(attempt), descriptors, sandbox.DEAF_TO, files=most)

    def _spawn_container(self, attempt: Attempt, env: dict[str, str], user: tuple[int, int]) -> None:
        assert attempt.way and attempt.slot  # noqa: S101 (for the type checker)
        kind, image, network = attempt.way
        name = containers.name_of(attempt.name, self._keeper)
        limits = attempt.limits or (0, 0, 0, 0)
        asks = dict(attempt.asks)
        share = containers.Share(
            asks.get("cpus", 0), asks.get("memory", 0), attempt.gpus, processes=limits[1], files=limits[2]
        )
        command = containers.run(
            self._told["programs"][kind],
            name,
            image,
            attempt.argv,
            attempt.slot.path,
            self._write(attempt, ".env", containers.env_text(env_of_an_image(env, attempt))),
            share,
            user,
            network,
            {containers.LOCK_LABEL: self._lock, containers.KEEPER_LABEL: self._keeper},
            self._file(attempt, ".note"),
            readable=inputs_of(attempt),
            rootless=not self._told["root"],
            writable=folders_of(attempt),
        )
        self._containers[attempt] = name
        if share.memory:
            os.mkdir(self._file(attempt, RUN), 0o700)
            os.chdir(self._file(attempt, RUN))
        attempt.pid = processes.spawn(command, self._marks(attempt), self._nothing, attempt.pipe_in)

    def _spawn_apptainer(
        self, attempt: Attempt, env: dict[str, str], user: tuple[int, int] | None, output: tuple[int, ...]
    ) -> None:
        assert attempt.way and attempt.slot  # noqa: S101 (for the type checker)
        file = self._write(attempt, ".env", apptainer.env_text(env_of_an_image(env, attempt)))
        if user is not None:
            os.chown(file, *user)
        program, (_, image, network) = self._told["programs"][APPTAINER], attempt.way
        command = apptainer.run(
            program,
            image,
            attempt.argv,
            attempt.slot.path,
            file,
            bool(attempt.gpus),
            network,
            readable=inputs_of(attempt),
            writable=folders_of(attempt),
        )
        attempt.pid = spawn_as(user, command, self._marks(attempt), output, files=files_of(attempt))

    def _marks(self, attempt: Attempt) -> dict[str, str]:
        """The environment of a wrapper: the agent's where it concerns engines, and by what its processes are known.
        Nothing of the job's: it would change what the wrapper does."""
        marks = {name: self._env[name] for name in ("WM_KEEPER", "WM_WORKER_DIR") if name in self._env}
        return {"PATH": processes.DEFAULT_PATH, **self._told["client_env"], **marks, "WM_ATTEMPT": attempt.name}

    def _file(self, attempt: Attempt, suffix: str) -> str:
        return os.path.join(self._private, attempt.name + suffix)

    def _write(self, attempt: Attempt, suffix: str, text: str) -> str:
        path = self._file(attempt, suffix)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    # ------------------------------------------------------------ its end

    def has_ended(self, attempt: Attempt) -> None:
        """Its main process was reaped. A client that did not end by itself may have left its container, and one whose
        memory is limited is asked how it ended: that is removed now, by a process whose end the attempt waits for."""
        name = self._containers.pop(attempt, None)
        status = attempt.status or 0
        if name is not None and dict(attempt.asks).get("memory"):
            again = containers.asked_again(status) if attempt.ending is None else 0
            self._clean(attempt, name, lambda name, env, kind: self._inquire(name, env, kind, again))
            return
        by_itself = not status & 0x7F and status >> 8 != containers.NOT_CREATED and attempt.ending is None
        if name is not None and not by_itself:
            self._clean(attempt, name, lambda name, env, kind: self._remove([name], env, kind))

    def _clean(self, attempt: Attempt, name: str, begin: Callable[[str, dict[str, str], str], int]) -> None:
        try:
            self._roster.cleaners[begin(name, self._marks(attempt), kind_of(attempt))] = attempt
        except OSError as problem:
            print("wm-keeper: cannot remove the container %s: %s" % (name, problem), flush=True)

    def _inquire(self, name: str, env: dict[str, str], kind: str, again: int) -> int:
        note = os.path.join(self._private, env["WM_ATTEMPT"] + OOM)
        command = containers.inquire(self._told["programs"][kind], name, note, again)
        return processes.spawn(command, env, self._nothing, self._nothing)

    def _remove(self, names: list[str], env: dict[str, str], kind: str) -> int:
        command = containers.remove(self._told["programs"][kind], names)
        return processes.spawn(command, env, self._nothing, self._nothing)

    def judge(self, attempt: Attempt) -> None:
        """It is over: an image that did not come is whose fault? Was it killed for its memory?"""
        if attempt.ending is not None or kind_of(attempt) not in ENGINES:
            return
        memory = dict(attempt.asks).get("memory", 0)
        if memory and self._ran_out_of_memory(attempt):
            from worker.limits.limiter import over_memory

            attempt.ending = over_memory(memory, memory)
            return
        if (attempt.status or 0) >> 8 != containers.NOT_CREATED:
            return
        try:
            with open(self._file(attempt, ".note"), encoding="utf-8", errors="replace") as file:
                said = file.read().strip()[-NOTE_END:]
        except FileNotFoundError:
            return
        assert attempt.way  # noqa: S101 (for the type checker)
        text = "the image %s could not be pulled: %s" % (attempt.way[1], said)
        missing = containers.pull_failure(said) == containers.MISSING
        attempt.ending = Ending("failed" if missing else "returned", "image-" + containers.pull_failure(said), text)

    def _ran_out_of_memory(self, attempt: Attempt) -> bool:
        """Its engine says so when it is asked; some podmans have their monitor write it to where it was started, and
        look for it elsewhere."""
        try:
            with open(self._file(attempt, OOM), encoding="ascii", errors="replace") as file:
                told = file.read().strip() == "true"
        except FileNotFoundError:
            told = False
        return told or os.path.exists(os.path.join(self._file(attempt, RUN), MONITORS_NOTE))

    def release(self, attempt: Attempt) -> None:
        self._containers.pop(attempt, None)
        for suffix in (".env", ".note", OOM, RUN):
            remove(self._file(attempt, suffix))

    def close(self) -> None:
        """Every process of ours was killed; what engines hold for us goes, too."""
        left: dict[str, list[str]] = {}
        for attempt, name in self._containers.items():
            left.setdefault(kind_of(attempt), []).append(name)
        env = {"PATH": processes.DEFAULT_PATH, **self._told["client_env"]}
        waiting = {self._remove(names, env, kind) for kind, names in left.items()}
        until = time.monotonic() + LAST_REMOVAL_S
        while waiting and time.monotonic() < until:
            waiting = {pid for pid in waiting if not os.waitpid(pid, os.WNOHANG)[0]}
            time.sleep(0.01)


def remove(path: str) -> None:
    """A file, or a folder of files; what is not there is fine."""
    try:
        if os.path.isdir(path):
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def kind_of(attempt: Attempt) -> str:
    return attempt.way[0] if attempt.way else PROCESS


def folders_of(attempt: Attempt) -> list[str]:
    """What belongs to it beside its directory: where it saves what it has done."""
    checkpoint = getattr(attempt, "checkpoint", None)
    return [checkpoint[2]] if checkpoint and checkpoint[2] else []


def files_of(attempt: Attempt) -> int:
    """How many it may have open; 0: nothing was asked."""
    return attempt.limits[2] if attempt.limits else 0


def inputs_of(attempt: Attempt) -> tuple[str, ...]:
    """What its directory has links to: entries of the cache, which are shared and never changed."""
    return attempt.files[1] if attempt.files else ()


def env_of_an_image(env: dict[str, str], attempt: Attempt) -> dict[str, str]:
    """Where programs are is for the image to say, unless the job does."""
    return env if "PATH" in attempt.env else {name: value for name, value in env.items() if name != "PATH"}
