"""System calls of a running process that fail, or kill it, by strace."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import needs
from tests.place import until


@contextmanager
def injected(pid: int, *injections: str, path: Path | None = None) -> Iterator[None]:
    """In all its threads for as long as the block lasts, or it lives; `path`: only where the call is about this file.
    Each is what `strace -e inject=` takes, such as `fdatasync:error=EIO`."""
    command = [needs.strace(), "-f", "-qq", "-o", "/dev/null", "-p", str(pid)]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    if path is not None:
        command += ["-P", str(path)]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until(lambda: tracer.poll() is not None or _is_traced(pid), "the tracer to attach")
        if tracer.poll() is not None:
            said = tracer.stdout.read().decode() if tracer.stdout else ""
            needs.missing(f"the right to attach to a process: {said.strip()}")
        yield
    finally:
        tracer.terminate()
        try:
            tracer.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            # Where its process was killed under it, it now and then waits for a thread that it has lost sight of.
            tracer.kill()
            tracer.communicate()


def _is_traced(pid: int) -> bool:
    """Every thread of it."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)
    except OSError:
        return False
