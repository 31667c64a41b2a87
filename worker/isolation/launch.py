"""Start a process as another user, or with texts to read: what `processes.spawn` cannot, and no program between may.

A program that changes the user and then runs the job would begin as root with the job's environment, and LD_PRELOAD in
that is the job's code. So the keeper forks (it has one thread), and the child changes itself.
"""

from __future__ import annotations

import os
import resource
import signal

from worker import processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable

FAILED = 127


class texts_to_read:
    """Descriptors that read these texts, and are no files, for as long as it is entered."""

    def __init__(self, *texts: bytes) -> None:
        self._texts = texts
        self._open: list[int] = []

    def __enter__(self) -> tuple[int, ...]:
        try:
            for text in self._texts:
                self._open.append(os.memfd_create("text", os.MFD_CLOEXEC))
                with os.fdopen(os.dup(self._open[-1]), "wb") as file:
                    file.write(text)
                os.lseek(self._open[-1], 0, os.SEEK_SET)
        except BaseException:
            self.__exit__()
            raise
        return tuple(self._open)

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


def spawn_as(
    user: tuple[int, int] | None,
    argv: list[str],
    env: dict[str, str],
    descriptors: tuple[int, ...],
    deaf_to: Iterable[int] = (),
    cwd: str = "",
    files: int = 0,
) -> int:
    """Like `processes.spawn`, as (uid, gid) without any further group. `descriptors` become 0, 1, 2, …, and are larger
    numbers than those. `deaf_to` is ignored. `cwd`: else in our current directory. `files`: so many may be open; 0: as
    many as of ours. Raises OSError and ValueError."""
    if not argv:
        raise ValueError("the command is empty")
    program = processes.find(argv[0], env.get("PATH", processes.DEFAULT_PATH))
    reset = [number for number in processes.IGNORED if number not in deaf_to]
    words, variables = [os.fsencode(word) for word in argv], {os.fsencode(k): os.fsencode(env[k]) for k in env}
    told, tells = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if not pid:
            _become(user, program, words, variables, descriptors, reset, deaf_to, cwd, files, tells)
        os.close(tells)
        tells = -1
        problem = os.read(told, 16)
    finally:
        os.close(told)
        if tells >= 0:
            os.close(tells)
    if problem:
        os.waitpid(pid, 0)
        raise OSError(int(problem), os.strerror(int(problem)), argv[0])
    return pid


def _become(
    user: tuple[int, int] | None,
    program: str,
    argv: list[bytes],
    env: dict[bytes, bytes],
    descriptors: tuple[int, ...],
    reset: list[int],
    deaf_to: Iterable[int],
    cwd: str,
    files: int,
    tells: int,
) -> None:
    """In the child: never returns."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        if cwd:
            os.chdir(cwd)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for number in reset:
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        for number in deaf_to:
            signal.signal(number, signal.SIG_IGN)
        if files:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            files = files if most == resource.RLIM_INFINITY else min(files, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        if user is not None:
            os.setgroups([])
            os.setresgid(user[1], user[1], user[1])
            os.setresuid(user[0], user[0], user[0])
        os.execve(program, argv, env)  # noqa: S606 (a job is a program)
    except OSError as error:
        os.write(tells, b"%d" % (error.errno or 0))
    except BaseException:
        os.write(tells, b"22")
    finally:
        os._exit(FAILED)
