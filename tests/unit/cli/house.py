"""A command line in a made-up world: no network, no environment of ours, and a hub that answers what it is told to."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from click.testing import CliRunner

from worker_manager.cli.main import run
from worker_manager.cli.world import World
from worker_manager.config.settings import Settings
from worker_manager.hub_client import Stream

NOW = 1_700_000_000_000


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    body: Any = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeHub:
    """Answers by (method, path), in order; the last answer is repeated. An exception is raised."""

    def __init__(self, answers: Mapping[tuple[str, str], Any] | None = None) -> None:
        self.answers = {
            key: list(value) if isinstance(value, list) else [value] for key, value in (answers or {}).items()
        }
        self.asked: list[Asked] = []
        self.url = "http://hub"

    def request(
        self, method: str, path: str, *, json: Any = None, params: Any = None, headers: Any = None, **_: Any
    ) -> Any:
        known = {name: value for name, value in (params or {}).items() if value is not None}
        self.asked.append(Asked(method, path, json, known, headers or {}))
        waiting = self.answers[method, path]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any, **options: Any) -> Any:
        return self.request("POST", path, json=json, **options)

    @contextmanager
    def stream(self, path: str, *, params: Any = None, **_: Any) -> Iterator[Stream]:
        body, headers = self.request("GET", path, params=params)
        yield Stream(headers, iter([body]))


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str


@dataclass
class House:
    hub: FakeHub = field(default_factory=FakeHub)
    environment: Mapping[str, str] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    settings: list[Settings] = field(default_factory=list)

    def run(self, *words: str, stdin: str | None = None) -> Result:
        """The whole way that the entry point takes, its exit code included."""

        def connect(settings: Settings) -> FakeHub:
            self.settings.append(settings)
            return self.hub

        world = World(
            environment={"HOME": "/nowhere", **self.environment},
            connect=connect,
            now_ms=lambda: NOW,
            sleep=self.slept.append,
            terminal=lambda: False,
        )
        with CliRunner().isolation(input=stdin) as (out, err, _):
            code = run(words, world)
            sys.stdout.flush()
            return Result(code, out.getvalue().decode(), err.getvalue().decode())

    def ok(self, *words: str, stdin: str | None = None) -> str:
        result = self.run(*words, stdin=stdin)
        assert result.code == 0, result
        return result.stdout

    def refused(self, *words: str, stdin: str | None = None) -> str:
        """What is told when it does not work."""
        result = self.run(*words, stdin=stdin)
        assert result.code != 0
        assert result.stdout == ""
        return result.stderr


def lines(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.splitlines()]
