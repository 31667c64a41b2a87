"""What the agent finds out at its start: which ways to keep jobs apart really work here, tried once each, and why the
others do not.

Only the sandbox is tried without being asked for, because that takes a few milliseconds; engines are tried when
`--isolation` names them.
"""

import contextlib
import os
import pwd
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from worker import processes
from worker.isolation import containers, sandbox
from worker.isolation.launch import spawn_as, texts_to_read
from worker.isolation.users import REGISTRY, TRIAL
from worker.isolation.ways import APPTAINER, DOCKER, ENGINES, PODMAN, SANDBOX, WAYS

PROGRAM = {SANDBOX: "bwrap", DOCKER: "docker", PODMAN: "podman", APPTAINER: "apptainer"}
PACKAGE = {SANDBOX: "bubblewrap", DOCKER: "docker.io", PODMAN: "podman", APPTAINER: "apptainer"}
# What an engine's client needs of our environment, and nothing else of it.
CLIENT_ENV = (
    *("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "CONTAINER_HOST"),
    *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("APPTAINER_CACHEDIR", "APPTAINER_TMPDIR"),
)
TRY_S = 10.0
REMOVE_S = 30.0


class JobUserError(Exception):
    """--job-user names what cannot be had; the message says why."""


class TryError(Exception):
    """An engine did not answer in time."""


class Ran(NamedTuple):
    program: str
    status: int
    out: str
    err: str


class Found(NamedTuple):
    told: Dict[str, Any]  # for the keeper: plain values
    can: Tuple[str, ...]  # for shape.can
    cannot: Dict[str, str]  # asked for, or cheap to try, and why not


def find(
    wanted: Optional[Sequence[str]],
    job_user: str,
    work_dir: str,
    secrets: Sequence[str],
    shown: Sequence[str],
    env: Mapping[str, str],
    registry: str = REGISTRY,
    hidden: Sequence[str] = (),
) -> Found:
    """`wanted`: None tries what is cheap. `secrets`: files that no job may read; `hidden`: folders of which a sandbox
    shows nothing but a job's own inputs. Raises JobUserError."""
    told: Dict[str, Any] = {
        "root": os.geteuid() == 0,
        "registry": registry,
        "client_env": {name: env[name] for name in CLIENT_ENV if name in env},
        "programs": {},
        **of_user(job_user, work_dir),
    }
    cannot: Dict[str, str] = {}
    for kind in WAYS:
        if kind in wanted if wanted is not None else kind == SANDBOX:
            program = _which(PROGRAM[kind], env.get("PATH") or processes.DEFAULT_PATH)
            if program is None and wanted is None:
                continue  # nobody asked for it
            if program is None:
                cannot[kind] = "%s is not on this machine (package %s)" % (PROGRAM[kind], PACKAGE[kind])
                continue
            if kind == SANDBOX:
                told.update(of_sandbox(work_dir, secrets, shown, hidden))
            reason = _try(kind, program, told, work_dir)
            if reason:
                cannot[kind] = reason
            else:
                told["programs"][kind] = program
    return Found(told, tuple(sorted(told["programs"])), cannot)


# ---------------------------------------------------------------- users


def of_user(wish: str, work_dir: str) -> Dict[str, Any]:
    """`none`: as the agent, but what is kept apart by more than a process has a user of its owner. `auto`: one for each
    owner. Else that user, by name or number, for all."""
    if wish == "none":
        return {"each_owner": False, "one_user": None}
    if os.geteuid() != 0:
        raise JobUserError("--job-user: only root can run jobs as somebody else")
    closed = sandbox.first_closed(os.path.dirname(work_dir))
    if closed:
        raise JobUserError("--job-user: others cannot enter %s, so no other user can work below it" % closed)
    os.chmod(work_dir, 0o711)  # noqa: S103 (to enter, not to list; what lies there is private by itself)
    if wish == "auto":
        return {"each_owner": True, "one_user": None}
    return {"each_owner": True, "one_user": _user(wish)}


def _user(wish: str) -> Tuple[int, int]:
    try:
        entry = pwd.getpwuid(int(wish)) if wish.isdigit() else pwd.getpwnam(wish)
        return entry.pw_uid, entry.pw_gid
    except KeyError:
        if wish.isdigit():
            return int(wish), int(wish)
        raise JobUserError("--job-user: this machine knows no user %s" % wish) from None


# ---------------------------------------------------------------- the sandbox


def of_sandbox(
    work_dir: str, secrets: Sequence[str], shown: Sequence[str], hidden: Sequence[str] = ()
) -> Dict[str, Any]:
    """Hidden are: all work dirs beside ours, whatever on the way there others cannot enter, homes, and the secrets."""
    prefix = os.path.dirname(work_dir)
    homes = [pwd.getpwuid(os.geteuid()).pw_dir] if _is_known() else []
    folders = [prefix, sandbox.first_closed(prefix) or prefix, *homes, "/root", "/home", "/var/lib/worker-manager"]
    view = sandbox.view([*folders, *hidden], secrets, shown)
    return {
        "view": (list(view.hidden), list(view.masked), list(view.shown)),
        "sandbox": tuple(_which(name, processes.DEFAULT_PATH) or "" for name in ("env", "setpriv")),
    }


def _is_known() -> bool:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


# ---------------------------------------------------------------- trying


def _try(kind: str, program: str, told: Mapping[str, Any], work_dir: str) -> str:
    """What is wrong, in a line; "" when it works."""
    try:
        if kind == SANDBOX:
            known, circumstances = os.path.join(os.path.dirname(work_dir), ".sandbox-works"), _circumstances(program)
            if _read(known) == circumstances:
                return ""
            reason = _try_sandbox(program, told, work_dir)
            if not reason:
                _keep(known, circumstances)
            return reason
        if kind == APPTAINER and told["root"] and not told["each_owner"]:
            return "where the agent is root it needs --job-user"
        if kind == APPTAINER:
            return _trouble(_ran([program, "--version"], told))
        trouble = _trouble(_ran([program, "info", "--format", "{{.ID}}" if kind == DOCKER else "{{.Host.OS}}"], told))
        if not trouble:
            _remove_listed(program, told, containers.LOCK_LABEL, containers.abandoned)
        return trouble
    except (OSError, ValueError, TryError) as error:
        return "%s could not be tried: %s" % (program, error)


def _circumstances(program: str) -> str:
    """What it depends on whether a sandbox can be made. While it is the same, what was learned once is not tried again
    by each agent that starts."""
    file = os.stat(program)
    spaces = [os.readlink("/proc/self/ns/" + name) for name in ("user", "mnt", "pid")]
    return " ".join(map(str, (_read("/proc/sys/kernel/random/boot_id"), os.geteuid(), file.st_mtime_ns, *spaces)))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _keep(path: str, text: str) -> None:
    mine = "%s.%d" % (path, os.getpid())
    with open(mine, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(mine, path)


def _try_sandbox(program: str, told: Mapping[str, Any], work_dir: str) -> str:
    """`true` in it, exactly as a job would be, as a user that a job would be."""
    user = None
    if told["root"]:
        user = told["one_user"] or TRIAL
        if not told["sandbox"][1]:
            return "setpriv is not on this machine (package util-linux)"
    folder = os.path.join(work_dir, "trial")
    os.makedirs(folder, 0o700, exist_ok=True)
    text = sandbox.arguments(sandbox.View(*told["view"]), folder, user, False)
    command = sandbox.command(sandbox.Programs(program, *told["sandbox"]), user, ["true"])
    says, said = os.pipe2(os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with texts_to_read(text, sandbox.env_text({"PATH": processes.DEFAULT_PATH})) as given:
            env = {"PATH": processes.DEFAULT_PATH}
            pid = spawn_as(None, command, env, (nothing, said, said, *given), sandbox.DEAF_TO, cwd="/")
        os.close(said)
        said = -1
        words = os.read(says, 2000).decode(errors="replace").strip()
        return "" if os.waitpid(pid, 0)[1] == 0 else words or "%s failed without a word" % program
    finally:
        os.rmdir(folder)
        for descriptor in (says, said, nothing):
            if descriptor >= 0:
                os.close(descriptor)


def _ran(command: Sequence[str], told: Mapping[str, Any], limit_s: float = TRY_S) -> Ran:
    import subprocess  # dear, and only engines need it

    env = {"PATH": processes.DEFAULT_PATH, **told["client_env"]}
    try:
        done = subprocess.run(list(command), env=env, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise TryError("no answer in %d s" % limit_s) from None
    return Ran(command[0], done.returncode, done.stdout, done.stderr)


def _trouble(ran: Ran) -> str:
    if ran.status == 0:
        return ""
    lines = (ran.err or ran.out).strip().splitlines()
    return lines[-1][:500] if lines else "%s ended with status %d" % (ran.program, ran.status)


def _which(program: str, path: str) -> Optional[str]:
    try:
        return processes.find(program, path)
    except OSError:
        return None


# ---------------------------------------------------------------- what was left


def remove_containers(told: Mapping[str, Any], keeper: str) -> None:
    """Those of a keeper that is dead. What an engine does not do now, the next agent's start does."""
    label = "%s=%s" % (containers.KEEPER_LABEL, keeper)
    for kind in ENGINES:
        if kind in told["programs"]:
            with contextlib.suppress(OSError, TryError):
                _remove_listed(told["programs"][kind], told, label, containers.all_of)


def _remove_listed(program: str, told: Mapping[str, Any], label: str, which: Callable[[str], List[str]]) -> None:
    listed = _ran(containers.listing(program, label), told)
    ids = which(listed.out) if listed.status == 0 else []
    if ids:
        _ran(containers.remove(program, ids), told, REMOVE_S)
