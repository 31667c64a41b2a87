"""YAML text → plain data, with the line of every part.

A configuration is small and says each thing once, so what only serves mischief or mistakes is refused: aliases
(a few lines can unfold into gigabytes), tags (`!!python/...` runs code in careless loaders), repeated keys (one of
the two is silently lost), great depth and great size.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from worker_manager.errors import ConfigError

Path = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_SCALAR_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}


@dataclass(frozen=True, slots=True)
class Document:
    name: str  # as the person named the file
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """`file:line` of this part, or of the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def read(text: str, name: str, max_bytes: int = MAX_BYTES) -> Document:
    """Raises ConfigError with every problem of form found."""
    if len(text.encode()) > max_bytes:
        raise ConfigError([f"{name}: larger than {max_bytes >> 20} MiB"])
    try:
        problems = list(_refused(text, name))
        if problems:
            raise ConfigError(problems)
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Path, int] = {}
            value = None if node is None else _Builder(loader, name, lines).build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(error, name)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{name}: {error}"]) from None
    return Document(name, value, lines)


def _refused(text: str, name: str) -> Iterator[str]:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            yield f"{name}:{line}: aliases (*{event.anchor}) are not accepted: write the value again"
        elif isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            yield f"{name}:{line}: tags ({event.tag}) are not accepted: write the plain value"  # type: ignore[attr-defined]
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                yield f"{name}:{line}: nested deeper than {MAX_DEPTH} levels"
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    def __init__(self, loader: Any, name: str, lines: dict[Path, int]) -> None:
        self._loader = loader
        self._name = name
        self._lines = lines

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, number)) for number, item in enumerate(node.value)]
        # A date or a merge key is only text to us.
        return self._loader.construct_object(node) if node.tag in _SCALAR_TAGS else node.value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError([f"{self._name}:{line}: a key must be a word"])
            key = key_node.value
            if key in built:
                first = self._lines[(*path, key)]
                raise ConfigError([f"{self._name}:{line}: {key} is set a second time (first in line {first})"])
            built[key] = self.build(value_node, (*path, key))
            self._lines[(*path, key)] = line
        return built


def _syntax(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    return f"{where}: not YAML: {error.problem or error.context}"
