"""The manager of a simulation: observes, decides with the shipped policy, and does what it decided, in one instant.

It keeps the order of the manager in service: intents before calls, one attempt for each create, tokens revoked before
an end or a burial, only idle workers cordoned.
"""

from collections.abc import Callable, Mapping

from backends.base import Accepted, Refused, Submission
from worker_manager.policy.closing import Closing, closings, failure_of, note_listing
from worker_manager.policy.derive import derive
from worker_manager.policy.facts import BacklogFact, IntentFact, Sights
from worker_manager.policy.model import Drain, End, Failure, Launch, Plan, Snapshot, Undrain
from worker_manager.policy.plan import plan
from worker_manager.simulate.fleet import MANAGER, Site
from worker_manager.simulate.hub import SimHub
from worker_manager.simulate.ledger import SimLedger
from worker_manager.simulate.result import Result

CALL_MS = 35_000


class SimManager:
    def __init__(
        self,
        sites: Mapping[str, Site],
        hub: SimHub,
        result: Result,
        cordoned: Callable[[str], None],
    ) -> None:
        self._sites = sites
        self._settings = [site.pool.settings for site in sites.values()]
        self._hub = hub
        self._result = result
        self._cordoned = cordoned
        self._serial = 0
        self.ledger = SimLedger(tuple(sites))

    def tick(self, now: int, backlog_failed: bool) -> tuple[Snapshot, Plan]:
        backlog = BacklogFact(failed="no answer") if backlog_failed else self._hub.fact(now)
        sights = {name: site.listing() for name, site in self._sites.items()}
        self._note(now, sights, backlog)
        for closing in closings(now, self._settings, self.ledger.memory(), sights, backlog):
            self._close(now, closing)
        if not backlog_failed:
            backlog = self._hub.fact(now)
        snapshot = derive(now, self._settings, self.ledger.memory(), sights, backlog)
        decided = plan(snapshot)
        self._apply(now, decided, snapshot)
        return snapshot, decided

    def unsettled(self, alive: Mapping[str, object]) -> bool:
        """Whether only more listings will tell what became of some worker."""
        for intent in self.ledger.intents.values():
            worker = self._hub.workers.get(intent.id)
            live = worker is not None and worker.state in ("ready", "draining")
            sure = intent.state == "submitted" and intent.end_asked_at is None and intent.id in alive
            if not (live or (sure and worker is None)):
                return True
        return any(id not in self.ledger.intents for id in alive)

    # ------------------------------------------------ what was seen

    def _note(self, now: int, sights: Mapping[str, Sights], backlog: BacklogFact) -> None:
        heard = {fact.id: fact for fact in backlog.workers}
        for intent in tuple(self.ledger.intents.values()):
            listing = sights[intent.pool]
            after = note_listing(intent, listing, self._sites[intent.pool].pool.settings.list_lag_ms)
            if after is not intent:
                self.ledger.write(after)
            if intent.registered_at is None and intent.id in heard:
                ready_at = heard[intent.id].ready_at
                self.ledger.update(intent.id, registered_at=ready_at)
                self.ledger.started(intent.pool, ready_at - intent.requested_at, now)

    def _close(self, now: int, closing: Closing) -> None:
        if closing.bury and not self._hub.bury(closing.intent):
            return
        if closing.dead:
            self._hub.gone(closing.intent, now)
        if closing.failure is not None:
            self._failed(closing.pool, closing.failure)
        self.ledger.close(closing.intent)
        self._hub.forget(closing.intent)

    def _failed(self, pool: str, failure: Failure) -> None:
        self.ledger.failed(pool, failure)
        self._result.failures[failure.kind] += 1

    # ------------------------------------------------ what was decided

    def _apply(self, now: int, decided: Plan, snapshot: Snapshot) -> None:
        handles = {worker.id: worker.handle for worker in snapshot.workers}
        self.ledger.keep(decided.notes)
        for line in decided.pools:
            self._result.reasons.update(reason.code for reason in line.reasons)
        for action in decided.actions:
            match action:
                case Launch():
                    self._launch(now, action)
                case Undrain():
                    self._hub.uncordon(action.worker)
                case Drain():
                    self._drain(now, action)
                case End():
                    self._end(now, action, handles[action.worker] or "")

    def _launch(self, now: int, launch: Launch) -> None:
        site = self._sites[launch.pool]
        settings = site.pool.settings
        self._serial += 1
        submission = Submission(
            id=f"{MANAGER}-{self._serial}",
            count=launch.count,
            pool=launch.pool,
            manager=MANAGER,
            shape=settings.shape,
            command=(),
            environment={},
            join_tokens=(),
            config=settings.config,
        )
        workers = [submission.worker_id(index) for index in range(launch.count)]
        for worker in workers:
            self.ledger.write(
                IntentFact(worker, launch.pool, "requested", settings.shape, now, now + CALL_MS, config=settings.config)
            )
        self.ledger.remember(launch.pool, last_launch_at=now)
        self._result.launched[launch.pool] += launch.count
        outcome = site.launch(submission)
        for index, worker in enumerate(workers):
            match outcome:
                case Accepted(handles):
                    self.ledger.update(worker, state="submitted", submitted_at=now, handle=handles.get(index))
                case Refused():
                    self.ledger.close(worker)
                case _:
                    self.ledger.update(worker, state="unknown")
        if isinstance(outcome, Refused):
            self._failed(launch.pool, Failure(now, outcome.kind.value, outcome.text))

    def _drain(self, now: int, drain: Drain) -> None:
        if self._hub.cordon(drain.worker, drain.reason.code, drain.deadline):
            self._result.drained[drain.pool] += 1
            self.ledger.remember(drain.pool, last_drain_at=now)
            self._cordoned(drain.worker)

    def _end(self, now: int, end: End, handle: str) -> None:
        worker = self._hub.workers.get(end.worker)
        if worker is None and not self._hub.bury(end.worker):
            return
        if worker is not None and worker.jobs and worker.silent_since is None:
            self._result.busy_ended += 1
        intent = self.ledger.intents.get(end.worker)
        asked = {} if intent is None or intent.end_asked_at is not None else {"end_asked_at": now}
        self.ledger.update(end.worker, **asked, **({"force_asked_at": now} if end.force else {}))
        failure = failure_of(now, end)
        if failure is not None:
            self._failed(end.pool, failure)
        self._result.ended[end.reason.code] += 1
        self._sites[end.pool].terminate(handle, end.force)
