"""What a worker costs that waits for one long job, at the default intervals: processor time of agent and
keeper, and the bytes that go over the wire for it."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tools.bench.report import Row
from tools.house import House, local_pool, wait_for

ROOT = Path(__file__).resolve().parents[2]
WINDOW_S = 60.0
SETTLE_S = 5.0
AIM = 0.2  # percent of a core


def run() -> list[Row]:
    with House(local_pool(0, 0, cpus=1)) as house, relay(house.client.url) as wire, worker(house, wire.url) as agent:
        job = house.client.post("/v1/jobs", {"jobs": [{"command": ["sleep", "100000"]}]})["jobs"][0]["id"]
        wait_for(lambda: house.client.get(f"/v1/jobs/{job}")["state"] == "running", 30, "the job to run")
        time.sleep(SETTLE_S)
        (keeper,) = map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split())
        before, began = (cpu_ns(agent), cpu_ns(keeper), *wire.counted()), time.monotonic()
        time.sleep(WINDOW_S)
        took_s = time.monotonic() - began
        of_agent, of_keeper, out, back, reports = (
            now - then for now, then in zip((cpu_ns(agent), cpu_ns(keeper), *wire.counted()), before, strict=True)
        )
        house.client.post(f"/v1/jobs/{job}/cancel", {})
    percent = 100 / (took_s * 1e9)
    whole = (of_agent + of_keeper) * percent
    over = f"over {took_s:.0f} s"
    return [
        Row("long job/agent and keeper, cpu", whole, "% of core", AIM, whole / AIM, f"aim < {AIM:g}; {over}"),
        Row("long job/agent, cpu", of_agent * percent, "% of core"),
        Row("long job/keeper, cpu", of_keeper * percent, "% of core"),
        Row("long job/bytes that the worker sends", out / took_s * 60, "bytes/min", note=f"{reports} requests {over}"),
        Row("long job/bytes that the hub answers", back / took_s * 60, "bytes/min"),
    ]


def cpu_ns(pid: int) -> int:
    """Of all its threads, as exact as the kernel has it."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


@contextmanager
def worker(house: House, url: str) -> Iterator[int]:
    """The pid of one that was started by hand, with nothing changed but where it works."""
    token = house.state_dir / "bench.token"
    token.write_text(house.client.post("/v1/tokens", {"owner": "bench", "scopes": ["worker"]})["token"])
    token.chmod(0o600)
    argv = [sys.executable, "-m", "worker", "--server", url, "--token-file", str(token)]
    argv += ["--worker-id", "bench", "--work-dir", str(house.state_dir / "work")]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@dataclass
class Wire:
    """Passes everything on to the hub, and counts it."""

    url: str
    out: int = 0
    back: int = 0
    requests: int = 0

    def counted(self) -> tuple[int, int, int]:
        return self.out, self.back, self.requests

    def carry(self, near: socket.socket, hub: tuple[str, int]) -> None:
        far = socket.create_connection(hub)
        threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()
        self._pass(near, far, True)

    def _pass(self, source: socket.socket, to: socket.socket, outwards: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if outwards:
                    self.out += len(data)
                    self.requests += data.count(b"POST /v1/")
                else:
                    self.back += len(data)
                to.sendall(data)
        for each in (source, to):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(url: str) -> Iterator[Wire]:
    address = urlsplit(url)
    hub = (str(address.hostname), int(address.port or 80))
    listening = socket.create_server(("127.0.0.1", 0))
    wire = Wire(f"http://127.0.0.1:{listening.getsockname()[1]}")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=wire.carry, args=(listening.accept()[0], hub), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield wire
    finally:
        listening.close()
