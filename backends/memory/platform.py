"""The place where virtual workers live: what a real platform would keep for us, and what a simulator asks of it."""

import heapq
import threading
from collections.abc import Callable
from dataclasses import replace

from backends.base import (
    Accepted,
    Capabilities,
    EndOutcome,
    LaunchOutcome,
    Notice,
    RefusalKind,
    Refused,
    Seen,
    Submission,
    WorkerPhase,
    clipped,
)
from backends.memory.faults import FOREVER, Fate, FaultOrders
from backends.memory.notices import OpenNotice
from backends.memory.virtual import VirtualWorker

CAPABILITIES = Capabilities(max_batch=1000, idempotent_create=True, secrets="platform", notices=True)


class MemoryPlatform:
    """The place where virtual workers live."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        seed: int = 0,
        defaults: Fate | None = None,
        quota: int | None = None,
        keep_ended_ms: int = 600_000,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        self.now_ms = now_ms
        self.capabilities = capabilities
        self._defaults = defaults or Fate()
        self._quota = quota
        self._keep_ended_ms = keep_ended_ms
        self.faults = FaultOrders(seed)
        self._lock = threading.Lock()
        self._workers: dict[str, VirtualWorker] = {}
        self._named: dict[str, list[VirtualWorker]] = {}  # several where a submission was taken twice
        self._submissions: dict[tuple[str, str], tuple[str, ...]] = {}
        self._changes: list[int] = []
        self._leaving: list[tuple[int, str]] = []
        self._notices: dict[str, OpenNotice] = {}
        self._serial = 0

    # ------------------------------------------------ for simulators

    def next_change(self, now: int) -> int | None:
        """When some worker's phase changes next, after `now`; None when only a call can change anything."""
        with self._lock:
            while self._changes and self._changes[0] <= now:
                heapq.heappop(self._changes)
            return self._changes[0] if self._changes else None

    def workers(self) -> tuple[VirtualWorker, ...]:
        """Every worker that is not over, of all managers."""
        now = self.now_ms()
        with self._lock:
            return tuple(worker for worker in self._workers.values() if not worker.over(now))

    def leave(self, worker_id: str, exit_code: int = 0, detail: str = "") -> None:
        """The worker ends by itself: its idle exit, a drain that is done, a crash."""
        self._end_by_id(worker_id, exit_code, detail, shown=True)

    def vanish(self, worker_id: str) -> None:
        """The worker is gone from one moment to the next, and from the list."""
        self._end_by_id(worker_id, None, "", shown=False)

    def warn(
        self, worker_id: str, reason: str = "maintenance", in_ms: int | None = None, patience_ms: int = FOREVER
    ) -> Notice:
        """It is about to end this worker: in so many ms whatever is answered, or when it is answered; then it waits
        so long for an answer and begins anew with each `hold`."""
        now = self.now_ms()
        with self._lock:
            (worker,) = (one for one in self._named.get(worker_id, ()) if not one.over(now))
            deadline = None if in_ms is None else now + in_ms
            self._serial += 1
            notice = Notice(f"n-{self._serial}", worker.handle, reason, deadline)
            until = min(now + patience_ms, FOREVER) if deadline is None else deadline
            of = worker.submission
            opened = OpenNotice(notice, of.manager, of.pool, worker, patience_ms, until, tuple(worker.turns))
            self._put_down(opened)
            self._notices[notice.id] = opened
            return notice

    def warn_of_stranger(self, manager: str, pool: str, reason: str = "maintenance") -> Notice:
        """It is about to end a machine on which no worker of ours is."""
        with self._lock:
            self._serial += 1
            notice = Notice(f"n-{self._serial}", "", reason)
            self._notices[notice.id] = OpenNotice(notice, manager, pool, None, FOREVER, FOREVER)
            return notice

    def _put_down(self, opened: OpenNotice) -> None:
        opened.put_down()
        if opened.worker is not None and opened.until < FOREVER:
            self._schedule(opened.worker, shown=True)

    def _end_by_id(self, worker_id: str, exit_code: int | None, detail: str, *, shown: bool) -> None:
        now = self.now_ms()
        with self._lock:
            for worker in [w for w in self._named.get(worker_id, ()) if not w.over(now)]:
                worker.exit_code, worker.detail = exit_code, detail
                worker.cut(now, (now, WorkerPhase.ENDED))
                self._schedule(worker, shown=shown)

    # ------------------------------------------------ what the backend does

    def start(self, submission: Submission) -> LaunchOutcome:
        now = self.now_ms()
        with self._lock:
            self._forget(now)
            known = self._submissions.get((submission.manager, submission.id))
            if known and self.capabilities.idempotent_create:
                return self._accepted(known)
            if submission.count > self.capabilities.max_batch:
                return Refused(RefusalKind.CONFIG, f"at most {self.capabilities.max_batch} workers in one submission")
            if submission.join_tokens and len(submission.join_tokens) != submission.count:
                return Refused(
                    RefusalKind.CONFIG, f"{len(submission.join_tokens)} tokens for {submission.count} workers"
                )
            alive = sum(not worker.over(now) for worker in self._workers.values()) if self._quota is not None else 0
            if self._quota is not None and alive + submission.count > self._quota:
                return Refused(RefusalKind.QUOTA, f"{alive} of {self._quota} workers exist")
            handles = tuple(self._add(submission, index, now) for index in range(submission.count))
            key = (submission.manager, submission.id)
            self._submissions[key] = (*self._submissions.get(key, ()), *handles)
            return self._accepted(handles)

    def shown(self, manager: str, pool: str) -> list[Seen]:
        now = self.now_ms()
        lag = int(self.capabilities.list_lag_s * 1000)
        with self._lock:
            self._forget(now)
            return [
                self._seen(worker, now)
                for worker in self._workers.values()
                if worker.submission.manager == manager
                and worker.submission.pool == pool
                and worker.created + lag <= now < worker.shown_until
            ]

    def end(self, handle: str, *, force: bool) -> EndOutcome:
        now = self.now_ms()
        with self._lock:
            worker = self._workers.get(handle)
            if worker is None or worker.over(now):
                return Accepted()
            phase = worker.phase(now)
            if force or phase is WorkerPhase.PENDING or not self.capabilities.graceful_end:
                worker.cut(now, (now, WorkerPhase.ENDED))
                worker.exit_code = None if phase is WorkerPhase.PENDING else 137
            elif phase is not WorkerPhase.ENDING:
                end_ms = worker.fate.end_ms or 0
                worker.cut(now, (now, WorkerPhase.ENDING), (now + end_ms, WorkerPhase.ENDED))
                worker.exit_code = 0
            worker.detail = worker.detail or "ended by order"
            self._schedule(worker, shown=not worker.fate.vanishes)
            return Accepted()

    def notices(self, manager: str, pool: str) -> tuple[Notice, ...]:
        now = self.now_ms()
        with self._lock:
            over = [id for id, one in self._notices.items() if one.worker is not None and one.worker.over(now)]
            for id in over:
                del self._notices[id]
            mine = [one for one in self._notices.values() if (one.manager, one.pool) == (manager, pool)]
            return tuple(one.notice for one in mine)

    def hold(self, notice: Notice) -> EndOutcome:
        now = self.now_ms()
        with self._lock:
            opened = self._notices.get(notice.id)
            if opened is not None and not (opened.worker and opened.worker.over(now)):
                opened.hold(now)
                self._put_down(opened)
            return Accepted()

    def release(self, notice: Notice) -> EndOutcome:
        with self._lock:
            opened = self._notices.pop(notice.id, None)
        if opened is None or opened.worker is None:
            return Accepted()
        return self.end(opened.worker.handle, force=True)

    def find(self, handle: str) -> VirtualWorker | None:
        return self._workers.get(handle)

    def _accepted(self, handles: tuple[str, ...]) -> Accepted:
        return Accepted(dict(enumerate(handles)) if self.capabilities.ids_at_launch else {})

    def _add(self, submission: Submission, index: int, now: int) -> str:
        fate = self._fate()
        self._serial += 1
        worker = VirtualWorker(submission, index, f"vm-{self._serial}", now, fate, detail=fate.detail)
        starts = now + (fate.queue_ms or 0)
        runs = starts + (fate.boot_ms or 0)
        worker.turns = [(now, WorkerPhase.PENDING), (starts, WorkerPhase.STARTING)]
        if fate.dies_at_boot:
            worker.turns.append((runs, WorkerPhase.ENDED))
            worker.exit_code = 1 if fate.exit_code is None else fate.exit_code
        else:
            worker.turns.append((runs, WorkerPhase.UNKNOWN if fate.strange else WorkerPhase.RUNNING))
            if fate.run_ms is not None:
                worker.turns.append((runs + fate.run_ms, WorkerPhase.ENDED))
                worker.exit_code = fate.exit_code or 0
        self._workers[worker.handle] = worker
        self._named.setdefault(worker.id, []).append(worker)
        self._schedule(worker, shown=not fate.vanishes)
        return worker.handle

    def _fate(self) -> Fate:
        ordered = self.faults.meet("worker")
        if not isinstance(ordered, Fate):
            return self._defaults
        unsaid = {
            name: getattr(self._defaults, name)
            for name in ("queue_ms", "boot_ms", "run_ms", "end_ms")
            if getattr(ordered, name) is None
        }
        return replace(ordered, **unsaid)

    def _schedule(self, worker: VirtualWorker, *, shown: bool) -> None:
        for at, _ in worker.turns:
            if at < FOREVER:
                heapq.heappush(self._changes, at)
        last, phase = worker.turns[-1]
        if phase is WorkerPhase.ENDED:
            worker.shown_until = last + (self._keep_ended_ms if shown else 0)
            heapq.heappush(self._leaving, (worker.shown_until, worker.handle))

    def _forget(self, now: int) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            _, handle = heapq.heappop(self._leaving)
            worker = self._workers.get(handle)
            if worker and worker.shown_until <= now:
                del self._workers[handle]
                self._named[worker.id].remove(worker)
                if not self._named[worker.id]:
                    del self._named[worker.id]
                self._forget_submission(worker.submission)

    def _forget_submission(self, submission: Submission) -> None:
        """With its last worker: until then a repeated launch must find it."""
        key = (submission.manager, submission.id)
        if not any(handle in self._workers for handle in self._submissions.get(key, ())):
            self._submissions.pop(key, None)

    def _seen(self, worker: VirtualWorker, now: int) -> Seen:
        phase = worker.phase(now)
        running = [at for at, turn in worker.turns if turn in (WorkerPhase.RUNNING, WorkerPhase.UNKNOWN) and at <= now]
        return Seen(
            submission=worker.submission.id,
            index=worker.index,
            handle=worker.handle,
            phase=phase,
            started_at=running[0] if running else None,
            exit_code=worker.exit_code if phase is WorkerPhase.ENDED else None,
            refusal=worker.fate.refusal if phase in (WorkerPhase.PENDING, WorkerPhase.ENDED) else None,
            detail=clipped(worker.detail),
            identity=worker.identity if self.capabilities.identity else "",
        )
