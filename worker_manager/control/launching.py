"""How workers begin: announce, write, call once, record.

A sudden death between any two steps leaves something that the next manager finds and puts right:
    noted, announced        the source knows tokens of which no worker will ever hold one: they are revoked there
    intents written         the call may have been made or not: the intents are `unknown`, count as capacity, and are
    called, not recorded    adopted when a listing shows them, or buried when none does after the call's deadline
The announcement comes before the intents are written, because only the write checks the lease: a leader that was
stopped in between writes nothing more, and one that was stopped after it finds its tokens revoked by the burial.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backends.base import Accepted, LaunchOutcome, Refused, Submission, Unknown
from worker_manager.clock import Clock
from worker_manager.control.deaf import Deaf
from worker_manager.control.ids import NewId, new_token, token_hash
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger
from worker_manager.control.pool import ManagedPool, Reach
from worker_manager.control.writer import Writer
from worker_manager.errors import SourceUnavailable, WorkerManagerError
from worker_manager.policy.model import Launch
from worker_manager.sources.base import CoverageTaken, LaunchClaim, Source

CALL_SLACK_MS = 5_000  # a call bounds its own waiting; this much later it is over for certain


@dataclass(frozen=True)
class NotCalled:
    """Its turn came too late, or never: nothing was launched."""

    text: str


@dataclass(frozen=True)
class Draft:
    """One submission that the plan asks for, with everything decided and nothing done."""

    pool: ManagedPool
    submission: Submission
    action: Launch
    covers: tuple[tuple[str, int], ...]
    deadline: int

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(self.submission.worker_id(index) for index in range(self.submission.count))


@dataclass(frozen=True)
class _Flight:
    draft: Draft
    call: Call[LaunchOutcome | NotCalled]


class Launches:
    def __init__(
        self,
        manager: str,
        ledger: Ledger,
        source: Source,
        clock: Clock,
        reach: Reach,
        new_id: NewId,
        token: Callable[[], str] = new_token,
    ) -> None:
        self._manager = manager
        self._ledger = ledger
        self._source = source
        self._clock = clock
        self._reach = reach
        self._new_id = new_id
        self._token = token
        self._flights: dict[str, _Flight] = {}
        self._calls_left = True  # until looked: what the manager before this one has left
        self._notes_left = True
        self._deaf = Deaf(clock)

    # ------------------------------------------------------------ the steps, in order

    def draft(self, actions: Sequence[Launch], pools: Mapping[str, ManagedPool]) -> list[Draft]:
        """None for a while after the source did not take an announcement: what is planned is planned again then."""
        actions = [action for action in actions if not self._deaf.keeps(action.pool)]
        return [draft for action in actions for draft in self._split(action, pools[action.pool])]

    def note(self, write: Writer, drafts: Sequence[Draft]) -> None:
        now = self._clock.now_ms()
        for draft in drafts:
            write.announcing(draft.submission.id, draft.pool.name, draft.submission.count, now)

    def carry_out(self, drafts: Sequence[Draft], backlog_version: int, lanes: Mapping[str, Lane]) -> bool:
        """False when another manager covers some of the jobs already: observe and plan again."""
        announced, dropped, taken = self._announce(drafts, backlog_version)
        self._write_intents(announced, dropped)
        for draft in announced:
            self._call(draft, lanes[draft.pool.name])
        return not taken

    def harvest(self) -> bool:
        """Records what calls have come to. Whether there was anything to record."""
        over = [flight for flight in self._flights.values() if flight.call.over]
        if not over:
            return False
        outcomes = [(flight.draft, _outcome(flight.call)) for flight in over]
        idle = [worker for draft, outcome in outcomes if not _may_exist(outcome) for worker in draft.workers]
        self._revoke(idle)
        with self._ledger.write() as write:
            for draft, outcome in outcomes:
                self._record(write, draft, outcome)
        for flight in over:
            del self._flights[flight.draft.submission.id]
        self._reach("outcome-written")
        return True

    def again_at(self) -> int | None:
        """When launches that the source did not hear of are tried again; None: there are none."""
        return self._deaf.again_at()

    def under_way(self) -> list[Call[LaunchOutcome | NotCalled]]:
        return [flight.call for flight in self._flights.values()]

    # ------------------------------------------------------------ after a sudden death

    def settle(self) -> None:
        """What a manager before this one began and did not finish."""
        if self._calls_left:
            self._call_unknown()
            self._calls_left = False
        if self._notes_left:
            self._notes_left = not self._take_back()

    def _call_unknown(self) -> None:
        left = [call for call in self._ledger.calls_without_outcome() if call.id not in self._flights]
        if not left:
            return
        text = "the manager ended before it knew what the call came to"
        with self._ledger.write() as write:
            for call in left:
                write.called(call.id, "unknown", text, self._clock.now_ms())
                changes = [
                    (intent.id, {"state": "unknown"})
                    for intent in self._ledger.memory().intents
                    if intent.id.rpartition("-")[0] == call.id and intent.state == "requested"
                ]
                write.intents(changes)

    def _take_back(self) -> bool:
        """Whether nothing announced is left over."""
        left = self._ledger.announced()
        if not left:
            return True
        names = [f"{told.submission}-{index}" for told in left for index in range(told.workers)]
        try:
            self._source.bury(names, "its launch was given up")
        except WorkerManagerError:
            return False
        with self._ledger.write() as write:
            for told in left:
                write.announcement_over(told.submission)
        return True

    # ------------------------------------------------------------ one step each

    def _split(self, action: Launch, pool: ManagedPool) -> list[Draft]:
        now = self._clock.now_ms()
        deadline = now + pool.call_timeout_ms + CALL_SLACK_MS
        drafts: list[Draft] = []
        begun = 0
        while begun < action.count:
            count = min(pool.batch, action.count - begun)
            tokens = tuple(self._token() for _ in range(count))
            submission = pool.submission(self._manager, self._new_id(self._manager, now), tokens)
            covers = share(action.covers, begun, begun + count, action.count)
            drafts.append(Draft(pool, submission, action, covers, deadline))
            begun += count
        return drafts

    def _announce(self, drafts: Sequence[Draft], version: int) -> tuple[list[Draft], list[tuple[Draft, str]], bool]:
        """Drafts that may go on; those that the source certainly does not know, and why; whether coverage was taken."""
        announced: list[Draft] = []
        dropped: list[tuple[Draft, str]] = []
        refused: list[Draft] = []
        taken = False
        for place, draft in enumerate(drafts):
            try:
                self._source.announce(_claim(draft, version))
            except CoverageTaken:
                taken = True
                dropped.append((draft, "another manager launches for these jobs already"))
            except SourceUnavailable as error:
                # This one may have been heard: its note stays until it is taken back. The others were not sent.
                self._notes_left = True
                refused += drafts[place:]
                dropped += [(other, str(error)) for other in drafts[place + 1 :]]
                break
            except WorkerManagerError as error:
                refused.append(draft)
                dropped.append((draft, str(error)))
            else:
                self._reach("announced")
                announced.append(draft)
        self._deaf.heard(draft.pool.name for draft in announced)
        self._deaf.failed(draft.pool.name for draft in refused)
        return announced, dropped, taken

    def _write_intents(self, announced: Sequence[Draft], dropped: Sequence[tuple[Draft, str]]) -> None:
        if not announced and not dropped:
            return
        now = self._clock.now_ms()
        with self._ledger.write() as write:
            for draft in announced:
                shape, config = draft.submission.shape, draft.submission.config
                write.calling(draft.submission.id, draft.pool.name, draft.workers, shape, config, now, draft.deadline)
            for name in {draft.pool.name for draft in announced}:
                write.pool(name, last_launch_at=now)
            for draft, why in dropped:
                write.announcement_over(draft.submission.id)
                _decided(write, now, draft, "not launched", why)
        self._reach("intents-written")

    def _call(self, draft: Draft, lane: Lane) -> None:
        def once() -> LaunchOutcome | NotCalled:
            if self._clock.now_ms() >= draft.deadline - CALL_SLACK_MS:
                return NotCalled("its turn came too late: the backend was busy with an earlier call")
            self._reach("before-call")
            outcome = draft.pool.backend.launch(draft.submission)
            self._reach("after-call")
            return outcome

        self._flights[draft.submission.id] = _Flight(draft, lane.start("a launch", once, draft.pool.call_timeout_ms))

    def _revoke(self, workers: Sequence[str]) -> None:
        """Tokens that nobody holds do no harm; what they cover is to be free again soon."""
        if workers:
            try:
                self._source.bury(workers, "it was not launched")
            except WorkerManagerError:
                return  # the source forgets them after the call's deadline

    def _record(self, write: Writer, draft: Draft, outcome: LaunchOutcome | NotCalled) -> None:
        now = self._clock.now_ms()
        submission = draft.submission.id
        match outcome:
            case Accepted(handles):
                write.called(submission, "accepted", "", now)
                write.intents(
                    [
                        (worker, {"state": "submitted", "submitted_at": now, **_handle(handles.get(index))})
                        for index, worker in enumerate(draft.workers)
                    ]
                )
                _decided(write, now, draft, "launched", _size(draft))
            case Refused(kind, text, retry_after_s):
                write.called(submission, "refused", text, now)
                self._close(write, draft, f"refused: {kind.value}", now)
                retry = None if retry_after_s is None else int(retry_after_s * 1000)
                write.failed(draft.pool.name, kind.value, text, now, retry)
                _decided(write, now, draft, "refused", f"{kind.value}: {text}")
            case NotCalled(text):
                write.called(submission, "not-called", text, now)
                self._close(write, draft, "not called", now)
                _decided(write, now, draft, "not launched", text)
            case Unknown(text):
                write.called(submission, "unknown", text, now)
                write.intents([(worker, {"state": "unknown"}) for worker in draft.workers])
                _decided(write, now, draft, "unknown", text)

    def _close(self, write: Writer, draft: Draft, why: str, now: int) -> None:
        for worker in draft.workers:
            write.close(worker, why, now)


def share(covers: Sequence[tuple[str, int]], begin: int, end: int, of: int) -> tuple[tuple[str, int], ...]:
    """The part of each job group that the workers from `begin` to `end` of `of` are for. Parts add up to the whole."""
    parts = [(key, jobs * end // of - jobs * begin // of) for key, jobs in covers]
    return tuple((key, jobs) for key, jobs in parts if jobs)


def _claim(draft: Draft, version: int) -> LaunchClaim:
    return LaunchClaim(
        submission=draft.submission.id,
        pool=draft.pool.name,
        workers=draft.workers,
        token_hashes=tuple(token_hash(token) for token in draft.submission.join_tokens),
        call_deadline=draft.deadline,
        covers=draft.covers,
        backlog_version=version,
        owners=draft.pool.settings.owners,
        queues=draft.pool.settings.queues,
        identity=draft.pool.capabilities.identity,
    )


def _outcome(call: Call[LaunchOutcome | NotCalled]) -> LaunchOutcome | NotCalled:
    """Whatever a backend raises, or answers that makes no sense, leaves open whether something was launched."""
    try:
        outcome = call.value()
    except Exception as error:
        return Unknown(f"{type(error).__name__}: {error}")
    if not isinstance(outcome, Accepted | Refused | Unknown | NotCalled):
        return Unknown(f"the backend answered {type(outcome).__name__}, which means nothing")
    return outcome


def _may_exist(outcome: LaunchOutcome | NotCalled) -> bool:
    return isinstance(outcome, Accepted | Unknown)


def _handle(handle: str | None) -> dict[str, str]:
    return {"handle": handle} if handle else {}


def _size(draft: Draft) -> str:
    """How many it makes, and where limits left less than was wanted, of how many."""
    count, wanted = draft.submission.count, draft.action.wanted
    workers = "1 worker" if count == 1 else f"{count} workers"
    return f"{workers}, {wanted} wanted" if draft.action.limited else workers


def _decided(write: Writer, now: int, draft: Draft, outcome: str, text: str) -> None:
    why = draft.action
    write.decided(now, draft.pool.name, "launch", draft.submission.id, why.reason, outcome, text, why.limited)
