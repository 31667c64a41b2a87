"""The backends and laws that are installed, for `resolve`. Modules are loaded when they are asked about."""

from collections.abc import Sequence

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
        from worker_manager.policy.laws import LAWS

        return sorted(LAWS)

    def law_options(self, law: str) -> Sequence[str]:
        from worker_manager.policy.laws import OPTIONS

        return sorted(OPTIONS[law])
