"""Jobs with files, between the agent and its keeper: what they need is fetched before the keeper gets them, and what is
to be kept of them is sent before anybody hears of their end.

    start ──→ staging ──→ handed to the keeper ──→ collecting ──→ Ended
                 │                 │                    │
                 └─────────────────┴────────────────────┴──→ Ended: cancelled, given back, failed

It has the contract of `runner.Runner`, so the agent's state knows nothing of it: one that is being staged is `queued`,
one that is being collected `running`, and each ends in exactly one `Ended`. A job without files passes through. The
work itself is the stager's, a process that is begun with the first job that needs it (`stagehand`).
"""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from worker.happened import Ended, Event
from worker.processes import boot_ms
from worker.protocol import Assignment, Outcome, Result, Shape
from worker.runner import KeeperDied, Key, Runner
from worker.stages.filejob import (
    COLLECTING,
    HANDED,
    STAGING,
    FileJob,
    changed,
    has_files,
    succeeded,
    unstarted,
    when_kept,
    with_files,
)
from worker.stages.stagehand import Stagehand, StagerDied
from worker.stages.stagernews import Aside, Cached, NoMoreFiles, Noted, Progress
from worker.terms import LAST_MARGIN_MS, LAST_STRETCH_MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.staging import messages as said_by  # loaded with the first job that has files

STAGER_DIED = "stager-died"
MOST_DEATHS = 3  # in a row, without one job that came through in between


class Stages:
    """Not for several threads at once. `stagehand` None: jobs with files are not taken. `user_of` says as whom a job
    runs; None: as we do."""

    def __init__(
        self,
        runner: Runner,
        stagehand: Optional[Stagehand],
        user_of: Callable[[Assignment], Optional[Tuple[int, int]]] = lambda _: None,
        clock: Callable[[], int] = boot_ms,
    ) -> None:
        self._runner = runner
        self._hand = stagehand
        self._user_of = user_of
        self._clock = clock
        self._jobs: Dict[Key, FileJob] = {}  # those with files, from their start to their end
        self._told: Dict[Key, FileJob] = {}  # of them those that were told to end, and have begun
        self._events: List[Event] = []  # ends that nobody has read yet
        self._deaths = 0  # in a row
        self._given_up = stagehand is None
        self._until: Optional[int] = None  # when whatever runs is handed back

    # ------------------------------------------------------------ orders

    def start(self, assignments: Sequence[Assignment]) -> None:
        """As the runner's."""
        plain = [each for each in assignments if not has_files(each)]
        if plain:
            self._runner.start(plain)
        if len(plain) < len(assignments):
            for each in assignments:
                if has_files(each) and (each["job"], each["epoch"]) not in self._jobs:
                    self._begin(FileJob(each))
        self.flush()

    def _begin(self, job: FileJob) -> None:
        self._jobs[job.key] = job
        if self._given_up:
            self._end_unstarted(job, Outcome.RETURNED, STAGER_DIED, "this worker cannot move files any more")
        elif not job.inputs or self._runner.why_not(job.assignment):
            self._hand_over(job, "")
        else:
            job.phase = STAGING
            self._ask(job)

    def _hand_over(self, job: FileJob, folder: str) -> None:
        job.phase = HANDED
        self._runner.start([job.assignment], {job.key: (folder, job.visible, when_kept(job.outputs))})

    def _ask(self, job: FileJob) -> None:
        """What its phase is waiting for."""
        from worker.staging import messages

        owner = job.assignment.get("owner", "")
        if job.result is not None:
            succeeded = job.result["outcome"] == Outcome.SUCCEEDED
            self._tell(messages.collect(*job.key, owner, job.kept, job.outputs, succeeded))
            return
        try:
            user = self._user_of(job.assignment)
        except OSError as error:
            text = "the worker has no user for it: %s" % error
            self._end_unstarted(job, Outcome.RETURNED, "start-failed", text)
        else:
            self._tell(messages.stage(*job.key, owner, job.inputs, user))

    def _tell(self, message: Any) -> None:
        if self._hand is not None:
            self._hand.tell(message, self._held)

    def _held(self) -> List[Key]:
        """Whose inputs must stay where they are."""
        return [job.key for job in self._jobs.values() if job.inputs and job.phase == HANDED]

    def cancel(
        self,
        job: str,
        epoch: int,
        reason: str = "cancelled",
        text: str = "",
        grace_ms: Optional[int] = None,
        outcome: str = Outcome.CANCELLED,
    ) -> None:
        """As the runner's. Transfers end at once: what is sent in part is worth nothing."""
        found = self._jobs.get((job, epoch))
        if found is not None:
            self._break_off(found, outcome, reason, text)
        if found is None or found.phase == HANDED:
            self._runner.cancel(job, epoch, reason, text, grace_ms, outcome)

    def _break_off(self, job: FileJob, outcome: str, reason: str, text: str, grace_ms: int = 0) -> None:
        """One that the keeper has may have ended already: what it left has the grace to be sent, and no longer."""
        if job.phase == STAGING:
            self._end_unstarted(job, outcome, reason, text)
            return
        until = self._clock() + grace_ms
        job.until = until if job.told is None else min(job.until, until)
        job.told = job.told or (outcome, reason, text)
        self._told[job.key] = job
        if job.phase == COLLECTING and not grace_ms:
            self._end_as_told(job)

    def _end_what_is_late(self) -> None:
        now = self._clock()
        for job in [job for job in self._told.values() if job.phase == COLLECTING and now >= job.until]:
            self._end_as_told(job)

    def _end_as_told(self, job: FileJob) -> None:
        if job.result is not None and job.told is not None:
            self._end(job, changed(job.result, *job.told))

    def recall(self, attempts: Sequence[Key]) -> None:
        """As the runner's."""
        for key in attempts:
            job = self._jobs.get(key)
            if job is not None and job.phase == STAGING:
                self._end_unstarted(job, Outcome.RETURNED, "recalled", "given back before it started")
        self._runner.recall(attempts)

    def resize(self, has: Shape) -> None:
        self._runner.resize(has)
        self._recall_what_does_not_fit()

    def lose_gpu(self, gpu: str, has: Shape) -> None:
        self._runner.lose_gpu(gpu, has)
        self._recall_what_does_not_fit()

    def check_gpus(self) -> None:
        self._runner.check_gpus()

    def gpu_is_free(self, gpu: str) -> None:
        self._runner.gpu_is_free(gpu)

    def _recall_what_does_not_fit(self) -> None:
        for job in self._in(STAGING):
            misfits = self._runner.why_not(job.assignment)
            if misfits:
                self._end_unstarted(job, Outcome.RETURNED, "recalled", misfits)

    def hand_back_by(self, when: Optional[int], reason: str, text: str) -> None:
        self._until = when
        self._runner.hand_back_by(when, reason, text)

    def extend_lease(self, ms: int, asked_at_ms: Optional[int] = None) -> None:
        self._runner.extend_lease(ms, asked_at_ms)

    def ask_usage(self) -> None:
        self._runner.ask_usage()

    def stop(self, grace_ms: int, reason: str, text: str = "", outcome: str = Outcome.RETURNED) -> None:
        """As the runner's. What is being sent has the grace, too: the work of a job is lost with it."""
        for job in list(self._jobs.values()):
            self._break_off(job, outcome, reason, text, grace_ms)
        self._runner.stop(grace_ms, reason, text, outcome)

    def close(self, wait_ms: int = 5000) -> None:
        """Keeper and stager are gone when it returns. May be repeated."""
        if self._hand is not None:
            self._hand.let_go()  # both end at the same time
        self._runner.close(wait_ms)
        if self._hand is not None:
            self._hand.close(wait_ms)

    # ------------------------------------------------------------ what it tells

    @property
    def keeper(self) -> int:
        return self._runner.keeper

    @property
    def stager(self) -> int:
        """Its pid; 0 while there is none."""
        return 0 if self._hand is None else self._hand.pid

    def fileno(self) -> int:
        return self._runner.fileno()

    def stager_fileno(self) -> int:
        """Readable when `read_stager` has something; -1 while there is none. It changes when one is begun anew."""
        return -1 if self._hand is None else self._hand.fileno()

    @property
    def has_news(self) -> bool:
        """`read` or `read_stager` has something, whatever their descriptors say."""
        return bool(self._events) or (self._hand is not None and self._hand.failed) or self.due_in() == 0

    def due_in(self) -> Optional[int]:
        """The ms after which `read` has something by itself; None: it never has."""
        ends = [job.until for job in self._told.values() if job.phase == COLLECTING]
        return max(0, min(ends) - self._clock()) if ends else None

    def read(self) -> List[Event]:
        """As the runner's. To be called also when `has_news`."""
        if self._told:
            self._end_what_is_late()
        try:
            events = self._runner.read()
        except KeeperDied:
            if not self._events:
                raise
            events = []  # it says so the next time, too
        if self._jobs or self._events:
            for event in events:
                self._heard(event)
            events, self._events = self._events, []
        return events

    def flush(self) -> bool:
        told = self._runner.flush()
        if self._hand is not None:
            self._hand.flush()
        return told

    def running(self) -> Dict[Key, str]:
        """As the runner's."""
        found = self._runner.running()
        for key, job in self._jobs.items():
            if job.phase != HANDED:
                found[key] = "queued" if job.phase == STAGING else "running"
        for event in self._events:
            if isinstance(event, Ended):
                found[event.result["job"], event.result["epoch"]] = "running"
        return found

    def phases(self) -> Dict[Key, str]:
        """Of those that are with the stager, for people."""
        return {key: job.phase for key, job in self._jobs.items() if job.phase != HANDED}

    # ------------------------------------------------------------ the keeper's news

    def _heard(self, event: Event) -> None:
        """The agent hears of it, but not yet of the end of one that left something to be kept."""
        job = self._jobs.get((event.result["job"], event.result["epoch"])) if isinstance(event, Ended) else None
        if job is None or not isinstance(event, Ended):
            self._events.append(event)
        elif event.kept:
            job.phase, job.result, job.kept = COLLECTING, event.result, event.kept
            if job.told is not None and self._clock() >= job.until:
                self._end_as_told(job)
            else:
                self._ask(job)
        elif job.outputs and event.result["outcome"] == Outcome.SUCCEEDED:
            text = "its directory was gone when it had ended, and with it what was to be kept"
            self._end(job, changed(event.result, Outcome.FAILED, "output-missing", text))
        else:
            self._end(job, event.result)

    # ------------------------------------------------------------ the stager's news

    def read_stager(self) -> List[Aside]:
        """What it said since the last call, beside what `read` tells of it. Never blocks for long."""
        if self._hand is None:
            return []
        try:
            said = self._hand.read()
        except StagerDied as death:
            return self._died(str(death))
        found = [self._follow(each) for each in said]
        self.flush()
        return [each for each in found if each is not None]

    def _follow(self, said: "said_by.Said") -> Optional[Aside]:
        from worker.staging import messages

        if isinstance(said, messages.Cache):
            return Cached(said.news)
        if isinstance(said, messages.Note):
            return Noted("stager", said.text)
        job = self._jobs.get((said.job, said.epoch))
        if job is None:
            return None  # it has ended meanwhile
        if isinstance(said, messages.Progress):
            return Progress(*said) if said.phase == job.phase else None
        self._deaths = 0
        if isinstance(said, messages.Staged) and job.phase == STAGING:
            self._staged(job, said)
        elif isinstance(said, messages.NotStaged) and job.phase == STAGING:
            self._end_unstarted(job, said.outcome, said.reason, said.text)
        elif isinstance(said, messages.Collected) and job.result is not None:
            self._end(job, with_files(job.result, said.files))
        elif isinstance(said, messages.NotCollected) and job.result is not None:
            result = with_files(job.result, said.files)
            self._end(job, changed(result, said.outcome, said.reason, said.text) if succeeded(result) else result)
        return None

    def _staged(self, job: FileJob, said: "said_by.Staged") -> None:
        """Fetching took time: it may not be able to end here any more."""
        limit = job.assignment.get("time_limit_ms")
        slack = LAST_MARGIN_MS + LAST_STRETCH_MS
        if limit is not None and self._until is not None and self._clock() + limit > self._until + slack:
            text = "the worker does not live that long any more"
            self._end_unstarted(job, Outcome.RETURNED, "walltime", text)
            return
        job.visible = tuple(said.visible)
        self._hand_over(job, said.folder)

    def _died(self, text: str) -> List[Aside]:
        """What it was fetching is given back, what it was sending is sent again, what it held is held by the next."""
        self._deaths += 1
        found: List[Aside] = [Noted(STAGER_DIED, text)]
        for job in self._in(STAGING):
            self._end_unstarted(job, Outcome.RETURNED, STAGER_DIED, "the process that fetched its files died")
        if self._deaths >= MOST_DEATHS:
            for job in self._in(COLLECTING):
                why = "the process that sent its files dies again and again"
                self._break_off(job, Outcome.RETURNED, STAGER_DIED, why)
            if not self._given_up:  # those that run already may still try
                self._given_up = True
                found.append(NoMoreFiles(text))
            return found
        for job in self._in(COLLECTING):
            self._ask(job)
        if self._hand is not None and self._held():
            self._hand.begin(self._held)
        return found

    # ------------------------------------------------------------ ends

    def _end_unstarted(self, job: FileJob, outcome: str, reason: str, text: str) -> None:
        self._end(job, unstarted(job, outcome, reason, text))

    def _end(self, job: FileJob, result: Result) -> None:
        from worker.staging import messages

        del self._jobs[job.key]
        self._told.pop(job.key, None)
        if self._hand is not None and self._hand.pid:
            self._hand.tell(messages.drop(*job.key))
        if job.kept:
            self._runner.discard([job.kept])
        self._events.append(Ended(result))

    def _in(self, phase: str) -> List[FileJob]:
        return [job for job in self._jobs.values() if job.phase == phase]
