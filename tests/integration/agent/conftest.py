"""A small hub that does as it is told, wrongly too, and real agents that talk to it."""

import base64
import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.integration.agent.web import Web

DEADLINE_S = 20
JOIN_TOKEN = "join-1"


def until(condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE_S) -> Any:
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


class Stall:
    """An answer that begins so and does not go on."""

    def __init__(self, begins: bytes) -> None:
        self.begins = begins


class FakeHub:
    """Speaks worker/protocol.py. Everything it heard is in its fields; `faults[call]` is a list of what to do instead
    of answering the next calls of that kind: drop (after doing it), garbage, silent, (status, code) and perhaps
    headers, a Stall, bytes instead of an answer, or what makes such bytes of the right one, once the hub has done what
    was asked."""

    def __init__(self) -> None:
        self.lease_ms, self.poll_ms, self.heartbeat_ms = 30_000, 5_000, 1_000
        self.tokens: dict[str, tuple[str, str] | None] = {JOIN_TOKEN: None}
        self.changed = threading.Condition()
        self.registrations: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []  # message n has seq n + 1
        self.results: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
        self.started: list[tuple[str, int]] = []
        self.logs: dict[tuple[str, int], bytes] = defaultdict(bytes)
        self.reports: list[dict[str, Any]] = []
        self.polls: list[dict[str, Any]] = []
        self.faults: dict[str, list[Any]] = defaultdict(list)
        self.stale: list[list[Any]] = []
        self.drain: dict[str, Any] | None = None
        self.seen_seq = 0
        self.connections = 0
        self.tls: ssl.SSLContext | None = None  # with it: the hub speaks https, and shows `ca` to anyone
        self.calls: Counter[ssl.SSLContext | None] = Counter()  # by what the hub spoke with when it heard them
        self.ca = b""
        self.on_report: Callable[[dict[str, Any]], None] = lambda report: None
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    # ------------------------------------------------------------ up and down

    def up(self) -> None:
        hub, tls = self, self.tls

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                hub.connections += 1

            def do_POST(self) -> None:
                hub.calls[tls] += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hub.serve(self, json.loads(body))

            def do_GET(self) -> None:
                hub.send(self, 200, hub.ca, "application/x-pem-file")

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            block_on_close = False

            def process_request(self, request: Any, address: Any) -> None:
                hub.open.append(request)
                super().process_request(request, address)

            def handle_error(self, request: Any, address: Any) -> None:
                pass  # a connection that we cut ourselves

        self.open: list[Any] = []
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """As if it had been killed: every connection is cut."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(2)
            with self.changed:
                self.changed.notify_all()

    # ------------------------------------------------------------ answering

    def serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        call = handler.path.rsplit("/", 1)[1]
        fault = self.faults[call].pop(0) if self.faults[call] else None
        token = handler.headers["Authorization"].removeprefix("Bearer ")
        if isinstance(fault, tuple):
            return self.send(handler, fault[0], self.problem(*fault[:2]), headers=fault[2] if fault[2:] else {})
        if isinstance(fault, Stall):
            handler.wfile.write(fault.begins)
            handler.wfile.flush()
        if fault == "silent" or isinstance(fault, Stall):
            until(lambda: self._server is None, "the hub to end", 60)
            return None
        if fault == "garbage":
            handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            handler.close_connection = True
            return None
        if fault == "proxy":
            return self.send(handler, 403, b"<html>no</html>", "text/html")
        if isinstance(fault, bytes):
            return self.cut_after(handler, fault)
        status, answer = getattr(self, "_" + call)(body, token)
        if callable(fault):
            return self.cut_after(handler, fault(json.dumps(answer).encode()))
        if fault == "drop":
            handler.connection.shutdown(2)
            handler.close_connection = True
            return None
        return self.send(handler, status, answer)

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        answer: Any,
        kind: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = kind or ("application/json" if status < 400 else "application/problem+json")
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def cut_after(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the agent may hang up before it has read all of it
            handler.wfile.write(data)
            handler.wfile.flush()
            handler.connection.shutdown(2)
        handler.close_connection = True

    def problem(self, status: int, code: str) -> dict[str, Any]:
        return {"type": "about:blank", "title": "no", "status": status, "code": code, "detail": f"no: {code}"}

    def _workers(self, body: dict[str, Any], token: str) -> tuple[int, Any]:
        with self.changed:
            if token not in self.tokens:
                return 401, self.problem(401, "token-unknown")
            who = (body["nonce"], body["credential_sha256"])
            if self.tokens[token] not in (None, who):
                return 409, self.problem(409, "second-registrant")
            self.tokens[token] = who
            self.registrations.append(body)
            self.changed.notify_all()
        return 201, {"worker": body["worker"], "session": 7, **self._times(), "poll_ms": self.poll_ms,
                     "heartbeat_ms": self.heartbeat_ms}  # fmt: skip

    def _times(self) -> dict[str, int]:
        return {"lease_ms": self.lease_ms, "now_ms": time.time_ns() // 1_000_000}

    def _poll(self, body: dict[str, Any], token: str) -> tuple[int, Any]:
        ack = body["ack"]
        with self.changed:
            self.polls.append(body)
            self.changed.wait_for(lambda: len(self.messages) > ack or self._server is None, self.poll_ms / 1000)
            news = self.messages[ack:]
            answer: dict[str, Any] = {"seq": ack + len(news), **self._times(), "drain": self.drain}
            for name in ("assign", "cancel", "recall"):
                answer[name] = [each for message in news for each in message.get(name, ())]
            answer["stop"] = any(message.get("stop") for message in news)
        return 200, answer

    def _report(self, body: dict[str, Any], token: str) -> tuple[int, Any]:
        with self.changed:
            if body["seq"] > self.seen_seq:
                self.seen_seq = body["seq"]
                self.reports.append(body)
                for job, epoch, _ in body.get("started", ()):
                    self.started.append((job, epoch))
                for chunk in body.get("logs", ()):
                    key = (chunk["job"], chunk["epoch"])
                    assert chunk["offset"] == len(self.logs[key])
                    data = base64.b64decode(chunk["b64"]) if "b64" in chunk else chunk["text"].encode()
                    self.logs[key] += data
                for result in body.get("results", ()):
                    self.results[result["job"], result["epoch"]].append(result)
                self.on_report(body)
                self.changed.notify_all()
            stale, self.stale = self.stale, []
        return 200, {"ack": body["seq"], "stale": stale, **self._times()}

    # ------------------------------------------------------------ for tests

    def tell(self, **message: Any) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def job(self, name: str, *command: str, epoch: int = 1, **more: Any) -> dict[str, Any]:
        return {"job": name, "epoch": epoch, "owner": "ann", "name": name, "command": list(command), "env": {},
                "shape": {"cpus": 1000}, "grace_ms": 1000, "output_limit": 1 << 26, **more}  # fmt: skip

    def assign(self, *jobs: dict[str, Any]) -> None:
        self.tell(assign=list(jobs))

    def result(self, job: str, epoch: int = 1, seconds: float = DEADLINE_S) -> dict[str, Any]:
        until(lambda: self.results[job, epoch], f"the result of {job}", seconds)
        (result,) = self.results[job, epoch]
        return result

    def left(self) -> str:
        """Why the worker said that it leaves."""
        return until(lambda: next((r["leaving"] for r in self.reports if r.get("leaving")), ""), "a farewell")


class AgentProcess:
    def __init__(self, process: "subprocess.Popen[str]", errors: Path, work_dir: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.errors = errors
        self.work_dir = work_dir

    def journal(self) -> list[dict[str, Any]]:
        lines = self.errors.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.journal() if line["event"] == event]

    def signal_again(self, number: int, after: int = 1) -> None:
        """A signal that is not taken for the one before: it comes after so many were heeded, and not at once."""
        until(lambda: len(self.said("signal")) >= after, "the signals before to be heeded")
        heeded = time.monotonic()
        until(lambda: time.monotonic() > heeded + 0.15, "a little time to pass")
        self.process.send_signal(number)

    def exit_code(self, seconds: float = DEADLINE_S) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return until


@pytest.fixture
def stall() -> type[Stall]:
    return Stall


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    hub.up()
    yield hub
    hub.down()


@pytest.fixture
def start_agent(fake_hub: FakeHub, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """`start_agent("--flag", …, env={…})`: an agent of the fake hub, with two CPUs to give."""
    agents: list[AgentProcess] = []

    def start(*flags: str, env: dict[str, str] | None = None, program: list[str] | None = None, token: str = JOIN_TOKEN,
              worker: str = "w-1") -> AgentProcess:  # fmt: skip
        number = len(agents)
        token_file = tmp_path / f"token-{number}"
        token_file.write_text(token + "\n")
        token_file.chmod(0o600)
        errors = tmp_path / f"errors-{number}"
        by_hand = "--token-file" in flags
        argv = [*(program or [sys.executable, "-m", "worker"]), "--server", fake_hub.url, "--worker-id", worker]
        argv += ["--work-dir", str(tmp_path / "work"), "--cpus", "2", "--memory", "1GiB", "--log-format", "json"]
        argv += [str(token_file) if flag == "TOKEN" else flag for flag in flags]
        if not by_hand:
            argv += ["--join-token-file", str(token_file)]
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[3]), **(env or {})}
        with errors.open("w") as stderr:
            process = subprocess.Popen(argv, env=clean, stderr=stderr, stdin=subprocess.DEVNULL, text=True)
        agents.append(AgentProcess(process, errors, tmp_path / "work" / worker))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.process.kill()
        agent.process.wait()


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`join(hub, "--flag", …)`: an agent started by hand; its process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(hub: Any, secret: str, *flags: str) -> "subprocess.Popen[bytes]":
        token = tmp_path / f"token-{len(started)}"
        token.write_text(secret)
        token.chmod(0o600)
        argv = [sys.executable, "-m", "worker", "--server", hub.url, "--token-file", str(token), "--cpus", "2"]
        argv += ["--worker-id", "by-hand", "--work-dir", str(tmp_path / "work"), "--log-format", "json", *flags]
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        started.append(subprocess.Popen(argv, env=clean, stdin=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
