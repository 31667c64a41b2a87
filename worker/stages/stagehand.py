"""The agent's handle on its stager: begun with the first job that has files, begun again when it dies.

What the stager is told of the hub goes by its channel: no secret is in an argument or a variable.
"""

import os
import signal
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from worker.isolation.sandbox import first_closed
from worker.processes import boot_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.channel import Channel
    from worker.link.address import Endpoint
    from worker.options import Options
    from worker.staging.messages import Message, Said, Setup

PART_OF_DISK = 4  # the cache takes a quarter of it, where nothing else was said
LOOK_S = 5.0
PAUSE_S = 0.002
LAST_BREATH_MS = 200  # of one that has closed its channel: time to end by itself, so that we hear how


class StagerDied(Exception):
    """It is gone, and with it whatever it was doing."""


class Place(NamedTuple):
    """Where files of jobs go, as the options say."""

    work_dir: str
    cache_dir: str  # "": no cache
    cache_quota: Optional[int]
    input_paths: Tuple[str, ...]
    transfers: Optional[int]  # None: the stager's default


def ways(options: "Options") -> Tuple[str, ...]:
    """For the worker's shape.can."""
    return ("inputs", "outputs", "paths") if options.input_paths else ("inputs", "outputs")


def place_of(options: "Options", work_dir: str) -> Tuple[Place, str]:
    """And why there is no cache, where one was wanted; "" else. `work_dir`: the worker's own folder."""
    place = Place(work_dir, "", options.cache_size, options.input_paths, options.transfers)
    if not options.cache:
        return place, ""
    folder = options.cache_dir or _default_cache(work_dir, options.delete_work_dir)
    try:
        disk, closed = _in_time(lambda: _made(folder)) if options.cache_dir else _look_above(folder)
    except OSError as error:
        return place, "%s cannot be used: %s" % (folder, error.strerror or error)
    if closed and options.job_user != "none":
        return place, "others cannot enter %s, so no job of another user could read what is in %s" % (closed, folder)
    quota = disk // PART_OF_DISK if options.cache_size is None else options.cache_size
    return place._replace(cache_dir=folder, cache_quota=quota), ""


def _made(folder: str) -> Tuple[int, str]:
    """Sandboxes can only hide what is there."""
    os.makedirs(folder, 0o700, exist_ok=True)
    return _look_above(folder)


def _look_above(folder: str) -> Tuple[int, str]:
    """The bytes of its disk, and what above it others cannot enter."""
    above = os.path.dirname(folder)
    disk = os.statvfs(folder if os.path.isdir(folder) else above)
    return disk.f_blocks * disk.f_frsize, first_closed(above)


def _in_time(look: Callable[[], Tuple[int, str]]) -> Tuple[int, str]:
    """On a file server that is away it would take for ever."""
    import threading

    found: List[Union[Tuple[int, str], OSError]] = []

    def run() -> None:
        try:
            found.append(look())
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LOOK_S)
    answer = found[0] if found else OSError("it does not answer")
    if isinstance(answer, OSError):
        raise answer
    return answer


def _default_cache(work_dir: str, goes_with_it: bool) -> str:
    """Beside the workers' own folders, so that all of this user with the same --work-dir share it."""
    if goes_with_it:
        return os.path.join(work_dir, "cache")
    return os.path.join(os.path.dirname(work_dir), "cache-%d" % os.geteuid())


def put_leftovers_aside(work_dir: str, jobs: str) -> None:
    """What an earlier agent's stager had put together: it goes with what its keeper left."""
    staged, trash = os.path.join(work_dir, "staged"), os.path.join(jobs, "trash")
    if os.path.isdir(staged):
        os.makedirs(trash, 0o700, exist_ok=True)
        os.rename(staged, os.path.join(trash, "staged-" + os.urandom(4).hex()))


class Hub(NamedTuple):
    """Whom the stager asks for addresses, and as whom."""

    server: "Endpoint"
    worker: str
    credential: str
    session: int


class Stagehand:
    """Not for several threads at once. Nothing here blocks but `close`."""

    def __init__(self, hub: Hub, place: Place, env: Mapping[str, str], numbers: Callable[[], str] = str) -> None:
        """`numbers`: which list the users of jobs have their numbers from; asked when one is begun."""
        self._numbers = numbers
        self._hub = hub
        self._place = place
        self._env = env
        self._cache_name = ""
        self._counts: Dict[str, int] = {}
        self._channel: "Optional[Channel]" = None
        self._trouble = ""
        self.pid = 0

    def tell(self, message: "Message", held: Callable[[], Sequence[Sequence[Any]]] = list) -> None:
        """It is begun when there is none; `held` tells the attempts whose inputs are in use then."""
        self.begin(held)
        if self._channel is not None:
            self._channel.send([message])

    def begin(self, held: Callable[[], Sequence[Sequence[Any]]]) -> None:
        """Unless it runs. When none can be begun it has `failed`."""
        if self._channel is not None:
            return
        from worker.staging import messages, starting

        self._cache_name = self._cache_name or messages.cache_name(self._hub.worker)
        try:
            setup = messages.setup(self._hub.server, self._setup(held()))
            self._channel, self.pid = starting.start()
        except OSError as error:
            self._trouble = "a stager could not be started: %s" % error
        else:
            self._channel.send([setup])

    @property
    def failed(self) -> bool:
        """`read` will say so."""
        return bool(self._trouble)

    def _setup(self, held: Sequence[Sequence[Any]]) -> "Setup":
        from worker.staging.messages import AUTHORITIES, PROXIES

        wanted = {*PROXIES, *map(str.upper, PROXIES), *AUTHORITIES}
        told: "Setup" = {
            "worker": self._hub.worker,
            "credential": self._hub.credential,
            "session": self._hub.session,
            "work_dir": self._place.work_dir,
            "cache_dir": self._place.cache_dir,
            "cache_quota": self._place.cache_quota,
            "cache_name": self._cache_name,
            "agent": os.getpid(),
            "numbers": self._numbers(),
            "input_paths": list(self._place.input_paths),
            "env": {name: value for name, value in self._env.items() if name in wanted},
            "held": [list(each) for each in held],
            "counts": self._counts,
        }
        if self._place.transfers is not None:
            told["parallel"] = self._place.transfers
        return told

    def fileno(self) -> int:
        """-1 while there is none."""
        return -1 if self._channel is None else self._channel.fd

    def read(self) -> "List[Said]":
        """What it said since the last call. Raises StagerDied once everything that still came has been returned."""
        from worker.staging import messages

        if self._channel is None:
            trouble, self._trouble = self._trouble, ""
            if trouble:
                raise StagerDied(trouble)
            return []
        said = [messages.decode(message) for message in self._channel.receive()]
        for each in said:
            if isinstance(each, messages.Cache):
                self._counts = each.news.get("counts") or self._counts
        if not said and self._channel.closed:
            raise StagerDied(self._leave(LAST_BREATH_MS))
        return said

    def flush(self) -> bool:
        """Send what waits here; False when some still does."""
        return self._channel is None or self._channel.flush()

    def let_go(self) -> None:
        """Its channel goes: it takes that for the end. Nothing may be told any more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _leave(self, wait_ms: int) -> str:
        """How it ended."""
        self.let_go()
        status = self._reap(wait_ms)
        if os.WIFSIGNALED(status):
            return "the stager was ended by signal %d" % os.WTERMSIG(status)
        return "the stager ended with exit status %d; its messages are in the agent's output" % os.WEXITSTATUS(status)

    def _reap(self, wait_ms: int) -> int:
        until = boot_ms() + wait_ms
        while self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return status
            if boot_ms() >= until:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(PAUSE_S)
        return 0

    def close(self, wait_ms: int = 5000) -> None:
        """It is gone when this returns. May be repeated."""
        self._leave(wait_ms)
