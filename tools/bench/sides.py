"""Things measured side by side: they take turns, so that a noisy machine is noisy for all."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tools.bench.report import Row, against

MIB = 2**20
Act = Callable[[], object]


@dataclass
class Side:
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # seconds, children included


def take_turns(sides: Mapping[str, Act], rounds: int, after: Act) -> dict[str, Side]:
    """`after` each of them."""
    found = {name: Side() for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            used, began = cpu_seconds(), time.perf_counter()
            sides[name]()
            found[name].seconds.append(time.perf_counter() - began)
            found[name].cpu.append(cpu_seconds() - used)
            after()
    return found


def rows(room: str, size: int, baseline: str, found: Mapping[str, Side]) -> list[Row]:
    """How many MiB a second each moves, against the baseline, and what a GiB costs in processor time."""
    base = found[baseline]
    rate = size / MIB / statistics.median(base.seconds)
    made = [Row(f"{room}/{baseline}", rate, "MiB/s", note=spread(size, base))]
    for name, side in found.items():
        if name != baseline:
            own = size / MIB / statistics.median(side.seconds)
            made.append(against(f"{room}/{name}", own, "MiB/s", rate, spread(size, side)))
    for name, side in found.items():
        made.append(against(f"{room}/{name}: cpu of a GiB", per_gib(size, side.cpu), "s", per_gib(size, base.cpu)))
    return made


def per_gib(size: int, seconds: list[float]) -> float:
    return statistics.median(seconds) * 2**30 / size


def spread(size: int, side: Side) -> str:
    fast, slow = size / MIB / min(side.seconds), size / MIB / max(side.seconds)
    return f"{slow:,.0f}–{fast:,.0f} over {len(side.seconds)} rounds"


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
