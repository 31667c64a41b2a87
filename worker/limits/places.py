"""Where control groups for jobs can be made: below our own group, of version 1 or 2, where we may write."""

from __future__ import annotations

import os

ROOT = "/sys/fs/cgroup"
LEAF = "wm-agents"  # where agent and keeper themselves stand under version 2: a group with groups holds no process
CONTROLLERS = ("memory", "pids")


class Place:
    """Where one controller's groups are made. Plain values, because it goes to the keeper."""

    __slots__ = ("home", "parent", "version")

    def __init__(self, version: int, parent: str, home: str) -> None:
        self.version = version
        self.parent = parent  # our groups are made in this folder
        self.home = home  # the keeper itself stands in this group


def read_file(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def write_file(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def find(root: str = ROOT, membership: str = "/proc/self/cgroup", me: int = 0) -> dict[str, Place]:
    """Controller → where its groups can be made; only those that can. Under version 2 this moves the process into a
    leaf of its own group first, because the kernel gives controllers only to groups without processes."""
    paths: dict[str, str] = {}
    for line in (read_file(membership) or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            paths.update((controller, parts[2]) for controller in parts[1].split(","))
    pid = str(me or os.getpid())
    found = {}
    for controller in CONTROLLERS:
        if controller in paths:
            folder = _own(root + "/" + controller, paths[controller], pid)
            if folder and os.access(folder, os.W_OK) and os.access(folder + "/tasks", os.W_OK):
                found[controller] = Place(1, folder, folder)
    if "" in paths and not found:
        folder = _own(root, paths[""], pid)
        if folder:
            found = _second_version(folder, pid)
    return found


def _own(mount: str, path: str, pid: str) -> str:
    """Our own group. In a container the path may be one of the host's; then the root of the mount is ours, if we stand
    in it."""
    for folder in (mount + path.rstrip("/"), mount):
        if "/.." not in folder and pid in (read_file(folder + "/cgroup.procs") or "").split():
            return folder
    return ""


def _second_version(folder: str, pid: str) -> dict[str, Place]:
    if os.path.basename(folder) == LEAF:
        parent = os.path.dirname(folder)
    elif not os.path.exists(folder + "/cgroup.type"):
        parent = folder  # the root of all: it may hold processes and groups
    else:
        parent = folder if _delegated(folder) and _step_aside(folder, pid) else ""
    if not parent or not os.access(parent, os.W_OK):
        return {}
    given = (read_file(parent + "/cgroup.subtree_control") or "").split()
    missing = [each for each in offered(parent) if each not in given]
    try:
        if missing:
            write_file(parent + "/cgroup.subtree_control", " ".join("+" + each for each in missing))
    except OSError:
        _step_back(folder, parent, pid)
        return {}
    home = folder if folder == parent and not os.path.isdir(folder + "/" + LEAF) else parent + "/" + LEAF
    return {each: Place(2, parent, home) for each in offered(parent)}


def offered(folder: str) -> list[str]:
    offered = (read_file(folder + "/cgroup.controllers") or "").split()
    return [each for each in CONTROLLERS if each in offered]


def _delegated(folder: str) -> bool:
    """Whether we may arrange this group: writable, with a controller to give, and nobody in it but us."""
    writable = all(os.access(folder + "/" + name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control"))
    return writable and bool(offered(folder)) and len((read_file(folder + "/cgroup.procs") or "").split()) == 1


def _step_aside(folder: str, pid: str) -> bool:
    try:
        os.makedirs(folder + "/" + LEAF, exist_ok=True)
        write_file(folder + "/" + LEAF + "/cgroup.procs", pid)
    except OSError:
        return False
    return True


def _step_back(folder: str, parent: str, pid: str) -> None:
    if folder == parent:
        try:
            write_file(folder + "/cgroup.procs", pid)
            os.rmdir(folder + "/" + LEAF)
        except OSError:
            pass


def ways(found: dict[str, Place]) -> list[str]:
    """What of a job's `work` can be kept here: all but the number of processes, which only the kernel can bound."""
    return ["cpu-affinity", "max-files", *(["max-processes"] if "pids" in found else [])]
