"""The backends and laws that are installed, for `resolve`. Modules are loaded when they are asked about."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from backends import registry
from backends.base import Option


class Installed:
    def backends(self) -> Sequence[str]:
        return registry.names()

    def canonical(self, backend: str) -> str | None:
        try:
            return registry.find(backend)[0]
        except registry.UnknownBackend:
            return None

    def options(self, backend: str) -> tuple[Option, ...]:
        return registry.load(backend).options

    def laws(self) -> Sequence[str]:
        """One file for each law; a new one needs no list."""
        spec = find_spec("worker_manager.policy.laws")
        folders = spec.submodule_search_locations if spec else None
        files = [file.stem for folder in folders or () for file in Path(folder).glob("*.py")]
        return sorted(name for name in files if not name.startswith("_") and name != "base")
