"""The shipped fake passes the suite, as a friendly platform and as one that promises next to nothing."""

from collections.abc import Callable, Iterator, Mapping
from threading import Event

import pytest

from backends.base import Capabilities, Context, RefusalKind
from backends.memory import (
    CAPABILITIES,
    FOREVER,
    Fate,
    Hang,
    Lose,
    MemoryBackend,
    MemoryPlatform,
    Refuse,
    TimeOut,
    Unreadable,
    VirtualWorker,
)
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from worker_manager.clock import ManualClock

NEVER = Event().wait

ORDERS: Mapping[Fault, Callable[[], tuple[str, object]]] = {
    Fault.REFUSED: lambda: ("launch", Refuse(RefusalKind.CAPACITY)),
    Fault.THROTTLED: lambda: ("launch", Refuse(RefusalKind.THROTTLED, "slow down", retry_after_s=3.0)),
    Fault.DENIED: lambda: ("launch", Refuse(RefusalKind.AUTH, "who are you")),
    Fault.OVER_QUOTA: lambda: ("launch", Refuse(RefusalKind.QUOTA, "no more of them")),
    Fault.MISCONFIGURED: lambda: ("launch", Refuse(RefusalKind.CONFIG, "there is no such machine")),
    Fault.LONG_REFUSAL: lambda: ("launch", Refuse(RefusalKind.CAPACITY, "none left " * 10**6)),
    Fault.TIMED_OUT_BEFORE: lambda: ("launch", TimeOut(executes=False)),
    Fault.TIMED_OUT_AFTER: lambda: ("launch", TimeOut(executes=True)),
    Fault.LAUNCH_HANGS: lambda: ("launch", Hang(NEVER)),
    Fault.LIST_HANGS: lambda: ("list", Hang(NEVER)),
    Fault.END_HANGS: lambda: ("terminate", Hang(NEVER)),
    Fault.END_TIMED_OUT_AFTER: lambda: ("terminate", TimeOut(executes=True)),
    Fault.UNREADABLE: lambda: ("list", Unreadable()),
    Fault.NOTICES_UNREADABLE: lambda: ("notices", Unreadable()),
    Fault.EXPIRED: lambda: ("list", Unreadable("your credentials have expired")),
    Fault.GARBAGE: lambda: ("list", Unreadable("<html>" + "x" * 10**7)),
    Fault.PAGE_LOST: lambda: ("list", Lose(2)),
    Fault.SLOW_BOOT: lambda: ("worker", Fate(queue_ms=5000, boot_ms=5000)),
    Fault.DIES_AT_BOOT: lambda: ("worker", Fate(boot_ms=500, dies_at_boot=True, detail="no disk")),
    Fault.DIES_WITH_A_PAGE: lambda: ("worker", Fate(boot_ms=500, dies_at_boot=True, detail="no disk " * 10**6)),
    Fault.STRANGE_STATE: lambda: ("worker", Fate(strange=True)),
    Fault.VANISHES: lambda: ("worker", Fate(run_ms=1000, vanishes=True)),
}


class MemoryAdopter(Adopter):
    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(capabilities, frozenset({*ORDERS, Fault.NOTICE}), has_shell=False)
        self.clock = ManualClock()
        self.platform = MemoryPlatform(self.clock.now_ms, capabilities=capabilities, defaults=Fate(boot_ms=300))

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> MemoryBackend:
        return MemoryBackend(self.platform, Context(manager, pool, "", self.clock.now_ms, call_timeout_s or 30.0))

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        if behaviour != Behaviour():
            leaves_after = None if behaviour.exits is None else 500
            end_ms = FOREVER if behaviour.deaf else None
            fate = Fate(run_ms=leaves_after, exit_code=behaviour.exits, end_ms=end_ms, output=behaviour.says)
            self.platform.faults.inject("worker", fate)
        return ("worker",)

    def inject(self, fault: Fault) -> None:
        if fault is Fault.NOTICE:
            self.platform.warn(self.platform.workers()[-1].id, patience_ms=500)
            return
        call, order = ORDERS[fault]()
        self.platform.faults.inject(call, order)  # type: ignore[arg-type]

    def pause(self) -> None:
        self.clock.advance(200)

    def let_boot(self) -> None:
        self.clock.advance(10_000)

    def close(self) -> None:
        pass

    def alive(self, handle: str) -> bool:
        worker = self.platform.find(handle)
        return worker is not None and not worker.over(self.clock.now_ms())

    def token(self, handle: str) -> str:
        return self._worker(handle).join_token

    def environment(self, handle: str) -> Mapping[str, str]:
        return self._worker(handle).environment

    def argv(self, handle: str) -> tuple[str, ...]:
        return self._worker(handle).command

    def _worker(self, handle: str) -> VirtualWorker:
        worker = self.platform.find(handle)
        assert worker is not None
        return worker


MEAN = Capabilities(
    max_batch=1,
    idempotent_create=False,
    ids_at_launch=False,
    list_lag_s=0.3,
    confirms_end=False,
    graceful_end=False,
    secrets="none",
)


class TestMemory(Conformance):
    @pytest.fixture(params=[CAPABILITIES, MEAN], ids=["friendly", "mean"])
    def adopter(self, request: pytest.FixtureRequest) -> Iterator[Adopter]:
        yield MemoryAdopter(request.param)
