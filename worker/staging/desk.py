"""What every task of the stager needs, in one place."""

import time
from typing import Any, Callable, Dict, Set, Tuple

from worker.link.address import Endpoint
from worker.staging.attempts import Attempt
from worker.staging.errors import BrokeOff, Distrusted, Stopped
from worker.staging.grants import Book, Hub
from worker.staging.house import House
from worker.staging.http import Patience, Wait
from worker.staging.lanes import Lanes
from worker.staging.lines import TIMEOUT_S, Lines
from worker.staging.messages import EACH, LONG_PATIENCE, PARALLEL, PATIENCE, Note, Said, Setup
from worker.staging.sources import Means


class Desk:
    def __init__(self, setup: Setup, house: House, say: Callable[[Said], None]) -> None:
        server = Endpoint(*setup["server"])
        self.setup = setup
        self._noted: Set[str] = set()
        self.house = house
        self.say = say
        self.each = setup.get("each") or EACH
        self.lanes = Lanes(setup.get("parallel") or PARALLEL, self.each)
        timeout_s = setup.get("timeout_s") or TIMEOUT_S
        self.lines = Lines(server, setup.get("env") or {}, timeout_s)
        self.hub = Hub(server, setup["worker"], setup["credential"], setup["session"], timeout_s)
        self.patience = _patience(setup.get("patience") or PATIENCE)
        self.long_patience = _patience(setup.get("long_patience") or LONG_PATIENCE)

    def put(self, attempt: Attempt, act: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
        """To be done when it is its turn, unless nobody waits for the attempt any more."""

        def task() -> None:
            try:
                attempt.stop.check()
                act()
            except Stopped:
                pass
            except BaseException as error:
                fail(error)

        self.lanes.put(attempt, task)

    def wait(self, attempt: Attempt) -> Wait:
        """A pause in which another has the lane, and people hear what it is for."""

        def wait(seconds: float, why: str) -> None:
            attempt.trouble = why
            with self.lanes.rest(attempt):
                attempt.stop.wait(seconds)

        return wait

    def ask(
        self,
        attempt: Attempt,
        what: Dict[str, Any],
        read: "Callable[[Dict[str, Any]], _T]",
        patience: Patience,
        *also: type,
    ) -> "_T":
        """The hub, for addresses, and what `read` makes of its answer; with patience, also with who is not the hub
        where that is in `also`."""
        failures = 0
        while True:
            try:
                return read(self.hub.ask(attempt.job, attempt.epoch, what, attempt.stop))
            except (BrokeOff, Distrusted) as error:
                if isinstance(error, Distrusted):
                    self.note_once(str(error))
                failures += 1
                if failures >= patience.tries or not isinstance(error, (BrokeOff, *also)):
                    raise
                self.wait(attempt)(patience.pause(failures, getattr(error, "after_s", 0.0)), str(error))

    def note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.say(Note(text))

    def means(self, attempt: Attempt, owner: str) -> Means:
        book = Book(lambda what, read: self.ask(attempt, what, read, self.patience), utc_ms)
        paths = self.setup.get("input_paths") or []
        return Means(self.lines, book, attempt.stop, self.wait(attempt), self.patience, paths, owner)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")


def utc_ms() -> int:
    return time.time_ns() // 1_000_000


def _patience(told: "Tuple[float, ...] | list[float]") -> Patience:
    return Patience(int(told[0]), float(told[1]), float(told[2]))
