"""The example of the documentation, installed as a package of others would be, passes the same suite."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from backends import registry
from backends.base import Backend, Context
from tests.conformance.adopter import Adopter, Behaviour, Fault, NotHere
from tests.conformance.suite import Conformance
from worker_manager.clock import ManualClock

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an installer leaves behind: the metadata of a package beside its module."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "ticket_example-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ticket-example\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[worker_manager.backends]\nticket = ticket_backend\n")
    added = [str(site), str(EXAMPLES)]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


class TicketAdopter(Adopter):
    """Plays the other side: time that passes is a round of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            registry.load("ticket").capabilities,
            frozenset({Fault.UNREADABLE, Fault.PAGE_LOST, Fault.SLOW_BOOT, Fault.DIES_AT_BOOT, Fault.MISCONFIGURED}),
            has_shell=False,
        )
        self.folder = folder
        self.one_round = Lock()
        self.spoilt: list[Path] = []
        self.texts: list[str] = []
        self.slow = False
        self.dies = False
        for name in ("new", "running", "done", "secret", "stop", "log"):
            (folder / name).mkdir()

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        context = Context(manager, pool, str(self.folder), ManualClock().now_ms, call_timeout_s or 30.0)
        kind = registry.load("ticket")
        return kind.create(kind.read({"folder": str(self.folder)}), context)

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        exits = 9 if self.dies else behaviour.exits
        self.dies = False
        return ("worker", behaviour.says, "" if exits is None else str(exits))

    def inject(self, fault: Fault) -> None:
        if fault is Fault.UNREADABLE:
            (self.folder / "running").rename(self.folder / "taken-away")
        if fault is Fault.MISCONFIGURED:
            (self.folder / "secret").rmdir()
        if fault is Fault.PAGE_LOST:
            self.spoilt = sorted((self.folder / "running").iterdir())[:1]
            self.texts = [path.read_text() for path in self.spoilt]
            for path in self.spoilt:
                path.write_text("{")
        self.slow |= fault is Fault.SLOW_BOOT
        self.dies |= fault is Fault.DIES_AT_BOOT

    def let_boot(self) -> None:
        self.slow = False

    def pause(self) -> None:
        with self.one_round:
            while self.spoilt:
                self.spoilt.pop().write_text(self.texts.pop())
            self._round()

    def _round(self) -> None:
        for path in [] if self.slow else sorted((self.folder / "new").iterdir()):
            _, says, _ = self._ticket(path)["command"][:3]
            (self.folder / "log" / path.name).write_text(f"{says}\n")
            path.rename(self.folder / "running" / path.name)
        for path in sorted((self.folder / "running").iterdir()):
            exits = self._ticket(path)["command"][2]
            if exits or (self.folder / "stop" / path.name).exists():
                path.write_text(json.dumps(self._ticket(path) | {"exit_code": int(exits or 137)}))
                path.rename(self.folder / "done" / path.name)

    def close(self) -> None:
        pass

    def alive(self, handle: str) -> bool:
        return (self.folder / "running" / handle).exists()

    def token(self, handle: str) -> str:
        return Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"]).read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        return dict(self._ticket(self.folder / "running" / handle)["environment"])

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(self._ticket(self.folder / "running" / handle)["command"])

    def exposed(self, handle: str) -> str:
        tickets = [self.folder / name / handle for name in ("new", "running", "done")]
        found = [path.read_text() for path in tickets if path.exists()]
        if not found:
            raise NotHere("its ticket is gone")
        return "".join(found)

    @staticmethod
    def _ticket(path: Path) -> dict[str, Any]:
        return dict(json.loads(path.read_text()))


class TestTicket(Conformance):
    @pytest.fixture
    def adopter(self, tmp_path: Path) -> Iterator[Adopter]:
        yield TicketAdopter(tmp_path)


@pytest.mark.parametrize("spoilt", ["", "{", "[]", '"text"', "{}", "null"])
def test_a_ticket_that_nobody_can_read_makes_the_list_incomplete(tmp_path: Path, spoilt: str) -> None:
    adopter = TicketAdopter(tmp_path)
    (tmp_path / "running" / "somebody").write_text(spoilt)
    listing = adopter.backend().list()
    assert (listing.seen, listing.complete) == ((), False)


def test_a_backend_of_others_is_listed_and_its_package_named() -> None:
    found = {usable.name: usable for usable in registry.usable()}
    assert found["ticket"].ok
    assert "ticket-example" in found["ticket"].summary
    assert "ticket" in registry.names()


def test_a_backend_of_others_says_what_it_needs() -> None:
    with pytest.raises(registry.BackendUnusable, match="folder: is required"):
        registry.load("ticket").read({})
