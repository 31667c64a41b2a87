"""Which worker keeps its room for jobs that small ones would pass by for ever. Pure.

A large job fits nowhere while small ones fill every slot that falls free. So when the head of a queue has waited for
long, and some worker could run it if that were empty, one such worker takes nothing that comes after that job, until
it fits. The first few queues in order get a worker each: the one that lacks least. Once chosen it stays so for as long
as the job waits and the worker is there, or nothing would ever come of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from worker.protocol import Shape, fits
from worker_manager.hub.match import Candidate, Serves, in_order

MOST = 4  # workers that keep room at the same time


@dataclass(frozen=True, slots=True)
class Host:
    """A ready worker."""

    id: str
    pool: str
    shape: Shape  # with the walltime that is left
    free: Shape
    serves: Serves


@dataclass(frozen=True, slots=True)
class Kept:
    """The worker takes no job that comes after this group's head."""

    worker: str
    pool: str
    group: int
    priority: int
    oldest: int

    def lets(self, other: Candidate) -> bool:
        return other.group == self.group or (-other.priority, other.oldest) < (-self.priority, self.oldest)


def starving(waiting: Iterable[Candidate], now: int, patience_ms: int) -> list[Candidate]:
    return [group for group in in_order(waiting) if group.waiting and group.oldest + patience_ms <= now]


def keep(groups: Sequence[Candidate], hosts: Sequence[Host], before: Mapping[int, str]) -> dict[str, Kept]:
    """Worker → what it keeps its room for. `groups` starve, in order; `before`: group → the worker that it had."""
    kept: dict[str, Kept] = {}
    could = _Eligible(hosts)
    for group in groups:
        if len(kept) == MOST:
            break
        able = [host for host in could.run(group) if host.id not in kept]
        if not able:
            continue
        same = next((host for host in able if host.id == before.get(group.group)), None)
        host = same or min(able, key=lambda host: (_lack(group.asks, host), host.id))
        kept[host.id] = Kept(host.id, host.pool, group.group, group.priority, group.oldest)
    return kept


def _lack(asks: Shape, host: Host) -> float:
    """The largest part of anything asked for that is not free yet, 0 to 1."""
    free, has = host.free, dict(host.free.custom)
    pairs = [(asks.cpus, free.cpus), (asks.memory, free.memory), (asks.gpus, free.gpus), (asks.disk, free.disk)]
    pairs += [(count, has.get(name, 0)) for name, count in asks.custom]
    return max((wanted - there) / wanted for wanted, there in [*pairs, (1, 1)] if wanted)


class _Eligible:
    """Workers that could run a group's jobs if they were empty. Shapes repeat, so each is compared once."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._alike: dict[tuple[Shape, Serves], list[Host]] = {}
        for host in hosts:
            self._alike.setdefault((host.shape, host.serves), []).append(host)

    def run(self, group: Candidate) -> list[Host]:
        return [
            host
            for (shape, serves), alike in self._alike.items()
            if serves.admits(group.owner, group.queue) and not fits(group.asks, shape)
            for host in alike
        ]
