"""What both adopters of the Kubernetes backend share: containers are processes here, and can be looked at."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

from backends.kubernetes import CAPABILITIES, names
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.stand_ins.kubernetes_node import processes_of

_NAME = "conformance-worker"

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing. It speaks when it is ready for a signal.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""


class PodAdopter(Adopter):
    def __init__(self, faults: Iterable[Fault]) -> None:
        super().__init__(CAPABILITIES, frozenset(faults))
        self.dies = False

    @abstractmethod
    def pods(self, job: str) -> list[str]:
        """The UIDs of the pods that a Job with this UID has, or may have had."""

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = "9" if self.dies else "" if behaviour.exits is None else str(behaviour.exits)
        self.dies = False
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def alive(self, handle: str) -> bool:
        return bool(self.processes(handle))

    def token(self, handle: str) -> str:
        path = Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o400
        assert [other.name for other in path.parent.iterdir()] == [path.name], "the tokens of others"
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = proc(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(proc(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def processes(self, handle: str) -> list[int]:
        job = names.handle(handle)
        assert job is not None
        return [pid for uid in self.pods(job.uid) for pid in processes_of(uid)]

    def _worker(self, handle: str) -> int:
        """The script before it has another command line, and becomes the worker."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for pid in self.processes(handle):
                if proc(pid, "cmdline").split(b"\0")[3:4] == [_NAME.encode()] and proc(pid, "environ"):
                    return pid
        raise AssertionError(f"{handle} did not start")


def proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
