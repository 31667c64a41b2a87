"""What a resolution starts from: everything that is not the schema itself, handed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backends.base import Option
from worker_manager.config.layers import SinglePool
from worker_manager.config.yaml_file import Document, Path


class Catalogue(Protocol):
    """What backends and laws there are; nothing of it is loaded before it is asked for."""

    def backends(self) -> Sequence[str]:
        """Canonical names."""

    def canonical(self, backend: str) -> str | None:
        """An alias resolved; None for a name nobody knows."""

    def options(self, backend: str) -> tuple[Option, ...]: ...

    def laws(self) -> Sequence[str]: ...

    def law_options(self, law: str) -> Sequence[str]:
        """What a law may be told; each is a whole number of at least 1."""


@dataclass(frozen=True, slots=True)
class Request:
    flags: Mapping[str, Any] = field(default_factory=dict)  # by key, only those that were given
    environment: Mapping[str, str] = field(default_factory=dict)
    document: Document | None = None
    single: SinglePool | None = None
    form: Mapping[Path, Any] = field(default_factory=dict)  # the defaults of this form of the command
    form_name: str = "default"
    needs_pools: bool = False  # the command is about pools, so a file without any is a mistake
