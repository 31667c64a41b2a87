"""How workers go: cordoned while idle, called back, or ended through their backend.

The source stands before every end: a worker that has not registered loses its token first, and one that registered in
that moment is left alone; a worker that has registered is cordoned first. So a leader that was stopped and wakes up
can end nothing that works.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backends.base import Accepted, EndOutcome, Refused, Unknown
from worker.protocol import WorkerState
from worker_manager.clock import Clock
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger
from worker_manager.control.outputs import keep, last_words
from worker_manager.control.pool import ManagedPool, Reach
from worker_manager.control.writer import Writer
from worker_manager.errors import WorkerManagerError
from worker_manager.policy.closing import failure_of
from worker_manager.policy.model import Drain, End, Undrain, WorkerView
from worker_manager.policy.reasons import Reason
from worker_manager.sources.base import Cordon, Source


@dataclass(frozen=True)
class Ending:
    """One worker to end through its backend, allowed by the source."""

    pool: str
    worker: str
    handle: str
    force: bool
    reason: Reason


@dataclass(frozen=True)
class _Flight:
    ending: Ending
    call: Call[EndOutcome]


class Ends:
    def __init__(self, ledger: Ledger, source: Source, clock: Clock, reach: Reach) -> None:
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._reach = reach
        self._flights: dict[tuple[str, bool], _Flight] = {}
        self._wrote: dict[str, str] = {}  # by workers that never registered
        self._said: dict[tuple[str, str], tuple[str, str]] = {}

    # ------------------------------------------------------------ cordons

    def undrain(self, actions: Sequence[Undrain]) -> Counter[str]:
        """How many work again, by pool."""
        if not actions:
            return Counter()
        try:
            back = set(self._source.uncordon([action.worker for action in actions]))
            why = ""
        except WorkerManagerError as error:
            back, why = set(), str(error)
        with self._ledger.write() as write:
            for action in actions:
                done = action.worker in back
                self._say(write, action, "undrain", "works again" if done else "not undrained", why)
        return Counter(action.pool for action in actions if action.worker in back)

    def drain(self, actions: Sequence[Drain]) -> set[str]:
        """Those that drain now."""
        if not actions:
            return set()
        cordons = [
            Cordon(action.worker, action.only_if_idle, action.reason.to_wire(), action.deadline) for action in actions
        ]
        generations, why = self._cordoned(cordons)
        now = self._clock.now_ms()
        done = {action.worker for action in actions if generations.get(action.worker) is not None}
        with self._ledger.write() as write:
            for action in actions:
                outcome = "drained" if action.worker in done else "not drained"
                self._say(write, action, "drain", outcome, why or ("" if action.worker in done else "busy, or gone"))
            for pool in {action.pool for action in actions if action.worker in done}:
                write.pool(pool, last_drain_at=now)
        return done

    def _cordoned(self, cordons: Sequence[Cordon]) -> tuple[Mapping[str, int | None], str]:
        try:
            return (self._source.cordon(cordons) if cordons else {}), ""
        except WorkerManagerError as error:
            return {}, str(error)

    # ------------------------------------------------------------ ends

    def end(
        self,
        actions: Sequence[End],
        views: Mapping[str, WorkerView],
        pools: Mapping[str, ManagedPool],
        lanes: Mapping[str, Lane],
    ) -> None:
        """Each worker once; what is under way is not asked again."""
        wanted = [action for action in actions if (action.worker, action.force) not in self._flights]
        reachable, without = _with_handles(wanted, views)
        allowed, refused = self._allowed(reachable, views)
        now = self._clock.now_ms()
        if without or refused or allowed:
            with self._ledger.write() as write:
                for action in without:
                    self._say(write, action, "end", "not ended", "the backend has not named it yet")
                for action, why in refused:
                    self._say(write, action, "end", "not ended", why)
                for action, _handle in allowed:
                    write.intent(action.worker, **_asked(views.get(action.worker), action.force, now))
                    failure = failure_of(now, action)
                    if failure is not None:
                        write.failed(action.pool, failure.kind, failure.text, failure.at, failure.retry_after_ms)
        self._reach("ending")
        for action, handle in allowed:
            self.call(Ending(action.pool, action.worker, handle, action.force, action.reason), pools, lanes)

    def call(self, ending: Ending, pools: Mapping[str, ManagedPool], lanes: Mapping[str, Lane]) -> Call[EndOutcome]:
        pool = pools[ending.pool]

        listen = ending.reason.code == "never-registered"  # afterwards its platform may not know it any more

        def once() -> EndOutcome:
            if listen:
                self._wrote[ending.worker] = last_words(pool.backend, ending.handle)
            outcome = pool.backend.terminate(ending.handle, ending.force)
            self._reach("ended")
            return outcome

        call = lanes[ending.pool].start("an end", once, (1 + listen) * pool.call_timeout_ms)
        self._flights[ending.worker, ending.force] = _Flight(ending, call)
        return call

    def harvest(self) -> bool:
        over = {key: flight for key, flight in self._flights.items() if flight.call.over}
        if not over:
            return False
        now = self._clock.now_ms()
        with self._ledger.write() as write:
            for flight in over.values():
                ending = flight.ending
                outcome, text = spoken(flight.call)
                action = "end --force" if ending.force else "end"
                write.decided(now, ending.pool, action, ending.worker, ending.reason, outcome, text)
                if wrote := self._wrote.pop(ending.worker, ""):
                    keep(write, ending.worker, ending.pool, ending.handle, wrote, now)
        for key in over:
            del self._flights[key]
        return True

    def under_way(self) -> list[Call[EndOutcome]]:
        return [flight.call for flight in self._flights.values()]

    def _allowed(
        self, reachable: Sequence[tuple[End, str]], views: Mapping[str, WorkerView]
    ) -> tuple[list[tuple[End, str]], list[tuple[End, str]]]:
        """Those that may end now, with their handles, and those that may not, with the reason."""
        if not self._source.registers or not reachable:
            return list(reachable), []
        fresh = [action.worker for action, _ in reachable if not _registered(views.get(action.worker))]
        cordons = [
            Cordon(action.worker, False, action.reason.to_wire(), self._clock.now_ms())
            for action, _ in reachable
            if _registered(view := views.get(action.worker)) and view and view.state != WorkerState.DRAINING
        ]
        try:
            buried = set(self._source.bury(fresh, "it is ended before it registered")) if fresh else set()
            if cordons:
                self._source.cordon(cordons)
        except WorkerManagerError as error:
            return [], [(action, str(error)) for action, _ in reachable]
        kept = set(fresh) - buried
        allowed = [(action, handle) for action, handle in reachable if action.worker not in kept]
        refused = [(action, "it has registered meanwhile") for action, _ in reachable if action.worker in kept]
        return allowed, refused

    def _say(self, write: Writer, action: Drain | Undrain | End, name: str, outcome: str, text: str) -> None:
        """Once, until something about it changes: a plan repeats what could not be done at every tick."""
        said = (action.reason.code, f"{outcome}: {text}")
        if self._said.get((action.worker, name)) != said:
            if len(self._said) > 10_000:
                self._said.clear()
            self._said[action.worker, name] = said
            now = self._clock.now_ms()
            write.decided(now, action.pool, name, action.worker, action.reason, outcome, text)


def spoken(call: Call[EndOutcome]) -> tuple[str, str]:
    """What an end has come to, in words."""
    try:
        outcome = call.value()
    except Exception as error:
        return "unknown", f"{type(error).__name__}: {error}"
    match outcome:
        case Accepted():
            return "ended", ""
        case Refused(kind, text):
            return "refused", f"{kind.value}: {text}"
        case Unknown(text):
            return "unknown", text
    return "unknown", f"the backend answered {type(outcome).__name__}, which means nothing"


def _with_handles(actions: Iterable[End], views: Mapping[str, WorkerView]) -> tuple[list[tuple[End, str]], list[End]]:
    reachable, without = [], []
    for action in actions:
        view = views.get(action.worker)
        if view is not None and view.handle:
            reachable.append((action, view.handle))
        else:
            without.append(action)
    return reachable, without


def _registered(view: WorkerView | None) -> bool:
    return view is not None and view.ready_at is not None


def _asked(view: WorkerView | None, force: bool, now: int) -> dict[str, int]:
    """When it was first asked counts: a grace does not begin anew."""
    asked = {} if view is not None and view.end_asked_at is not None else {"end_asked_at": now}
    return {**asked, **({"force_asked_at": now} if force else {})}
