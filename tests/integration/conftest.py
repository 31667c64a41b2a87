"""A real hub for each test that asks for one: a process of its own, on loopback, in a state directory of its own."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.place import Place, a_place
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings


@dataclass
class LiveHub:
    """One running hub, with its tokens."""

    settings: HubSettings
    found: discovery.RunningHub

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir

    @property
    def url(self) -> str:
        return self.found.url

    @property
    def pid(self) -> int:
        return self.found.pid

    @property
    def operator(self) -> str:
        return discovery.read_token(self.state_dir, "operator")

    @property
    def manager(self) -> str:
        return discovery.read_token(self.state_dir, "manager")

    def call(
        self, method: str, path: str, body: Any = None, *, by: str | None = "operator", **options: Any
    ) -> requests.Response:
        """`by` is `operator`, `manager`, a secret, or None for none."""
        headers = dict(options.pop("headers", {}))
        if by is not None:
            secret = getattr(self, by) if by in ("operator", "manager") else by
            headers["Authorization"] = f"Bearer {secret}"
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=60, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self._good(self.call("GET", path, **options))

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self._good(self.call("POST", path, body, **options))

    def token(self, *scopes: str, owner: str = "alice") -> str:
        """A new token's secret."""
        made = self.post("/v1/tokens", {"owner": owner, "scopes": list(scopes)})
        assert isinstance(made["token"], str)
        return str(made["token"])

    def submit(self, *command: str, by: str | None = "operator", **spec: Any) -> str:
        jobs = self.post("/v1/jobs", {"jobs": [{"command": list(command), **spec}]}, by=by)["jobs"]
        return str(jobs[0]["id"])

    def output(self, job: str) -> bytes:
        """Of its current attempt, all there is: each answer goes to the next gap at the most."""
        whole, offset = b"", 0
        while True:
            reply = self.call("GET", f"/v1/jobs/{job}/logs", params={"offset": offset})
            assert reply.status_code == 200, reply.text
            if not reply.content:
                return whole
            whole, offset = whole + reply.content, int(reply.headers["X-Next-Offset"])

    def restart(self) -> None:
        discovery.stop(self.state_dir)
        self.found = discovery.start(self.settings)

    @staticmethod
    def _good(reply: requests.Response) -> Any:
        assert reply.status_code < 300, f"{reply.request.method} {reply.url}: {reply.status_code} {reply.text[:2000]}"
        return json.loads(reply.content)


class WireWorker:
    """A worker without processes: speaks the workers' protocol to a hub."""

    def __init__(self, hub: LiveHub, token: str, name: str = "w-1", **shape: Any) -> None:
        self.hub = hub
        self.name = name
        self.credential = secrets.token_hex(16)
        self.seq = 0
        self.ack = 0
        self.message = {
            "protocol": 1,
            "worker": name,
            "nonce": secrets.token_hex(8),
            "credential_sha256": hashlib.sha256(self.credential.encode()).hexdigest(),
            "pool": "p",
            "shape": {"cpus": 4000, "memory": 2**33, **shape},
            "host": {"hostname": "here"},
        }
        self.registered = hub.post("/v1/workers", self.message, by=token)
        self.session = self.registered["session"]

    def call(self, what: str, body: Any) -> requests.Response:
        return self.hub.call("POST", f"/v1/workers/{self.name}/{what}", body, by=self.credential)

    def poll(self) -> Any:
        reply = self.call("poll", {"session": self.session, "ack": self.ack})
        assert reply.status_code == 200, reply.text
        polled = reply.json()
        self.ack = polled["seq"]
        return polled

    def report(self, **what: Any) -> Any:
        self.seq += 1
        reply = self.call("report", {"session": self.session, "seq": self.seq, **what})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def take(self) -> Any:
        """The next assignment, reported as started."""
        assignment = self.poll()["assign"][0]
        self.report(started=[[assignment["job"], assignment["epoch"], 1]], running=1)
        return assignment

    def finish(self, assignment: Any, outcome: str = "succeeded", **more: Any) -> Any:
        result = {"job": assignment["job"], "epoch": assignment["epoch"], "outcome": outcome, "run_ms": 5, **more}
        return self.report(results=[result], running=0)


StartHub = Callable[..., LiveHub]


@contextmanager
def running_hubs(folder: Path) -> Iterator[StartHub]:
    with ExitStack() as stack:

        def start(name: str = "hub", **settings: Any) -> LiveHub:
            chosen = HubSettings(folder / name, **settings)
            live = LiveHub(chosen, discovery.start(chosen))
            stack.callback(discovery.stop, chosen.state_dir)
            return live

        yield start


@pytest.fixture
def start_hub(tmp_path: Path) -> Iterator[StartHub]:
    """Starts hubs with settings of the test's, and ends them with it, where the test has not."""
    with running_hubs(tmp_path) as start:
        yield start


@pytest.fixture
def hub(start_hub: StartHub) -> LiveHub:
    """A hub of its own, with the settings that it has by itself."""
    return start_hub()


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveHub]:
    """One hub for all tests of a file that do not mind what others left in it."""
    with running_hubs(tmp_path_factory.mktemp("shared")) as start:
        yield start()


@pytest.fixture
def wire_worker() -> type[WireWorker]:
    """`wire_worker(hub, token, name, **shape)` registers one."""
    return WireWorker


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A state directory for commands; every process of it is gone afterwards."""
    yield from a_place(tmp_path)
