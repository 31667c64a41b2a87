"""What others hold of a machine, and what that leaves. Reads the folder; changes nothing."""

from __future__ import annotations

from worker.machine.folder import Folder, Standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Sequence

    Asks = tuple[tuple[str, int], ...]


class Others:
    """What all but one see and hold. `everything`: somebody holds what nobody can tell."""

    def __init__(self) -> None:
        self.sees: dict[str, int] = {}  # the least that any of them sees
        self.holds: dict[str, int] = {}
        self.gpus: set[str] = set()
        self.everything = ""  # who, or why
        self.pids: dict[str, list[int]] = {}  # of those who live
        self.dead: list[str] = []

    @classmethod
    def of(cls, folder: Folder, name: str) -> Others:
        found = cls()
        try:
            names = folder.names()
        except OSError as error:
            found.everything = str(error)
            return found
        for each in names:
            if each != name:
                found._add(folder, each)
        return found

    def _add(self, folder: Folder, name: str) -> None:
        pids = folder.pids_of(name)
        if pids is None:
            self.dead.append(name)
            return
        standing = folder.standing(name)
        if standing is None:
            if folder.pids_of(name) is None:  # it went between the two looks
                self.dead.append(name)
                return
            self.everything = "what %s says cannot be read" % folder.file(name, "held")
        else:
            self._count(standing)
        self.pids[name] = pids

    def _count(self, standing: Standing) -> None:
        for amount, count in standing.sees.items():
            self.sees[amount] = min(count, self.sees.get(amount, count))
        for amount, count in standing.holds.items():
            self.holds[amount] = self.holds.get(amount, 0) + count
        self.gpus.update(standing.gpus)


class Part:
    """What one worker may use at most, and what it holds. The machine is what all who share it see of it."""

    def __init__(self, sees: Mapping[str, int], has: Mapping[str, int], gpus: Sequence[str]) -> None:
        self.sees = dict(sees)
        self.has = dict(has)
        self._ids = list(gpus)
        self.holds: dict[str, int] = {}
        self.gpus: list[str] = []

    def take(self, asks: Asks, gpus: Sequence[str]) -> None:
        for name, count in asks:
            self.holds[name] = self.holds.get(name, 0) + count
        self.gpus += gpus

    def give_back(self, asks: Asks, gpus: Sequence[str]) -> None:
        for name, count in asks:
            self.holds[name] -= count
        self.gpus = [each for each in self.gpus if each not in gpus]

    def lose_gpu(self, gpu: str) -> None:
        self._ids = [each for each in self._ids if each != gpu]

    def standing(self) -> Standing:
        return Standing(self.sees, {name: count for name, count in self.holds.items() if count}, tuple(self.gpus))

    def offer(self, others: Others) -> tuple[dict[str, int], list[str]]:
        """(what it may say that it has, its own jobs' included; the GPUs that nobody holds)."""
        free = [] if others.everything else self._free_gpus(others)
        amounts = {}
        for name, most in self.has.items():
            there = self.sees.get(name, most)
            left = min(there, others.sees.get(name, there)) - others.holds.get(name, 0)
            mine = self.holds.get(name, 0)
            if name == "gpus":
                left = mine + len(free)
            amounts[name] = max(mine, 0 if others.everything else min(most, left))
        return amounts, free

    def _free_gpus(self, others: Others) -> list[str]:
        """Whoever calls them by numbers, and others by their ids, cannot be told apart from one that holds the same."""
        if any(each.isdigit() != other.isdigit() for each in self._ids[:1] for other in others.gpus):
            return []
        return [each for each in self._ids if each not in others.gpus and each not in self.gpus]
