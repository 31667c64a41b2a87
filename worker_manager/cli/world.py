"""What a command is handed: the flags that were given, the environment, and the ways to the outside.

Tests hand in a World of their own; nothing below reads `os.environ` or opens a connection by itself.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from worker_manager.config.layers import SinglePool
    from worker_manager.config.settings import Settings
    from worker_manager.hub_client import HubClient

R = TypeVar("R")
API_VERSION = "worker-manager/v1"


def _connect(settings: "Settings") -> "HubClient":
    from worker_manager.hub_access import client_of

    return client_of(settings)


@dataclass(frozen=True)
class World:
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    connect: Callable[["Settings"], Any] = _connect  # → HubClient
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    sleep: Callable[[float], None] = time.sleep
    terminal: Callable[[], bool] = lambda: sys.stdout.isatty()
    watched: Callable[[], bool] = lambda: sys.stderr.isatty()
    argv: tuple[str, ...] = ()  # to begin anew with


@dataclass(frozen=True)
class Invocation:
    """One command line, its global part read."""

    world: World
    flags: Mapping[str, Any] = field(default_factory=dict)  # of config.flags, by key, only those given
    config: Path | None = None
    once: bool = False
    dry_run: bool = False
    detailed_exitcode: bool = False
    verbose: bool = False
    color: str = "auto"
    log_format: str = "auto"

    def plus(self, **local: Any) -> "Invocation":
        """With what a command was given itself: connection flags, and the mode of a run."""
        own = {name: local.pop(name) for name in ("once", "dry_run", "detailed_exitcode") if local.get(name)}
        if local.get("config") is not None:
            own["config"] = local.pop("config")
        given = {name: value for name, value in local.items() if value is not None}
        return replace(self, flags={**self.flags, **given}, **own)

    def settings(
        self,
        *,
        single: "SinglePool | None" = None,
        form: Mapping[Any, Any] | None = None,
        form_name: str = "default",
        needs_pools: bool = False,
    ) -> "Settings":
        from worker_manager.config.catalogue import Installed
        from worker_manager.config.request import Request
        from worker_manager.config.resolve import resolve

        document = self.document(must_exist=needs_pools)
        request = Request(self.flags, self.world.environment, document, single, form or {}, form_name, needs_pools)
        return resolve(request, Installed())

    def document(self, must_exist: bool = False) -> Any:
        """The configuration file: the one named, else the user's, else the machine's."""
        from worker_manager.config.yaml_file import read
        from worker_manager.errors import UsageError

        named = self.config or self.world.environment.get("WORKER_MANAGER_CONFIG")
        candidates = [Path(named)] if named else default_files(self.world.environment)
        for path in candidates:
            try:
                return read(path.read_text(), str(path))
            except FileNotFoundError:
                if named:
                    raise UsageError(f"there is no file {path}") from None
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if must_exist:
            looked = ", ".join(str(path) for path in candidates)
            raise UsageError(f"name a configuration with -c FILE (there is none at {looked})")
        return None

    def client(self) -> "HubClient":
        client: HubClient = self.world.connect(self.settings())
        return client

    @property
    def colored(self) -> bool:
        """`--color`, else NO_COLOR (no-color.org), else whether a terminal reads."""
        if self.color != "auto":
            return self.color == "always"
        return not self.world.environment.get("NO_COLOR") and self.world.terminal()

    @property
    def width(self) -> int | None:
        """Of the terminal that reads; None where none does: there a line is as long as it is."""
        return shutil.get_terminal_size().columns if self.world.terminal() else None

    @property
    def error_width(self) -> int:
        return shutil.get_terminal_size().columns

    def say(self, text: str) -> None:
        """For the person: stderr, never mixed with data."""
        click.echo(text, err=True)

    def confirm(self, question: str, yes: bool) -> None:
        """Off a terminal nobody can answer, so there `--yes` has to be given."""
        from worker_manager.errors import UsageError

        if yes:
            return
        if not (self.world.terminal() and sys.stdin.isatty()):
            raise UsageError(f"{question} Nobody can be asked here: say --yes")
        click.confirm(question, abort=True, err=True)


def default_files(environment: Mapping[str, str]) -> list[Path]:
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or "~").expanduser() / ".config")
    return [Path(home) / "worker-manager" / "config.yaml", Path("/etc/worker-manager/config.yaml")]


def takes_invocation(command: Callable[..., R]) -> Callable[..., R]:
    """The command's first argument is the Invocation; everything else comes by name."""
    return click.pass_obj(command)
