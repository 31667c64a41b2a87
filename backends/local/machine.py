"""What `doctor` asks about this machine: can workers be started here, and do their slices fit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backends.base import Finding, Severity
from worker.protocol import Shape, format_bytes, format_cpus, parse_bytes

LOW_DISK = parse_bytes("1GiB")


@dataclass(frozen=True)
class Machine:
    cpus: int  # milli-CPUs that this process may use
    memory: int | None  # bytes; None is unknown


def this_machine() -> Machine:
    return Machine(len(os.sched_getaffinity(0)) * 1000, _least_memory())


def _least_memory() -> int | None:
    """The machine's, or less where a cgroup says so."""
    said = [
        _number(Path(name)) for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    ]
    with suppress(OSError, ValueError):
        said.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min((number for number in said if number), default=None)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def folder_findings(state_dir: Path) -> Iterator[Finding]:
    probe = state_dir / f".probe-{os.getpid()}"
    try:
        probe.write_text("")
        probe.unlink()
    except OSError as failed:
        text = f"{state_dir} cannot be written: {failed.strerror}"
        yield Finding("state folder", Severity.ERROR, text, f"mkdir -p {state_dir} && chmod 700 {state_dir}")
        return
    yield Finding("state folder", Severity.OK, f"{state_dir} can be written")
    free = shutil.disk_usage(state_dir).free
    if free < LOW_DISK:
        text = f"{format_bytes(free)} free in {state_dir}"
        yield Finding("disk", Severity.WARNING, text, f"make room, at least {format_bytes(LOW_DISK)}")
    else:
        yield Finding("disk", Severity.OK, f"{format_bytes(free)} free")


def interpreter_finding(timeout_s: float) -> Finding:
    """Not only there, but able to start."""
    try:
        subprocess.run([sys.executable, "-I", "-c", ""], check=True, capture_output=True, timeout=timeout_s)
    except (OSError, subprocess.SubprocessError) as failed:
        return Finding("python", Severity.ERROR, f"{sys.executable}: {failed}", "install Python anew")
    return Finding("python", Severity.OK, sys.executable)


def slice_findings(shape: Shape | None, max_workers: int | None, machine: Machine) -> Iterator[Finding]:
    """One slice must fit; that all of them together do not is allowed, and said."""
    if shape is None:
        return
    too_large = [
        f"{what}: a worker has {show(asked)}, this machine {show(has)}"
        for what, asked, has, show in _amounts(shape, machine)
        if asked > has
    ]
    if too_large:
        yield Finding("slice", Severity.ERROR, "; ".join(too_large), "give the pool a smaller shape")
        return
    room = min((has // asked for _, asked, has, _ in _amounts(shape, machine) if asked), default=None)
    if room is not None and max_workers is not None and max_workers > room:
        text = f"there is room for {room} workers of this shape, the pool may have {max_workers}"
        yield Finding("slice", Severity.WARNING, text, f"--max-workers {room}, or a smaller shape")
    else:
        yield Finding("slice", Severity.OK, f"room for {'any number of' if room is None else room} workers")


def _amounts(shape: Shape, machine: Machine) -> Iterator[tuple[str, int, int, Callable[[int], str]]]:
    yield "cpus", shape.cpus, machine.cpus, format_cpus
    if machine.memory is not None:
        yield "memory", shape.memory, machine.memory, format_bytes
