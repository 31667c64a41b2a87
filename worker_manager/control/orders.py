"""What operators order through the source: carried out once, and the result reported until it is heard."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker_manager.clock import Clock
from worker_manager.control.ending import Ending, Ends, spoken
from worker_manager.control.lanes import Call, Lane
from worker_manager.control.ledger import Ledger
from worker_manager.control.outputs import KEPT_BYTES, read, written
from worker_manager.control.pool import ManagedPool
from worker_manager.control.writer import Writer
from worker_manager.policy.model import WorkerView
from worker_manager.policy.reasons import Reason, because
from worker_manager.sources.base import Command


class Orders:
    def __init__(self, ledger: Ledger, ends: Ends, clock: Clock) -> None:
        self._ledger = ledger
        self._ends = ends
        self._clock = clock
        self._under_way: dict[str, tuple[Command, Call[Any]]] = {}
        self._reading: dict[str, tuple[Command, Call[str]]] = {}
        self._repeat: set[str] = set()  # results that the source asks for again

    def carry_out(
        self,
        commands: Sequence[Command],
        views: Mapping[str, WorkerView],
        pools: Mapping[str, ManagedPool],
        lanes: Mapping[str, Lane],
        told_anew: bool = True,
    ) -> None:
        """A command that is done and comes again (`told_anew`): its result was not heard, so it is said again."""
        known = self._ledger.command_results() if commands else {}
        for command in commands:
            if command.id in known:
                if told_anew and known[command.id].published:
                    self._repeat.add(command.id)
            elif command.id not in self._under_way and command.id not in self._reading:
                self._one(command, views, pools, lanes)

    def force_what_is_due(
        self, views: Mapping[str, WorkerView], pools: Mapping[str, ManagedPool], lanes: Mapping[str, Lane]
    ) -> int | None:
        """Ends whose grace an operator has set and that is over. Returns when the next one is due."""
        now = self._clock.now_ms()
        later = []
        for worker, due in self._ledger.forces_due().items():
            view = views.get(worker)
            if due > now:
                later.append(due)
            elif view is not None and view.handle and view.pool in pools:
                reason = because("grace-over", waited_ms=now - (view.end_asked_at or due))
                self._force(Ending(view.pool, worker, view.handle, True, reason), pools, lanes)
        return min(later, default=None)

    def harvest(self) -> bool:
        read_now = {name: found for name, found in self._reading.items() if found[1].over}
        if read_now:
            with self._ledger.write() as write:
                for command, reading in read_now.values():
                    self._write_output(write, command, written(reading) or self._ledger.output(command.target))
            for name in read_now:
                del self._reading[name]
        over = {name: found for name, found in self._under_way.items() if found[1].over}
        if not over:
            return bool(read_now)
        with self._ledger.write() as write:
            for name, (_command, call) in over.items():
                outcome, text = spoken(call)
                write.command_done(name, outcome == "ended", text or outcome, self._clock.now_ms())
        for name in over:
            del self._under_way[name]
        return True

    def reading(self) -> list[Call[str]]:
        return [call for _, call in self._reading.values()]

    def results(self) -> list[dict[str, Any]]:
        """What the source has not heard yet."""
        known = self._ledger.command_results().values()
        return [
            {"command": result.id, "ok": result.ok, "text": result.text}
            for result in known
            if not result.published or result.id in self._repeat
        ]

    def heard(self, write: Writer, results: Sequence[Mapping[str, Any]]) -> None:
        names = [result["command"] for result in results]
        write.results_published(names)
        self._repeat -= set(names)

    # ------------------------------------------------------------ one of each kind

    def _one(
        self,
        command: Command,
        views: Mapping[str, WorkerView],
        pools: Mapping[str, ManagedPool],
        lanes: Mapping[str, Lane],
    ) -> None:
        if command.expires_at <= self._clock.now_ms():
            self._done(command, False, "it came too late: the command has expired")
        elif command.pool not in pools:
            self._done(command, False, f"this manager has no pool {command.pool!r}")
        elif command.kind == "freeze":
            self._freeze(command)
        elif command.kind == "unfreeze":
            self._unfreeze(command)
        elif command.kind == "end-worker":
            self._end(command, views.get(command.target), pools, lanes)
        elif command.kind == "worker-logs":
            self._read(command, views.get(command.target), pools, lanes)
        else:
            self._done(command, False, f"this manager does not know the command {command.kind!r}")

    def _freeze(self, command: Command) -> None:
        until = command.options.get("until_ms")
        text = str(command.options.get("text") or "frozen by an operator")
        if not isinstance(until, int) or isinstance(until, bool):
            self._done(command, False, "a freeze says until when it lasts: until_ms is missing")
            return
        with self._ledger.write() as write:
            write.pool(command.pool, frozen_until=until, freeze_text=text)
            self._write_done(write, command, True, "frozen")

    def _unfreeze(self, command: Command) -> None:
        with self._ledger.write() as write:
            write.pool(command.pool, frozen_until=None, freeze_text="")
            self._write_done(write, command, True, "unfrozen")

    def _end(
        self,
        command: Command,
        view: WorkerView | None,
        pools: Mapping[str, ManagedPool],
        lanes: Mapping[str, Lane],
    ) -> None:
        """The source has cordoned it, or taken its jobs back, before it relayed the command."""
        if view is None or view.pool != command.pool:
            self._done(command, True, "there is no such worker any more")
            return
        if not view.handle:
            return  # not named by its backend yet: asked again at the next tick, until the command expires
        grace = int(command.options.get("grace_ms") or 0)
        force = bool(command.options.get("force"))
        now = self._clock.now_ms()
        with self._ledger.write() as write:
            asked = {"end_asked_at": view.end_asked_at or now}
            if force:
                asked["force_due_at" if grace else "force_asked_at"] = now + grace
            write.intent(view.id, **asked)
        ending = Ending(view.pool, view.id, view.handle, force and not grace, _reason(command))
        self._under_way[command.id] = (command, self._ends.call(ending, pools, lanes))

    def _read(
        self,
        command: Command,
        view: WorkerView | None,
        pools: Mapping[str, ManagedPool],
        lanes: Mapping[str, Lane],
    ) -> None:
        """What it wrote, as its backend has it now; else what was kept of it."""
        handle = (view.handle if view is not None else None) or self._ledger.handle(command.target)
        size = command.options.get("max_bytes")
        size = min(size, KEPT_BYTES) if isinstance(size, int) and size > 0 else KEPT_BYTES
        if handle:
            self._reading[command.id] = (command, read(pools[command.pool], handle, size, lanes[command.pool]))
        else:
            with self._ledger.write() as write:
                self._write_output(write, command, self._ledger.output(command.target))

    def _write_output(self, write: Writer, command: Command, text: str) -> None:
        write.command_done(command.id, True, text, self._clock.now_ms(), KEPT_BYTES)

    def _force(self, ending: Ending, pools: Mapping[str, ManagedPool], lanes: Mapping[str, Lane]) -> None:
        with self._ledger.write() as write:
            write.intent(ending.worker, force_asked_at=self._clock.now_ms())
        self._ends.call(ending, pools, lanes)

    def _done(self, command: Command, ok: bool, text: str) -> None:
        with self._ledger.write() as write:
            self._write_done(write, command, ok, text)

    def _write_done(self, write: Any, command: Command, ok: bool, text: str) -> None:
        now = self._clock.now_ms()
        write.command_done(command.id, ok, text, now)
        subject = command.target or command.pool
        write.decided(now, command.pool, command.kind, subject, _reason(command), "done" if ok else "failed", text)


def _reason(command: Command) -> Reason:
    return because("operator", by=command.by, text=str(command.options.get("text") or command.kind))
