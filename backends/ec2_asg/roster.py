"""Which instance is which worker: the durable record of what was asked for, and the rule that joins the two.

A group hands out instances without a word on what they are for. So each submission is written down before its call,
as places that wait for an instance; an instance that nobody has seen before takes the place that has waited longest.
What was decided once is written down and never changes. An instance for which no place waits is a stray, for ever: one
that the group started by itself, or somebody else had it start. It is listed under its own name, and the manager ends
it as it ends every worker that it does not know.

The record is one file in the pool's own folder, replaced as a whole under a lock. When it is lost, the tags that the
instances got say the same for all that have any.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.ec2_asg.group import Instance

FORGET_MS = 3_600_000  # how long what is over stays on record


@dataclass(frozen=True)
class Place:
    """One worker of a submission."""

    submission: str
    index: int

    @property
    def worker(self) -> str:
        return f"{self.submission}-{self.index}"


@dataclass
class Order:
    """One submission."""

    id: str
    count: int
    at: int
    sure: bool = False  # the platform said that it took it
    instances: dict[int, str] = field(default_factory=dict)
    over: dict[int, tuple[str, str, int]] = field(default_factory=dict)  # why no instance comes: kind, text, since
    tagged: set[int] = field(default_factory=set)
    gone_at: int | None = None  # nothing of it is shown any more, since

    @property
    def waiting(self) -> list[int]:
        return [index for index in range(self.count) if index not in self.instances and index not in self.over]


class Roster:
    """What is on record. Changed in memory, kept by `Record`."""

    def __init__(self, orders: Iterable[Order] = (), strays: Iterable[str] = ()) -> None:
        self.orders = {order.id: order for order in orders}
        self.strays = set(strays)
        self._places = {
            instance: Place(order.id, index)
            for order in self.orders.values()
            for index, instance in order.instances.items()
        }

    def place_of(self, instance: str) -> Place | None:
        return self._places.get(instance)

    def knows(self, instance: str) -> bool:
        return instance in self._places or instance in self.strays

    def order_of(self, worker: str) -> tuple[Order, int] | None:
        """Of a worker's id, whether an instance has come or not."""
        name, _, number = worker.rpartition("-")
        order = self.orders.get(name)
        if order is None or not (number.isascii() and number.isdecimal()) or str(int(number)) != number:
            return None
        return (order, int(number)) if int(number) < order.count else None

    def put(self, place: Place, instance: str) -> None:
        self.orders[place.submission].instances[place.index] = instance
        self._places[instance] = place
        self.strays.discard(instance)

    def waiting(self) -> list[Place]:
        """Places without an instance: those that the platform took for certain first, then the longest waiting."""
        orders = sorted(self.orders.values(), key=lambda order: (not order.sure, order.at, order.id))
        return [Place(order.id, index) for order in orders for index in order.waiting]

    def recover(self, instances: Iterable[Instance]) -> None:
        """What tags say, for instances that are not on record."""
        for one in instances:
            if self.knows(one.id) or not one.submission or one.index is None:
                continue
            order = self.orders.setdefault(one.submission, Order(one.submission, 0, one.launched_at, True))
            if one.index in order.instances:
                continue
            missing = range(order.count, one.index)
            order.over.update(dict.fromkeys(missing, ("", "it is on no record", one.launched_at)))
            order.count = max(order.count, one.index + 1)
            order.over.pop(one.index, None)
            self.put(Place(order.id, one.index), one.id)
            order.tagged.add(one.index)

    def correlate(self, fresh: Sequence[str]) -> None:
        """Instances that are not on record yet, oldest first: each takes a place, or is a stray."""
        waiting = self.waiting()
        fresh = [instance for instance in fresh if not self.knows(instance)]
        for place, instance in zip(waiting, fresh, strict=False):
            self.put(place, instance)
        self.strays.update(fresh[len(waiting) :])

    def give_up(self, places: Iterable[Place], kind: str, text: str, now: int) -> None:
        for place in places:
            self.orders[place.submission].over[place.index] = (kind, text, now)

    def prune(self, shown: set[str], now: int) -> None:
        """Forgets what has not been shown for long."""
        for order in list(self.orders.values()):
            there = order.waiting or shown.intersection(order.instances.values())
            order.gone_at = None if there else order.gone_at or now
            if order.gone_at is not None and now - order.gone_at > FORGET_MS:
                self.remove(order.id)
        self.strays &= shown

    def remove(self, submission: str) -> None:
        order = self.orders.pop(submission, None)
        for instance in order.instances.values() if order else ():
            self._places.pop(instance, None)

    # ------------------------------------------------ as text

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "strays": sorted(self.strays),
            "orders": [
                {
                    "id": order.id,
                    "count": order.count,
                    "at": order.at,
                    "sure": order.sure,
                    "instances": order.instances,
                    "over": order.over,
                    "tagged": sorted(order.tagged),
                    "gone_at": order.gone_at,
                }
                for order in self.orders.values()
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Roster":
        orders = (
            Order(
                one["id"],
                one["count"],
                one["at"],
                one["sure"],
                {int(index): instance for index, instance in one["instances"].items()},
                {int(index): (kind, text, since) for index, (kind, text, since) in one["over"].items()},
                set(one["tagged"]),
                one["gone_at"],
            )
            for one in data["orders"]
        )
        return cls(orders, data["strays"])


class Record:
    """The file. Read anew each time, because a manager before this one, or a command beside it, may have written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ec2-asg.json"
        self._lock = folder / "ec2-asg.lock"

    def read(self) -> Roster:
        """Raises OSError or ValueError: a record that cannot be read is not an empty one."""
        try:
            return Roster.from_json(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return Roster()
        except (KeyError, TypeError, AttributeError, ValueError) as spoilt:
            raise ValueError(f"{self._path} is spoilt: {spoilt}") from spoilt

    @contextmanager
    def changing(self) -> Iterator[Roster]:
        """What is on record, to be changed; written down at the end, and wherever `keep` is called."""
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            roster = self.read()
            before = json.dumps(roster.to_json())
            yield roster
            if json.dumps(roster.to_json()) != before:
                self.keep(roster)
        finally:
            os.close(handle)

    def keep(self, roster: Roster) -> None:
        new = self._path.with_suffix(".new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(roster.to_json(), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
