"""A real Slurm cluster for tests: munged, slurmctld and several slurmd of this machine, without root, on free ports.

It stands within a second, several may run side by side, and nothing is left of it. Where a fault cannot be had from
the daemons, a wrapper that is first on the PATH does it: it runs the real program, and then hangs or lies.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from tests import needs
from tests.stand_ins.slurm_accounting import Accounting

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")  # where a person who is not root does not look
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])

_CONF = """
ClusterName=wm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdPidFile={root}/slurmd-%n.pid
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
EnforcePartLimits=ALL
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdTimeout=3
MessageTimeout=5
TCPTimeout=1
KillWait=1
ReturnToService=2
MpiDefault=none
MaxArraySize=10001
GresTypes=gpu
SlurmdParameters=config_overrides
{further}
NodeName=DEFAULT CPUs=16 RealMemory=64000 Gres=gpu:a100:4 Feature=fast State=UNKNOWN
NodeName=n[1-{last}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}]
PartitionName=cpu Nodes=n[1-{last_cpu}] Default=YES MaxTime=INFINITE DefaultTime=10
PartitionName=gpu Nodes=n{last}
PartitionName=short Nodes=n[1-{last_cpu}] MaxTime=1:00:00
PartitionName=closed Nodes=n{last} State=DOWN
"""
# Files that are there on every machine stand for GPUs: jobs get CUDA_VISIBLE_DEVICES as with real ones.
_GRES = "".join(f"Name=gpu Type=a100 File=/dev/{name}\n" for name in ("null", "zero", "full", "random"))


def needed() -> None:
    """Skips, or fails where nothing may be missing."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        packages = "slurmctld slurmd slurm-client munge"
        needs.missing(f"{', '.join(absent)}: apt-get install --no-install-recommends {packages}")


@dataclass
class SlurmCluster:
    root: Path
    nodes: int = 4
    further: Sequence[str] = ()  # lines for slurm.conf; {root} is its folder
    settings: Mapping[str, str] = field(default_factory=dict)  # that replace lines of it
    max_job_count: int = 20_000
    accounting: Accounting | None = None

    # ------------------------------------------------ life

    def start(self) -> None:
        for name in ("state", "spool", "wrappers"):
            (self.root / name).mkdir()
        self.root.joinpath("munge.key").write_bytes(os.urandom(1024))
        self.root.joinpath("munge.key").chmod(0o600)
        self._write_configuration()
        self.daemon("munged", *self._munge_words())
        if self.accounting is not None:
            self.accounting.serve(self)
        self.daemon("slurmctld", "-i")
        for number in range(1, self.nodes + 1):
            self.daemon("slurmd", "-N", f"n{number}")
        self.until(self._all_idle, "every node to be idle", 60)

    def _munge_words(self) -> list[str]:
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        files["seed-file"] = "munge.seed"
        return ["--force", *(f"--{option}={self.root / name}" for option, name in files.items())]

    def _write_configuration(self) -> None:
        ports = free_ports(self.nodes + 1)
        accounts = self.accounting.lines(self) if self.accounting is not None else ()
        host = socket.gethostname().partition(".")[0]
        text = _CONF.format(
            host=host,
            port=ports[0],
            user=_user_name(),
            root=self.root,
            ports=",".join(map(str, ports[1:])),
            last=self.nodes,
            last_cpu=max(1, self.nodes - 1),
            further="\n".join([f"MaxJobCount={self.max_job_count}", *self.further, *accounts]),
        )
        text = text.replace("{root}", str(self.root))
        for name, value in self.settings.items():
            text = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        self.conf.write_text(text)
        self.root.joinpath("gres.conf").write_text(_GRES)

    def _all_idle(self) -> bool:
        states = self.run("sinfo", "-h", "-N", "-o", "%T", check=False).split()
        return bool(states) and set(states) == {"idle"}

    def stop(self) -> None:
        """Every process whose environment names this cluster goes, and its folder with it."""
        self.thaw()
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.run("scancel", "--user", _user_name(), check=False, timeout=5)
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self.root, ignore_errors=True)

    def _processes(self) -> list[int]:
        """Daemons by their command line, jobs and steps by their environment."""
        marks = (f"SLURM_CONF={self.conf}".encode(), f"{self.root}/".encode())
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                text = entry.joinpath("environ").read_bytes() + entry.joinpath("cmdline").read_bytes()
                if pid != os.getpid() and any(mark in text for mark in marks) and not _is_zombie(entry):
                    found.append(pid)
        return found

    # ------------------------------------------------ use

    @property
    def user(self) -> str:
        return _user_name()

    @property
    def conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def wrappers(self) -> Path:
        return self.root / "wrappers"

    @property
    def environment(self) -> dict[str, str]:
        """For whoever shall speak to it."""
        return {"SLURM_CONF": str(self.conf), "PATH": f"{self.wrappers}{os.pathsep}{PATH}"}

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> str:
        """One of the real programs, past the wrappers."""
        environment = {**self._own_environment(), "SLURM_TIME_FORMAT": "%s"}
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def _own_environment(self) -> dict[str, str]:
        """Without what a test has put there to mislead others."""
        ours = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SINFO_", "SLURM_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "SLURM_CONF": str(self.conf), "PATH": PATH}

    def daemon(self, *argv: str) -> None:
        environment = self._own_environment()
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.03)

    def states(self) -> dict[str, str]:
        """Every job's state."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def live_jobs(self) -> dict[str, str]:
        over = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE")
        return {job: state for job, state in self.states().items() if state not in over}

    # ------------------------------------------------ faults

    def pid(self, daemon: str) -> int:
        return int(self.root.joinpath(f"{daemon}.pid").read_text())

    def freeze(self, daemon: str = "slurmctld") -> None:
        os.kill(self.pid(daemon), signal.SIGSTOP)

    def thaw(self, daemon: str = "slurmctld") -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid(daemon), signal.SIGCONT)

    def stop_controller(self) -> None:
        """In an orderly way; after a KILL it may have lost what it was told in the last seconds."""
        self.kill("slurmctld", signal.SIGTERM)

    def kill(self, daemon: str, number: int = signal.SIGKILL) -> None:
        pid = self.pid(daemon)
        os.kill(pid, number)
        self.until(
            lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(Path(f"/proc/{pid}")), f"the end of {daemon}"
        )

    def restart_controller(self) -> None:
        self.daemon("slurmctld")
        self.until(lambda: "UP" in self.run("scontrol", "ping", check=False), "the controller")

    def restart_node(self, node: str) -> None:
        self.daemon("slurmd", "-N", node)
        self.until(lambda: self.node_state(node) in ("idle", "mixed", "allocated"), f"{node} to be back")

    def node_state(self, node: str) -> str:
        return self.run("sinfo", "-h", "-n", node, "-o", "%T").split()[0]

    def wrap(self, program: str, script: str) -> None:
        """Put a script in front of a program. `$REAL` is the real one; the wrapper is gone after `times` calls."""
        real = shutil.which(program, path=PATH)
        path = self.wrappers / program
        new = path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
        new.chmod(0o755)
        new.replace(path)

    def wrap_once(self, program: str, script: str) -> None:
        """The next call only, and only what the wrapped program is asked for."""
        self.wrap(program, f'rm -f "{self.wrappers / program}"\n{script}')

    def unwrap(self) -> None:
        for path in self.wrappers.iterdir():
            path.unlink()


@contextlib.contextmanager
def a_cluster(**settings: object) -> Iterator[SlurmCluster]:
    """In a folder with a short name: a socket's has at most 107 letters."""
    needed()
    cluster = SlurmCluster(Path(mkdtemp(prefix="wm-slurm-")), **settings)  # type: ignore[arg-type]
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def free_ports(count: int) -> list[int]:
    """Held together while they are chosen, so that they differ."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return found


def _user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _is_zombie(process: Path) -> bool:
    return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "ZX"
