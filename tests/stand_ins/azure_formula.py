"""An interpreter of autoscale formulas, as far as ours go: assignments, arithmetic, `?:`, samples of $PendingTasks.

It knows the functions of the vendor's page that we use, and no others; a part of a node is no node.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

TARGETS = ("$TargetDedicatedNodes", "$TargetLowPriorityNodes", "$NodeDeallocationOption")
_DEALLOCATION = ("requeue", "terminate", "taskcompletion", "retaineddata")
_NAME = re.compile(r"\$?[A-Za-z_]\w*")


class BadFormula(Exception):
    pass


class Samples:
    """One service-defined variable: a value each half minute, the oldest first; `percent` of them are there."""

    def __init__(self, values: Sequence[float], percent: float) -> None:
        self.values, self.percent = list(values), percent

    def GetSample(self, span: float, *_: float) -> list[float]:
        count = 1 if span == 1 else max(1, int(span * 2))
        found = self.values[-count:]
        if not found:
            raise BadFormula("there is no sample")
        return found

    def GetSamplePercent(self, span: float) -> float:
        return self.percent


def _flat(arguments: Sequence[Any]) -> list[float]:
    return [one for part in arguments for one in (part if isinstance(part, list) else [part])]


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "max": lambda *a: max(_flat(a)),
    "min": lambda *a: min(_flat(a)),
    "avg": lambda *a: sum(_flat(a)) / len(_flat(a)),
}


def evaluate(formula: str, pending: Sequence[float], percent: float = 100.0) -> dict[str, Any]:
    """The values of every variable. Raises BadFormula."""
    known: dict[str, Any] = {"$PendingTasks": Samples(pending, percent), "TimeInterval_Minute": 1.0}
    known |= {word: word for word in _DEALLOCATION}
    text = "\n".join(line.partition("//")[0] for line in formula.splitlines())
    *statements, rest = text.split(";")
    if rest.strip():
        raise BadFormula(f"no semicolon after {rest.strip()!r}")
    for statement in statements:
        name, sign, expression = (part.strip() for part in statement.partition("="))
        if not sign or not _NAME.fullmatch(name):
            raise BadFormula(f"{statement.strip()!r} assigns nothing")
        if name.startswith("$") and name not in TARGETS:
            raise BadFormula(f"{name} cannot be set")
        known[name] = _value(expression, known)
    if not set(TARGETS[:2]) & known.keys():
        raise BadFormula("it says no number of nodes")
    whole = {name: math.floor(known[name]) for name in TARGETS[:2] if name in known}
    return {name: value for name, value in known.items() if not isinstance(value, Samples)} | whole


def _value(expression: str, known: Mapping[str, Any]) -> Any:
    condition, mark, rest = expression.partition("?")
    if mark:
        yes, colon, no = rest.partition(":")
        if not colon:
            raise BadFormula(f"{expression!r} has no colon")
        return _value(yes if _value(condition, known) else no, known)
    names = {name: f"v{number}" for number, name in enumerate(sorted(known, key=len, reverse=True))}
    python = _NAME.sub(lambda word: names.get(word[0], word[0]), expression)
    scope = {names[name]: value for name, value in known.items()} | dict(_FUNCTIONS)
    try:
        return eval(python, {"__builtins__": {}}, scope)  # noqa: S307 -- formulas of ours, in tests
    except (NameError, SyntaxError, TypeError, ZeroDivisionError, AttributeError) as wrong:
        raise BadFormula(f"{expression!r}: {wrong}") from wrong
