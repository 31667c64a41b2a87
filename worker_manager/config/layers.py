"""Defaults < file < environment < flags, merged into one tree in which every leaf knows its origin.

A flag or variable that belongs to a pool sets it in every pool of this run: what is said on the command line is meant.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.base import Option
from worker_manager.config.flags import GLOBAL, SHAPE, Flag, variable
from worker_manager.config.settings import Origin
from worker_manager.config.yaml_file import Document, Path

Leaf = tuple[Path, Any, Origin]


@dataclass(frozen=True, slots=True)
class SinglePool:
    """The pool of `worker-manager [global options] BACKEND [options]`."""

    name: str
    backend: str
    given: Mapping[str, Any] = field(default_factory=dict)  # shape flags and backend options, by key


@dataclass
class Tree:
    value: dict[str, Any]
    origins: dict[Path, Origin]

    def put(self, path: Path, value: Any, origin: Origin) -> None:
        """Sets a leaf; whatever stood there, or below it, is forgotten."""
        node: Any = self.value
        for part in path[:-1]:
            if isinstance(node, dict) and not isinstance(node.get(part), dict | list):
                node[part] = {}
            node = node[part]
        node[path[-1]] = value
        self.origins = {place: o for place, o in self.origins.items() if place[: len(path)] != path}
        self.origins[path] = origin

    def origin(self, path: Path) -> Origin | None:
        """Of this part, or of the nearest part around it that somebody wrote."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return None


def from_file(document: Document | None) -> Tree:
    if document is None or not isinstance(document.value, dict):
        return Tree({}, {})
    tree = Tree({}, {})
    for path, value in leaves(document.value):
        tree.put(path, value, Origin("file", document.place(path)))
    return tree


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything that is no non-empty mapping; of lists, only that of the pools is opened."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif path == ("pools",) and isinstance(value, list):
        yield path, [{} if isinstance(part, dict) else part for part in value]
        for number, part in enumerate(value):
            if isinstance(part, dict):
                yield from leaves(part, (*path, number))
    else:
        yield path, value


def global_leaves(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Leaf]:
    """What environment and flags say, at `pool.…`, `manager.…` and `hub.…`; the stronger last."""
    for flag in GLOBAL:
        if flag.place and environment.get(flag.variable):
            yield flag.place, raw_value(flag, environment[flag.variable]), Origin("environment", flag.variable)
    for flag in GLOBAL:
        if flag.place and flag.key in flags:
            yield flag.place, raw_value(flag, flags[flag.key]), Origin("flag", f"--{flag.name}")


def backend_leaves(
    backend: str, options: Iterable[Option], given: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[Leaf]:
    """The same for one backend's own options and the shape that stands beside them."""
    places: list[Flag] = [*SHAPE]
    shaped = {flag.name for flag in SHAPE}
    places += [
        Flag(option.name, ("pool", "options", option.name), "") for option in options if option.name not in shaped
    ]
    for flag in places:
        name = variable(backend, flag.name)
        if environment.get(name):
            yield flag.place, raw_value(flag, environment[name]), Origin("environment", name)
    for flag in places:
        if flag.key in given:
            yield flag.place, raw_value(flag, given[flag.key]), Origin("flag", f"--{flag.name}")


def pool_defaults(defaults: Tree, form: Mapping[Path, Any], form_name: str) -> Iterator[Leaf]:
    """What a pool starts from: the form of the command, then the file's `defaults`."""
    for path, value in form.items():
        yield path, value, Origin("default", form_name)
    for path, value in leaves(defaults.value.get("defaults")):
        if path:
            yield ("pool", *path), value, defaults.origin(("defaults", *path)) or Origin("file", "defaults")


def raw_value(flag: Flag, value: Any) -> Any:
    """CodaLab's amounts in our units: its megabytes and its `10g` are powers of two."""
    if flag.kind == "mib":
        return f"{value}MiB"
    if flag.kind == "size" and (found := re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt])", str(value))):
        return f"{found.group(1)}{found.group(2).upper()}iB"
    return value
