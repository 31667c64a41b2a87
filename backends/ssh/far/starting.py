"""Starting workers, each with an attendant that outlives the call."""

from __future__ import annotations

import base64
import errno
import gc
import hashlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from backends.ssh.far.processes import MARK, Table, boot_id, end_all, look
from backends.ssh.far.records import (
    LOCK_S,
    Doubt,
    Json,
    Pool,
    Refusal,
    Worker,
    names,
    now_ms,
    private,
    read,
    trouble,
    write,
)

_REMOVALS = 8  # old folders in one call, so that it stays quick
_RESET = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ),
)


def run(request: dict[str, Json]) -> Json:
    """All of these workers or none. Again for the same ones: only what is missing is started."""
    pool = Pool(request)
    pool.make()
    with pool.alone():
        agent = keep_agent(pool, request.get("agent"))
        wanted = [pool.worker(request["submission"], index) for index in request["indexes"]]
        missing = [worker for worker in wanted if not worker.started()]
        live = sum(map(living(), pool.workers()))
        there = [worker.index for worker in wanted if worker.started()]
        if len(missing) > request["slots"] - live:
            text = f"{live} of {request['slots']} slots are taken"
            raise Refusal("slots", text, live=live, there=there)
        folder = private(pool.path / request["submission"])
        write(folder / "launch.json", json.dumps({"agent": request.get("agent", {}).get("sha256", "")}))
        write(folder / "start.sh", request["script"])
        begun: list[Worker] = []
        try:
            for worker in missing:
                begun.append(worker)
                start(worker, request, agent)
        except OSError as failed:
            undo(begun)
            if not there:
                shutil.rmtree(str(folder), ignore_errors=True)
            raise Refusal(*trouble(failed), there=there) from failed
        remove_old(pool, request["keep_ms"])
    return {"live": live + len(missing), "boot": boot_id()}


def living() -> Callable[[Worker], bool]:
    processes = lru_cache(maxsize=None)(Table)

    def lives(worker: Worker) -> bool:
        if not worker.started() or worker.over():
            return False
        return worker.attended() or bool(worker.roots(processes()))

    return lives


def undo(begun: list[Worker]) -> None:
    """So that nothing of them is left, or it is said that something may be."""
    for worker in begun:
        end_all(worker.roots)
    if any(worker.roots(Table()) for worker in begun):
        raise Doubt("the host could not start all, and could not end those that it had started")
    for worker in begun:
        shutil.rmtree(str(worker.path), ignore_errors=True)


def keep_agent(pool: Pool, agent: dict[str, Json] | None) -> str:
    """Where the agent lies, with the digest that was asked for; "" where it is fetched by the worker itself."""
    if not agent:
        return ""
    path = pool.base / "agents" / (agent["sha256"] + ".pyz")
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == agent["sha256"]:
        os.utime(str(path))
        return str(path)
    if "data" not in agent:
        raise Refusal("agent", "the agent is not here yet")
    data = base64.b64decode(agent["data"])
    if hashlib.sha256(data).hexdigest() != agent["sha256"]:
        raise Refusal("config", f"what came is not the agent of this launch ({len(data)} bytes)")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(data)
    new.chmod(0o600)
    new.replace(path)
    return str(path)


def start(worker: Worker, request: dict[str, Json], agent: str) -> None:
    """Fork its attendant, write it down, and only then let it go on. Raises OSError."""
    private(worker.path)
    token = request["tokens"].get(str(worker.index))
    if token is not None:
        write(worker.path / "join-token", token)
    ours, theirs = socket.socketpair()
    gc.freeze()  # what the attendant never touches stays shared memory
    pid = os.fork()
    if pid == 0:
        ours.close()
        attend(worker, request, agent, theirs)
    theirs.close()
    with ours:
        found = look(pid)
        if found is None:
            raise OSError(errno.ESRCH, "the attendant was gone at once")
        record = {"pid": pid, "start": found.start, "boot": boot_id(), "at": now_ms()}
        write(worker.path / "process", json.dumps(record))
        ours.sendall(b"go")
        ours.settimeout(LOCK_S)
        answer = ours.recv(100).decode()
    if answer != "ok":
        raise OSError(int(answer or errno.EIO), os.strerror(int(answer or errno.EIO)))


def attend(worker: Worker, request: dict[str, Json], agent: str, line: socket.socket) -> None:
    """Never returns. Holds nothing of the call that made it: neither its pipes nor its lock."""
    status = 1
    try:
        os.setsid()
        if line.recv(2) != b"go":  # whoever forked us is dead: there is no record, so there must be no worker
            os._exit(1)
        log = os.open(str(worker.path / "worker.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        kept = line.fileno()
        for number in sorted(int(name) for name in os.listdir("/proc/self/fd")):  # noqa: PTH208 -- names are numbers
            if number > 2 and number != kept:
                with suppress(OSError):
                    os.close(number)
        os.chdir(str(worker.path))
        os.umask(0o077)
        status = attend_to(worker, request, agent, line)
    except OSError as failed:
        with suppress(OSError):
            line.sendall(str(failed.errno or errno.EIO).encode())
    finally:
        os._exit(status)


def attend_to(worker: Worker, request: dict[str, Json], agent: str, line: socket.socket) -> int:
    """A TERM that comes while the worker is being started waits until there is one to pass it on to."""
    signals = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    shell = (shutil.which("bash") if request["setup"] else None) or "/bin/sh"
    argv = [shell, str(worker.path.parent / "start.sh")]
    pid = os.posix_spawn(shell, argv, own_environment(worker, agent), setsigmask=(), setsigdef=_RESET)
    passed: list[bool] = []

    def pass_on(_number: int, _frame: object) -> None:
        if not passed:
            os.kill(pid, signal.SIGTERM)
        passed.append(True)

    for number in signals:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    line.sendall(b"ok")
    line.close()
    _, status = os.waitpid(pid, 0)
    passed.append(True)
    code = os.waitstatus_to_exitcode(status)
    write(worker.path / "exit", json.dumps({"code": code if code >= 0 else 128 - code}))
    return 0


def own_environment(worker: Worker, agent: str) -> dict[str, str]:
    """What the host gives to whoever logs in, without what belongs to the connection."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    return {**given, MARK: str(worker.path), "WM_INDEX": str(worker.index), **({"WM_AGENT": agent} if agent else {})}


def remove_old(pool: Pool, keep_ms: int) -> None:
    """Folders of submissions that have been over for long, and agents that no submission names any more."""
    oldest, removed = now_ms() - keep_ms, 0
    for submission in sorted(pool.path.iterdir()):
        ends = [read(submission / name / "ended").get("at") for name in names(submission)]
        if removed < _REMOVALS and ends and all(end is not None and end < oldest for end in ends):
            shutil.rmtree(str(submission), ignore_errors=True)
            removed += 1
    agents = sorted((pool.base / "agents").glob("*.pyz"))
    if removed and len(agents) > 1:
        named = {read(path).get("agent") for path in pool.base.glob("*/*/*/launch.json")}
        for path in agents:
            if path.stem not in named and path.stat().st_mtime < time.time() - 86400:
                with suppress(OSError):
                    path.unlink()
