"""The measurement of backends measures every one of them, and counts what it says it counts."""

import threading
from pathlib import Path

from backends import registry
from backends.base import Context, Listing
from backends.memory import MemoryBackend, MemoryPlatform
from tools.bench import backends as bench
from worker_manager.clock import ManualClock


def test_every_backend_for_real_machines_is_measured() -> None:
    assert set(bench.PLATFORMS) == set(registry.BACKENDS) - {"memory"}


def test_a_platform_that_lacks_something_is_told_and_the_others_go_on() -> None:
    def absent(folder: Path) -> bench.Platform:
        raise bench.Missing("a cluster")

    before, bench.PLATFORMS = bench.PLATFORMS, {"slurm": absent}  # type: ignore[dict-item]
    try:
        (row,) = bench.run()
    finally:
        bench.PLATFORMS = before
    assert row.note == "not measured: a cluster"


def test_launches_lists_and_ends_are_counted_apart() -> None:
    clock, lock, calls = ManualClock(), threading.Lock(), [0]

    class Counting(MemoryBackend):
        def _fault(self, call: str):  # type: ignore[no-untyped-def]
            with lock:
                calls[0] += 1
            return super()._fault(call)

        def list(self) -> Listing:
            clock.advance(10)
            return super().list()

    backend = Counting(MemoryPlatform(clock.now_ms), Context(bench.MANAGER, bench.POOL, "", clock.now_ms))
    rows = {row.name: row for row in bench.measured("memory", bench.Platform(backend, lambda: calls[0], workers=2500))}
    launched, listed, ended = (rows[f"backends/memory: {what} 2,500: calls"] for what in ("launch", "list", "end"))
    assert (launched.value, launched.baseline) == (3, 2500)
    assert (listed.value, listed.baseline) == (1, 3)
    assert (ended.value, ended.baseline) == (2500, 2500)
