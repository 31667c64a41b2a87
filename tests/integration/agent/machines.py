"""A machine that several real agents share, with a real hub."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.machine.folder import Folder

GB = 10**9


class Machine:
    """32 cores, whatever there is really, and workers that share them."""

    def __init__(self, hub: Any, join: Any, eventually: Any, folder: Path, cpus: str = "32") -> None:
        self._hub, self._join, self.eventually = hub, join, eventually
        self.folder, self.common, self._cpus = folder, folder / "machine", cpus
        self._agents: list[Any] = []

    def workers(self, *names: str, **flags: tuple[str, ...]) -> list[Any]:
        """They have registered when this returns."""
        agents = [self._start(name, *flags.get(name, ())) for name in names]
        self.eventually(lambda: set(names) <= set(self.free()), f"{names} to register")
        return agents

    def worker(self, name: str, *flags: str) -> Any:
        return self.workers(name, **{name: flags})[0]

    def _start(self, name: str, *flags: str) -> Any:
        common = ["--share", str(self.common), "--cpus", self._cpus, "--memory", "64GB", "--disk", "1GB"]
        work_dir = ["--work-dir", str(self.folder / "work"), "--worker-id", name, "--isolation", "none"]
        flags = (*flags, "--tag", name)
        agent = self._join(self._hub, self._hub.token("worker"), *common, *work_dir, *flags)
        self._agents.append(agent)
        return agent

    def end(self) -> None:
        for agent in self._agents:
            agent.terminate()
        for agent in self._agents:
            agent.wait(20)

    def keepers(self, agent: int) -> list[int]:
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
        return [int(pid) for pid in children if "worker.keeper.main" in Path(f"/proc/{pid}/cmdline").read_text()]

    def gone(self, name: str) -> bool:
        """Nothing of it is left in the folder."""
        return not list(self.common.glob(f"{name}*"))

    def tell(self) -> None:
        """As one who comes or goes does."""
        Folder(str(self.common)).tell_all_but("")

    def tries(self, name: str) -> str:
        """What one says that cannot share the machine."""
        token = self.folder / "token"
        token.write_text("secret")
        token.chmod(0o600)
        told = [sys.executable, "-m", "worker", "--server", "http://127.0.0.1:1", "--token-file", str(token)]
        told += ["--work-dir", str(self.folder / "work"), "--worker-id", name, "--isolation", "none"]
        done = subprocess.run([*told, "--share", str(self.common)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        return done.stderr

    def task(self, cpus: int, memory: int, *command: str, on: str = "", **more: Any) -> str:
        """`on` the worker of that name, and no other."""
        asks = {"cpus": cpus * 1000, "memory": memory * GB, **more}
        tags = {"tags": [on]} if on else {}
        name: str = self._hub.submit(*(command or ("sleep", "600")), resources=asks, **tags)
        return name

    def state(self, job: str) -> str:
        return str(self._hub.get(f"/v1/jobs/{job}")["state"])

    def gate(self, name: str) -> tuple[str, ...]:
        return ("sh", "-c", f"until [ -e {self.folder / name} ]; do sleep 0.02; done")

    def open(self, name: str) -> None:
        (self.folder / name).touch()

    def free(self) -> dict[str, tuple[float, float]]:
        """What each advertises as free: cores and GB, as `get workers -o json` has it."""
        workers = self._hub.get("/v1/workers")["workers"]
        return {
            each["id"]: (each["free"].get("cpus", 1000) / 1000, each["free"].get("memory", 0) / GB) for each in workers
        }

    def busy(self) -> set[str]:
        """Those on which a job runs."""
        return {each["id"] for each in self._hub.get("/v1/workers")["workers"] if each["running"]}

    def shape(self, name: str) -> float:
        """Its cores, those that its own jobs use included."""
        cores: float = self._hub.get(f"/v1/workers/{name}")["shape"].get("cpus", 1000) / 1000
        return cores

    def reaches(self, **free: tuple[float, float]) -> None:
        found: dict[str, Any] = {}

        def there() -> bool:
            found.clear()
            found.update(self.free())
            return found == free

        try:
            self.eventually(there)
        except AssertionError:
            raise AssertionError(f"waited for {free}, there is {found}") from None

    def runs_on(self, job: str, state: str = "running") -> str:
        shown = self.eventually(
            lambda: (s := self._hub.get(f"/v1/jobs/{job}"))["state"] == state and s, f"{job} {state}"
        )
        worker: str = shown["worker"]
        return worker


@pytest.fixture
def machine_of(hub: Any, join: Any, eventually: Any, tmp_path: Path) -> Callable[[str], Machine]:
    return lambda cpus: Machine(hub, join, eventually, tmp_path, cpus)


@pytest.fixture
def machine(machine_of: Callable[[str], Machine]) -> Machine:
    return machine_of("32")
