"""Backends and laws for the tests of the configuration: made up, so that they do not change under them."""

from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Option
from worker_manager.config.layers import SinglePool
from worker_manager.config.request import Request
from worker_manager.config.resolve import resolve
from worker_manager.config.settings import Settings
from worker_manager.config.yaml_file import read

OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "local": (Option("python", help="which Python"), Option("keep", "duration", 60_000)),
    "cloud": (
        Option("queue-name", required=True, help="the queue"),
        Option("auth-token", secret=True),
        Option("size", choices=("small", "large")),
        Option("spot", "bool", False),
        Option("zones", "list", ()),
    ),
}


class Made:
    def backends(self) -> Sequence[str]:
        return sorted(OPTIONS)

    def canonical(self, backend: str) -> str | None:
        backend = {"cloud-batch": "cloud"}.get(backend, backend)
        return backend if backend in OPTIONS else None

    def options(self, backend: str) -> tuple[Option, ...]:
        return OPTIONS[backend]

    def laws(self) -> Sequence[str]:
        return ["pack", "step", "idle"]

    def law_options(self, law: str) -> Sequence[str]:
        return {"idle": ["idle-workers"]}.get(law, [])


def settings_of(
    text: str | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    single: SinglePool | None = None,
    form: Mapping[Any, Any] | None = None,
) -> Settings:
    document = None if text is None else read(text, "pools.yaml")
    request = Request(
        flags or {},
        {"HOME": "/home/ada", **(environment or {})},
        document,
        single,
        form or {},
        "single pool",
        bool(text),
    )
    return resolve(request, Made())
