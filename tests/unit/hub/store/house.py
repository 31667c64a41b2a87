"""A store on a real SQLite file, a clock that stands still, and a small vocabulary for tests."""

import hashlib
from pathlib import Path
from typing import Any

from worker.protocol import Shape
from worker_manager.clock import ManualClock
from worker_manager.hub.contract import Claim, Dependency, NewJob, Settings
from worker_manager.hub.store import open_store
from worker_manager.hub.store.store import Store

HAND = "hand"  # the token of workers that are started by hand


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class House:
    """One hub's store and those who talk to it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.clock = ManualClock()
        self.settings = Settings()
        self.store: Store = open_store(place, self.clock, self.settings)
        self.acks: dict[str, int] = {}
        self.seqs: dict[str, int] = {}
        self.store.create_token(sha(HAND), "ann", ["worker"], None, "test").result()

    def restart(self) -> None:
        self.store.close()
        self.store = open_store(self.place, self.clock, self.settings)

    def submit(self, *jobs: NewJob, owner: str = "ann", **more: Any) -> list[str]:
        return [one["id"] for one in self.store.submit_jobs(owner, jobs, **more).result()]

    def worker(self, name: str, cpus: int = 2, token: str = HAND, **more: Any) -> dict[str, Any]:
        message: Any = {
            "worker": name,
            "nonce": "n-" + name,
            "credential_sha256": sha(name),
            "shape": Shape(cpus=cpus * 1000, memory=2**34).to_wire(),
            **more,
        }
        return dict(self.store.register(message, sha(token)).result())

    def poll(self, name: str, ack: bool = True) -> dict[str, Any]:
        polled = self.store.poll(name, sha(name), 1, self.acks.get(name, 0))
        if ack:
            self.acks[name] = polled["seq"]
        return dict(polled)

    def taken(self, name: str) -> list[tuple[str, int]]:
        return [(one["job"], one["epoch"]) for one in self.poll(name)["assign"]]

    def report(self, name: str, logs: Any = (), **message: Any) -> dict[str, Any]:
        self.seqs[name] = self.seqs.get(name, 0) + 1
        return self.again(name, self.seqs[name], logs, **message)

    def again(self, name: str, seq: int, logs: Any = (), **message: Any) -> dict[str, Any]:
        sent: Any = {"session": 1, "seq": seq, **message}
        return dict(self.store.report(name, sha(name), sent, logs).result())

    def end(self, name: str, *attempts: tuple[str, int], outcome: str = "succeeded", **more: Any) -> dict[str, Any]:
        results = [{"job": job, "epoch": epoch, "outcome": outcome, "run_ms": 5, **more} for job, epoch in attempts]
        return self.report(name, results=results)

    def start(self, name: str, *attempts: tuple[str, int]) -> dict[str, Any]:
        return self.report(name, started=[[job, epoch, self.clock.now_ms()] for job, epoch in attempts])

    def state(self, job: str) -> str:
        return str(self.store.get_job(job)["state"])

    def group_counts(self) -> list[int]:
        return [group["count"] for group in self.store.backlog()["groups"]]

    def claim(self, submission: str, count: int = 1, manager: str = "m", **more: Any) -> list[str]:
        names = tuple(f"{submission}-{i}" for i in range(count))
        hashes = tuple(sha("join-" + name) for name in names)
        owner = more.pop("owner", "")
        claim = Claim(submission, more.pop("pool", "p"), names, hashes, self.clock.now_ms() + 30_000, **more)
        self.store.claim_launch(manager, claim, owner).result()
        return list(names)


def job(*command: str, **more: Any) -> NewJob:
    shape = more.pop("shape", Shape(cpus=1000))
    return NewJob(command or ("true",), shape, **more)


def after(*names: str, needs: str = "success") -> tuple[Dependency, ...]:
    return tuple(Dependency(name, needs) for name in names)
