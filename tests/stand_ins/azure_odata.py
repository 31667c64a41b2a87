"""The filters of Azure Batch listings, as far as they are used: comparisons, startswith, and, or, parentheses."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

_WORDS = re.compile(r"\s*(?:(DateTime)?'((?:[^']|'')*)'|([A-Za-z][\w/]*)|(-?\d+)|([(),]))")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: bool(a == b),
    "ne": lambda a, b: bool(a != b),
    "ge": lambda a, b: a is not None and a >= b,
    "gt": lambda a, b: a is not None and a > b,
    "le": lambda a, b: a is not None and a <= b,
    "lt": lambda a, b: a is not None and a < b,
}

# What may be filtered by, from the vendor's page on OData filters.
TASKS = ("id", "state", "stateTransitionTime", "executionInfo/exitCode", "executionInfo/startTime")
NODES = ("state", "stateTransitionTime")
COUNTS = ("poolId",)
FILES = ("name",)


class BadFilter(Exception):
    pass


def compiled(text: str, allowed: tuple[str, ...]) -> Test:
    if not text:
        return lambda row: True
    parser = _Parser(text, allowed)
    test = parser.either()
    if parser.words:
        raise BadFilter(f"what is {parser.words[0]}?")
    return test


class _Parser:
    def __init__(self, text: str, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed
        self.words: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            found = _WORDS.match(text, place)
            if not found:
                raise BadFilter(f"cannot read {text[place:]!r}")
            place = found.end()
            if found[2] is not None:
                self.words.append(("text", found[2].replace("''", "'")))
            else:
                kind = "name" if found[3] else "number" if found[4] else "mark"
                self.words.append((kind, found[3] or found[4] or found[5]))

    def either(self) -> Test:
        test = self.both()
        while self.words[:1] == [("name", "or")]:
            self.words.pop(0)
            test = self._or(test, self.both())
        return test

    def both(self) -> Test:
        test = self.one()
        while self.words[:1] == [("name", "and")]:
            self.words.pop(0)
            test = self._and(test, self.one())
        return test

    @staticmethod
    def _or(left: Test, right: Test) -> Test:
        return lambda row: left(row) or right(row)

    @staticmethod
    def _and(left: Test, right: Test) -> Test:
        return lambda row: left(row) and right(row)

    def one(self) -> Test:
        if self.words[:1] == [("mark", "(")]:
            self.take("mark", "(")
            test = self.either()
            self.take("mark", ")")
            return test
        if self.words[:1] == [("name", "startswith")]:
            self.take("name", "startswith")
            self.take("mark", "(")
            column = self.column()
            self.take("mark", ",")
            start = self.take("text")
            self.take("mark", ")")
            return lambda row: str(value(row, column) or "").startswith(start)
        column = self.column()
        compare = _COMPARE.get(self.take("name"))
        if compare is None:
            raise BadFilter("no such comparison")
        kind, word = self.words.pop(0) if self.words else ("", "")
        if kind not in ("text", "number"):
            raise BadFilter("no value to compare with")
        wanted: Any = int(word) if kind == "number" else word
        return lambda row: compare(value(row, column), wanted)

    def column(self) -> str:
        name = self.take("name")
        if name not in self.allowed:
            raise BadFilter(f"cannot filter by {name}")
        return name

    def take(self, kind: str, word: str = "") -> str:
        if not self.words or self.words[0][0] != kind or (word and self.words[0][1] != word):
            raise BadFilter(f"expected {word or kind} at {self.words[:1]}")
        return self.words.pop(0)[1]


def value(row: Any, path: str) -> Any:
    for name in path.split("/"):
        row = (row or {}).get(name)
    return row
