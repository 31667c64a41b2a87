"""The hosts of one pool: which there are now, what is known of them, and calls to several at once."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from backends.base import BackendUnusable, Context
from backends.ssh.answers import Report, Trouble
from backends.ssh.hosts import BadHost, Host, from_key, lines, parse
from backends.ssh.line import Line
from backends.ssh.recipe import place
from backends.ssh.state import LONGEST_MS, Aside, State

T = TypeVar("T")


class Pool:
    def __init__(self, options: Mapping[str, Any], context: Context, line: Line) -> None:
        self.options = options
        self.context = context
        self.line = line
        self.state = State(Path(context.state_dir).absolute())
        self.last: dict[str, tuple[int, Report]] = {}  # when a host was listed, and what it said
        self.live: dict[str, int] = {}  # workers there, as far as is known
        self._file: Path | None = Path(options["hosts-file"]) if options["hosts-file"] else None
        self._file_read: tuple[int, tuple[Host, ...]] | None = None
        self._named = parse(options["hosts"], options["slots"])
        if not self.hosts():
            raise BadHost("name at least one host: hosts: [gpu1:4], or a hosts-file")

    # ------------------------------------------------ which hosts

    def hosts(self) -> tuple[Host, ...]:
        """Those configured. The file is read again when it changes; while it makes no sense the last good one counts.
        Raises BadHost when there has been none."""
        if self._file is None:
            return self._named
        try:
            written = self._file.stat().st_mtime_ns
            if self._file_read is None or self._file_read[0] != written:
                entries = [*self.options["hosts"], *lines(self._file.read_text(encoding="utf-8"))]
                self._file_read = written, parse(entries, self.options["slots"])
        except (OSError, UnicodeDecodeError, BadHost) as wrong:
            if self._file_read is None:
                raise BadHost(f"{self._file}: {getattr(wrong, 'strerror', None) or wrong}") from wrong
        return self._file_read[1]

    def all_hosts(self) -> dict[str, Host]:
        """With those that are no longer configured but may still have workers; without those that are gone for ever."""
        known = {host.key: host for host in self.hosts()}
        for placement in self.state.placements().values():
            for key in placement.hosts:
                left = None if key in known else from_key(key)
                if left:
                    known[key] = left
        return {key: host for key, host in known.items() if not host.gone}

    def aside(self, key: str) -> Aside | None:
        """Why it is left alone now, if it is."""
        aside = self.state.host(key).aside
        left = aside.until - self.context.now_ms() if aside else 0
        return aside if 0 < left <= max(LONGEST_MS, self.options["retry"]) else None  # a clock may be set back

    def free(self) -> dict[str, int]:
        """Slots that are free as far as is known, of hosts that are not set aside."""
        return {
            host.key: max(0, host.slots - self.live.get(host.key, 0))
            for host in self.hosts()
            if not host.gone and not self.aside(host.key)
        }

    def may_hold(self, key: str) -> bool:
        """Whether a worker may be there that cannot be seen now. Unknown is never zero."""
        at, report = self.last.get(key, (0, None))
        if report is None:
            if not self.state.host(key).listed:
                return True
        elif report.live:
            return True
        return any(
            placement.at >= at and (key in placement.hosts or not placement.at)
            for placement in self.state.placements().values()
        )

    # ------------------------------------------------ calls

    def deadline(self) -> float:
        """A little early: a call that was given up has to be tidied up as well."""
        return time.monotonic() + 0.9 * self.context.call_timeout_s

    def call(self, host: Host, request: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Raises Trouble."""
        where = place(self.options["remote-dir"], host.key, self.context.manager, self.context.pool)
        return self.line.call(host, {**where, "keep_ms": self.options["keep-ended"], **request}, deadline)

    def each(self, hosts: Iterable[Host], work: Callable[[Host], T]) -> dict[str, T | Trouble]:
        """The work on every host, several at once. One that fails stops none of the others."""

        def safely(host: Host) -> T | Trouble:
            try:
                return work(host)
            except Trouble as trouble:
                return trouble

        chosen = list(hosts)
        if len(chosen) <= 1:
            return {host.key: safely(host) for host in chosen}
        with ThreadPoolExecutor(min(len(chosen), self.options["parallel"]), "ssh") as threads:
            done = list(threads.map(safely, chosen))
        return {host.key: result for host, result in zip(chosen, done, strict=True)}

    def failed(self, key: str, trouble: Trouble, by: str) -> None:
        """It is set aside. By the host itself, where that is what refused."""
        by = "host" if trouble.more else by
        self.state.set_aside(key, trouble.kind, trouble.text, self.context.now_ms(), self.options["retry"], by)


def made(options: Mapping[str, Any], context: Context, line: Line) -> Pool:
    """Raises BackendUnusable."""
    try:
        return Pool(options, context, line)
    except BadHost as wrong:
        raise BackendUnusable(str(wrong)) from wrong
    except OSError as failed:
        raise BackendUnusable(f"the state folder {context.state_dir} cannot be used: {failed.strerror}") from failed
