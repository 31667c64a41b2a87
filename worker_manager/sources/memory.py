"""A source in this process: for simulations, dry runs and tests. It keeps the promises of `sources.base` by itself.

source = MemorySource(clock.now_ms)
source.wait("g", Shape(cpus=1000), jobs=3)
source.register(worker_id, "pool", join_token, shape)      # what an agent would do
source.unavailable = "the network is down"                 # every call raises SourceUnavailable until it is ""
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from worker.protocol import Shape
from worker_manager.errors import SourceUnavailable
from worker_manager.policy.facts import BacklogFact, WorkerFact
from worker_manager.policy.model import JobGroup
from worker_manager.sources.base import Command, Cordon, CoverageTaken, LaunchClaim, Observation


class TokenRefused(Exception):
    """The join token is unknown, revoked, or was used by another."""


class MemorySource:
    def __init__(self, now_ms: Callable[[], int], registers: bool = True) -> None:
        self.registers = registers
        self.unavailable = ""
        self.coverage_taken = False
        self.deaf = ""  # announcements, and nothing else, raise SourceUnavailable until it is ""
        self.published: list[Mapping[str, Any]] = []
        self.commands: list[Command] = []
        self.said_gone: list[str] = []
        self._now_ms = now_ms
        self._changed = threading.Condition(threading.RLock())
        self._version = 0
        self._groups: dict[str, JobGroup] = {}
        self._workers: dict[str, WorkerFact] = {}
        self._generations: dict[str, int] = {}
        self._launches: dict[str, LaunchClaim] = {}
        self._buried: set[str] = set()
        self._came: set[str] = set()  # and are forgotten
        self._identities: dict[str, str] = {}  # by worker

    # ------------------------------------------------------------ what the world does

    def wait(self, key: str, asks: Shape, jobs: int) -> None:
        """So many jobs of this group wait from now on."""
        before = self._groups.pop(key, None)
        if jobs:
            oldest = before.oldest if before else self._now_ms()
            self._groups[key] = JobGroup(key=key, asks=asks, count=jobs, oldest=oldest)
        self._news()

    def register(self, worker: str, pool: str, token: str, shape: Shape) -> None:
        """Raises TokenRefused. A repeat is the second registrant: it is refused as well."""
        launch = self._launches.get(worker.rpartition("-")[0])
        digest = hashlib.sha256(token.encode()).hexdigest()
        valid = launch is not None and (worker, digest) in zip(launch.workers, launch.token_hashes, strict=False)
        self._admit(worker, pool, shape, valid)

    def join(self, identity: str, pool: str, shape: Shape) -> str:
        """The same without a token, for one of whom its platform says who it is. Returns its name."""
        worker = next((name for name, known in self._identities.items() if known == identity), "")
        self._admit(worker, pool, shape, bool(worker))
        return worker

    def _admit(self, worker: str, pool: str, shape: Shape, valid: bool) -> None:
        if not valid or worker in self._buried | self._came or worker in self._workers:
            raise TokenRefused(worker)
        now = self._now_ms()
        self._workers[worker] = WorkerFact(worker, pool, "ready", shape, shape, 0, 0, 0, now, now, now)
        self._news()

    def change(self, worker: str, **fields: Any) -> None:
        """What a worker reports: `running=1`, `state='lost'`, `idle_since=…`."""
        self._workers[worker] = replace(self._workers[worker], **{"seen_at": self._now_ms(), **fields})
        self._news()

    def forget(self, worker: str) -> None:
        """It has gone, and is not spoken of any more; its token stays used."""
        del self._workers[worker]
        self._came.add(worker)
        self._news()

    def worker(self, worker: str) -> WorkerFact | None:
        return self._workers.get(worker)

    def workers(self) -> tuple[WorkerFact, ...]:
        return tuple(self._workers.values())

    def order(self, command: Command) -> None:
        """What an operator asks of a pool."""
        self.commands.append(command)
        self._news()

    def open_tokens(self) -> frozenset[str]:
        """Workers whose join token could still be used."""
        told = {worker for launch in self._launches.values() for worker in launch.workers}
        return frozenset(told - self._buried - self._came - set(self._workers))

    # ------------------------------------------------------------ sources.base.Source

    def serve(self, pools: Sequence[str]) -> None:
        """Workers of every pool are told anyway."""

    def observe(self, seen_version: int | None, wait_ms: int) -> Observation:
        self._reached()
        with self._changed:
            if seen_version is not None:
                self._changed.wait_for(lambda: self._version > seen_version or bool(self.commands), wait_ms / 1000)
            return self._observation()

    def _observation(self) -> Observation:
        backlog = BacklogFact(
            version=self._version,
            groups=tuple(self._groups.values()),
            workers=self.workers() if self.registers else (),
            registers=self.registers,
        )
        return Observation(backlog, tuple(self.commands))

    def announce(self, claim: LaunchClaim) -> None:
        self._reached()
        if self.deaf:
            raise SourceUnavailable(self.deaf)
        if self.coverage_taken:
            raise CoverageTaken(claim.submission)
        self._launches.setdefault(claim.submission, claim)

    def identify(self, identities: Mapping[str, str]) -> tuple[str, ...]:
        self._reached()
        known = {worker for launch in self._launches.values() if launch.identity for worker in launch.workers}
        self._identities |= {worker: identity for worker, identity in identities.items() if worker in known}
        return tuple(worker for worker in identities if worker in known)

    def bury(self, workers: Sequence[str], reason: str) -> tuple[str, ...]:  # noqa: ARG002 - nobody reads it here
        self._reached()
        gone = [worker for worker in workers if worker not in self._workers and worker not in self._came]
        self._buried |= set(gone)
        return tuple(gone)

    def cordon(self, cordons: Sequence[Cordon]) -> Mapping[str, int | None]:
        self._reached()
        return {cordon.worker: self._cordon(cordon) for cordon in cordons}

    def _cordon(self, cordon: Cordon) -> int | None:
        fact = self._workers.get(cordon.worker)
        if fact is None or fact.state == "gone" or (cordon.only_if_idle and fact.running + fact.assigned):
            return None
        generation = self._generations[cordon.worker] = self._generations.get(cordon.worker, 0) + 1
        state = "draining" if fact.state == "ready" else fact.state
        code = str(cordon.reason.get("code", ""))
        self._workers[cordon.worker] = replace(fact, state=state, drain_deadline=cordon.deadline, drain_code=code)
        self._news()
        return generation

    def uncordon(self, workers: Sequence[str]) -> tuple[str, ...]:
        self._reached()
        back = [worker for worker in workers if worker in self._workers and self._workers[worker].state == "draining"]
        for worker in back:
            self.change(worker, state="ready", drain_deadline=None, drain_code="")
        return tuple(back)

    def declare_gone(self, workers: Sequence[str], reason: str) -> None:  # noqa: ARG002 - likewise
        self._reached()
        for worker in workers:
            self.said_gone.append(worker)
            if worker in self._workers:
                self.change(worker, state="gone", running=0, assigned=0)

    def publish(self, report: Mapping[str, Any]) -> None:
        self._reached()
        self.published.append(report)
        heard = {result["command"] for result in report.get("results", ())}
        self.commands = [command for command in self.commands if command.id not in heard]

    def _news(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def _reached(self) -> None:
        if self.unavailable:
            raise SourceUnavailable(self.unavailable)
