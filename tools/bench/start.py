"""How long an agent takes from its exec until it waits for jobs, as it is installed and from the single file, beside an
interpreter that does nothing. The hub of this bench answers at once, so it is the agent's own time. With it goes the
processor time, with what it tried on the way (a sandbox) and without its keeper: on a busy machine it scatters less."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tools.bench.report import Row
from worker_manager.hub import pyz

ROUNDS = 20
AIM_MS = 250
ROOT = Path(__file__).resolve().parents[2]


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as name, a_hub() as hub:
        folder = Path(name)
        single = folder / "worker.pyz"
        single.write_bytes(pyz.build())
        ways = {"installed": [sys.executable, "-m", "worker"], "worker.pyz": [sys.executable, str(single)]}
        took: dict[str, list[Start]] = {way: [] for way in ways}
        nothing = []
        for number in range(ROUNDS):  # they take turns, so that a noisy machine is noisy for all
            nothing.append(interpreter())
            for way, program in ways.items():
                took[way].append(until_it_polls(hub, program, folder / f"{way}-{number}"))
    base = statistics.median(nothing)
    return [
        Row("start/an interpreter that does nothing", base, "ms"),
        *(row for way, each in took.items() for row in rows(way, each)),
    ]


class Start(NamedTuple):
    """In milliseconds."""

    wall: float
    cpu: float


def rows(way: str, starts: list[Start]) -> list[Row]:
    wall = statistics.median(each.wall for each in starts)
    cpu = statistics.median(each.cpu for each in starts)
    said = note([each.wall for each in starts])
    return [
        Row(f"start/agent, {way}, to its first poll", wall, "ms", AIM_MS, wall / AIM_MS, said),
        Row(f"start/agent, {way}, processor time", cpu, "ms"),
    ]


def note(values: list[float]) -> str:
    return f"aim ≤ {AIM_MS}; {min(values):,.0f}–{max(values):,.0f} over {len(values)} rounds"


def interpreter() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1000


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.polled = threading.Event()
        self.over = threading.Event()
        self.polled_at = 0.0


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        times = {"lease_ms": 60_000, "now_ms": time.time_ns() // 1_000_000}
        if self.path.endswith("/workers"):
            return self.say(
                201, {"worker": body["worker"], "session": 1, **times, "poll_ms": 50_000, "heartbeat_ms": 10_000}
            )
        if self.path.endswith("/report"):
            return self.say(200, {"ack": body["seq"], **times})
        self.server.polled_at = time.perf_counter()
        self.server.polled.set()
        self.server.over.wait(30)
        return None

    def say(self, status: int, told: dict[str, Any]) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""


@contextmanager
def a_hub() -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.over.set()
        hub.shutdown()
        hub.server_close()


def until_it_polls(hub: Hub, program: list[str], folder: Path) -> Start:
    """Everything as by default but the place of its work dir."""
    folder.mkdir()
    token = folder / "token"
    token.write_text("made-up")
    token.chmod(0o600)
    argv = [*program, "--server", f"http://127.0.0.1:{hub.server_address[1]}", "--join-token-file", str(token)]
    argv += ["--worker-id", "bench", "--work-dir", str(folder / "work")]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    hub.polled.clear()
    began = time.perf_counter()
    agent = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    if not hub.polled.wait(30):
        raise RuntimeError("the agent did not poll within 30 s")
    agent.kill()
    _, agent.returncode, used = os.wait4(agent.pid, 0)
    return Start((hub.polled_at - began) * 1000, (used.ru_utime + used.ru_stime) * 1000)
