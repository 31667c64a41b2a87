"""The slurm backend passes the suite on a real cluster. Faults that the daemons do not have are done by a wrapper that
is first on the PATH; what it says is what Slurm says."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Backend, Context, Submission
from backends.slurm import CAPABILITIES
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from tests.stand_ins.slurm import SlurmCluster, a_cluster
from worker_manager.clock import SystemClock

_NAME = "conformance-worker"

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing. It speaks when it is ready for a signal.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""

_SUBMISSION_FAILED = "sbatch: error: Batch job submission failed:"
_FAULTS = {
    Fault.REFUSED: ("sbatch", f"echo '{_SUBMISSION_FAILED} Requested nodes are busy' >&2; exit 1"),
    Fault.THROTTLED: ("sbatch", f"echo '{_SUBMISSION_FAILED} Resource temporarily unavailable' >&2; exit 1"),
    Fault.DENIED: ("sbatch", 'SLURM_CONF=$DEAF exec "$REAL" "$@"'),
    Fault.OVER_QUOTA: (
        "sbatch",
        f"echo '{_SUBMISSION_FAILED} Job violates accounting/QOS policy (job submit limit, user''s size and/or time "
        "limits)' >&2; exit 1",
    ),
    Fault.MISCONFIGURED: ("sbatch", 'exec "$REAL" --constraint=nonesuch "$@"'),
    Fault.LONG_REFUSAL: (
        "sbatch",
        "head -c 10000000 /dev/zero | tr '\\0' x >&2\n"
        f"echo '{_SUBMISSION_FAILED} Requested nodes are busy' >&2; exit 1",
    ),
    Fault.TIMED_OUT_BEFORE: ("sbatch", f"echo '{_SUBMISSION_FAILED} Socket timed out on send/recv' >&2; exit 1"),
    Fault.TIMED_OUT_AFTER: (
        "sbatch",
        f'"$REAL" "$@" >/dev/null; echo \'{_SUBMISSION_FAILED} Socket timed out on send/recv\' >&2; exit 1',
    ),
    Fault.END_TIMED_OUT_AFTER: (
        "scancel",
        '"$REAL" "$@"; echo "scancel: error: Kill job error: Socket timed out on send/recv operation" >&2; exit 1',
    ),
    Fault.UNREADABLE: ("squeue", 'SLURM_CONF=$NOBODY exec "$REAL" "$@"'),
    Fault.EXPIRED: ("squeue", 'SLURM_CONF=$DEAF exec "$REAL" "$@"'),
    Fault.GARBAGE: ("squeue", "echo '<html>It works</html>'"),
}
# Of this test's worker only: the cluster remembers those of others, and all of them together are more than is read.
_TEN_MEGABYTES = (
    "import sys; why, name = 'NonZeroExitCode', chr(31) + '@OWN@-'; "
    "print(sys.stdin.read().replace(why + name, 'x' * 10**7 + name), end='')"
)
_ALWAYS = {
    Fault.STRANGE_STATE: ("squeue", '"$REAL" "$@" | sed s/RUNNING/TELEPORTING/'),
    Fault.DIES_WITH_A_PAGE: ("squeue", f'"$REAL" "$@" | python3 -c "{_TEN_MEGABYTES}"'),
}
_FROZEN = (Fault.LAUNCH_HANGS, Fault.LIST_HANGS, Fault.END_HANGS)
_numbers = count(1)


class SlurmAdopter(Adopter):
    def __init__(self, cluster: SlurmCluster, root: Path) -> None:
        super().__init__(CAPABILITIES, frozenset({*_FAULTS, *_ALWAYS, *_FROZEN, Fault.DIES_AT_BOOT, Fault.SLOW_BOOT}))
        self.cluster = cluster
        self.root = root
        self.dies = False
        self.life = next(_numbers)  # the cluster remembers the workers of other tests
        self._lying_configurations()

    def _lying_configurations(self) -> None:
        text = self.cluster.conf.read_text()
        for name, old, new in (
            ("deaf", "munge.sock", "nonesuch.sock"),
            ("nobody", "SlurmctldPort=", "SlurmctldPort=1 #"),
        ):
            self.cluster.root.joinpath(f"{name}.conf").write_text(text.replace(old, new))

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        patience = 30.0 if call_timeout_s is None else max(call_timeout_s, 2.0)  # sbatch itself needs a moment
        context = Context(self._own(manager), pool, str(self.root / "state"), SystemClock().now_ms, patience)
        options = {"partition": "cpu", "slurm-work-dir": str(self.root / "shared")}
        return registry.create("slurm", options, context)

    def _own(self, manager: str) -> str:
        return f"{manager}-{self.life}"

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = "9" if self.dies else "" if behaviour.exits is None else str(behaviour.exits)
        self.dies = False
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "")

    def submission(self, *arguments: Any, **words: Any) -> Submission:
        return super().submission(*arguments, **{**words, "manager": self._own(words.get("manager", "wm-a"))})

    def inject(self, fault: Fault) -> None:
        if fault in _FAULTS:
            program, script = _FAULTS[fault]
            names = "".join(f"{name.upper()}={self.cluster.root / name}.conf\n" for name in ("deaf", "nobody"))
            self.cluster.wrap_once(program, names + script)
        elif fault in _ALWAYS:
            program, script = _ALWAYS[fault]
            self.cluster.wrap(program, script.replace("@OWN@", self._own("wm-a")))
            self.dies = fault is Fault.DIES_WITH_A_PAGE
        elif fault in _FROZEN:
            self.cluster.freeze()
        elif fault is Fault.SLOW_BOOT:
            self._partition("down")
        else:
            self.dies = True

    def let_boot(self) -> None:
        self._partition("up")

    def _partition(self, state: str) -> None:
        self.cluster.run("scontrol", "update", "partitionname=cpu", f"state={state}")

    def close(self) -> None:
        self.cluster.thaw()
        self.cluster.unwrap()
        self._partition("up")
        self.cluster.run("scancel", f"--user={os.getuid()}")

    # ------------------------------------------------ through /proc

    def alive(self, handle: str) -> bool:
        return bool(self._processes(handle))

    def token(self, handle: str) -> str:
        path = Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = _proc(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(_proc(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        processes = "".join((_proc(pid, "cmdline") + _proc(pid, "environ")).decode() for pid in self._processes(handle))
        script = self.cluster.run("scontrol", "write", "batch_script", handle, "-", check=False)
        return processes + script + self.cluster.run("scontrol", "show", "job", handle, check=False)

    def _processes(self, handle: str) -> set[int]:
        array, _, task = handle.partition("_")
        own = [f"SLURM_CONF={self.cluster.conf}", f"SLURM_JOB_ID={array}"]
        if task:
            own[1:] = [f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={task}"]
        marks = [f"{mark}\0".encode() for mark in own]
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return {pid for pid in pids if all(mark in _proc(pid, "environ") for mark in marks)}

    def _worker(self, handle: str) -> int:
        """Once the script has become it."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for pid in self._processes(handle):
                if _proc(pid, "cmdline").split(b"\0")[3:4] == [_NAME.encode()]:
                    return pid
        raise AssertionError(f"{handle} did not start")


def _proc(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with a_cluster() as made:
        yield made


class TestSlurm(Conformance):
    @pytest.fixture
    def adopter(self, cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adopter]:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        adopter = SlurmAdopter(cluster, tmp_path)
        yield adopter
        adopter.close()
