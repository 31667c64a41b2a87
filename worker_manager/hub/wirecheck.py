"""Checks of workers' messages by hand: an order of magnitude cheaper than models, and the same kind of error."""

import re
from typing import Any, cast

from worker.protocol import LARGEST
from worker_manager.hub.problems import invalid

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_MACHINE = re.compile(r"[a-z0-9]{0,64}", re.ASCII)
_MISSING = object()
_AMOUNTS = ("cpus", "memory", "gpus", "disk")


def is_label(text: str) -> bool:
    """A lowercase DNS label, as every id of ours is."""
    return _LABEL.fullmatch(text) is not None


class Fields:
    """Reads fields of one object and collects what is wrong, with its place. A wrong field reads as something harmless;
    `done` refuses the whole message."""

    __slots__ = ("_body", "_prefix", "mistakes")

    def __init__(self, body: dict[str, Any], prefix: str = "", mistakes: list[dict[str, str]] | None = None) -> None:
        self._body = body
        self._prefix = prefix
        self.mistakes = [] if mistakes is None else mistakes

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._body.get(name, default)
        if type(value) is int and 0 <= value <= LARGEST:
            return value
        self.refuse_if(name, True, "write a number that is not negative")
        return 0

    def integer_or_none(self, name: str) -> int | None:
        return None if self._body.get(name) is None else self.integer(name)

    def signed_or_none(self, name: str) -> int | None:
        value = self._body.get(name)
        self.refuse_if(name, value is not None and (type(value) is not int or abs(value) > LARGEST), "write a number")
        return cast("int | None", value)

    def words(self, name: str, longest: int) -> str:
        """For people, so cut to what is kept: a result is not lost because its sentence is too long."""
        return self.text(name, LARGEST, "")[:longest]

    def text(self, name: str, longest: int, default: object = _MISSING) -> str:
        value = self._body.get(name, default)
        if value is None and default is not _MISSING:
            value = default
        if not isinstance(value, str):
            self.refuse_if(name, True, "write a string")
            return ""
        self.refuse_if(name, len(value) > longest, f"it is longer than {longest} characters")
        if "\0" in value:
            self.refuse_if(name, default is _MISSING, "it holds a NUL character")
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return value

    def object(self, name: str, default: dict[str, Any]) -> dict[str, Any]:
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, dict):
            self.refuse_if(name, True, "write an object")
            return default
        return value

    def items(self, name: str) -> list[Any]:
        value = self._body.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse_if(name, True, "write a list")
            return []
        return value

    def refuse_if(self, name: str, wrong: bool, what: str) -> None:
        if wrong and len(self.mistakes) < 100:
            self.mistakes.append({"where": self._prefix + name, "what": what})

    def done(self) -> None:
        if self.mistakes:
            raise invalid(self.mistakes)


def shape_mistake(shape: Any) -> str | None:
    """What is wrong with a Shape on the wire; None when it can be read. Fields of a newer version are passed over."""
    if not isinstance(shape, dict):
        return "write an object"
    for name in _AMOUNTS:
        if not _is_amount(shape.get(name, 0)):
            return f"{name} is not a number of our units"
    if not (shape.get("walltime") is None or _is_amount(shape["walltime"])):
        return "walltime is neither a number of milliseconds nor null"
    if not isinstance(shape.get("gpu_type", ""), str) or len(shape.get("gpu_type", "")) > 200:
        return "gpu_type is not a short string"
    if not isinstance(shape.get("machine", ""), str) or not _MACHINE.fullmatch(shape.get("machine", "")):
        return "machine is not a short word of lowercase letters and digits"
    if not isinstance(shape.get("exclusive", False), bool):
        return "exclusive is neither true nor false"
    tags = shape.get("tags", [])
    if not isinstance(tags, list) or len(tags) > 1000 or not all(isinstance(t, str) and len(t) <= 200 for t in tags):
        return "tags is not a list of short strings"
    can = shape.get("can", [])
    if not isinstance(can, list) or len(can) > 100 or not all(isinstance(way, str) and len(way) <= 64 for way in can):
        return "can is not a list of short strings"
    custom = shape.get("custom", {})
    if not isinstance(custom, dict) or len(custom) > 1000 or not all(_is_amount(amount) for amount in custom.values()):
        return "custom is not an object of numbers"
    return None


def _is_amount(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST
