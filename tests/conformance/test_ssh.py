"""The ssh backend passes the suite, on real hosts of its own: OpenSSH's sshd on loopback."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import Backend, Context
from backends.ssh import CAPABILITIES, SshBackend
from tests import needs
from tests.conformance.adopter import Adopter, Behaviour, Fault
from tests.conformance.suite import Conformance
from tests.place import alive
from tests.stand_ins.ssh import SshSite, children, pids, read
from worker_manager.clock import SystemClock

_NAME = "conformance-worker"

# $1 what it says, $2 its exit status or nothing, $3 deaf or nothing, $4 what it does to its own records.
_SCRIPT = """
if [ "$3" = deaf ]; then trap '' TERM; else trap 'kill -KILL $!; exit 0' TERM; fi
[ "$4" != spoils ] || echo nonsense > "$WM_WORKER_DIR/process"
if [ "$4" = vanishes ]; then rm -r "${WM_WORKER_DIR%/*}"; kill -KILL $PPID $$; fi
[ -z "$1" ] || printf '%s\\n' "$1"
[ -z "$2" ] || exit "$2"
sleep 600 &
wait
"""

_BY_COMMAND = {Fault.DIES_AT_BOOT: "", Fault.STRANGE_STATE: "spoils", Fault.VANISHES: "vanishes"}
# What the next call meets, and what every host's next call meets.
_ONE_CALL = {
    Fault.TIMED_OUT_BEFORE: "cut-before",
    Fault.TIMED_OUT_AFTER: "cut-after",
    Fault.LAUNCH_HANGS: "hang",
    Fault.END_HANGS: "hang",
    Fault.END_TIMED_OUT_AFTER: "cut-after",
}
_EVERY_HOST = {
    Fault.DENIED: "denied",
    Fault.EXPIRED: "denied",
    Fault.UNREADABLE: "refused",
    Fault.MISCONFIGURED: "strange-key",
    Fault.GARBAGE: "garbage",
    Fault.LIST_HANGS: "hang",
}
_FAULTS = frozenset({*_BY_COMMAND, *_ONE_CALL, *_EVERY_HOST, Fault.REFUSED, Fault.PAGE_LOST})


class SshAdopter(Adopter):
    def __init__(self, site: SshSite, root: Path, hosts: int) -> None:
        super().__init__(CAPABILITIES, _FAULTS)
        self.hosts = list(site.hosts.values())[:hosts]
        self.site = site
        self.root = root
        self.remote = str(root / "remote")
        self.hosts_file = root / "hosts"
        self.write_hosts(slots=200)
        self.ordered: Fault | None = None
        self.made: list[SshBackend] = []

    def write_hosts(self, slots: int) -> None:
        self.hosts_file.write_text("".join(f"{host.name} slots={slots}\n" for host in self.hosts))

    def backend(self, manager: str = "wm-a", pool: str = "pool", call_timeout_s: float | None = None) -> Backend:
        timeout = 30.0 if call_timeout_s is None else max(4.0, call_timeout_s)  # a connection takes its time
        folder = self.root / "state" / manager / pool
        context = Context(manager, pool, str(folder), SystemClock().now_ms, timeout)
        options: dict[str, Any] = {**self.site.options, "hosts-file": str(self.hosts_file), "remote-dir": self.remote}
        made = registry.load("ssh").create({**options, "retry": 100}, context)
        assert isinstance(made, SshBackend)
        self.made.append(made)
        return made

    def command(self, behaviour: Behaviour) -> tuple[str, ...]:
        does = _BY_COMMAND.get(self.ordered, "") if self.ordered else ""
        dies = self.ordered is Fault.DIES_AT_BOOT
        exits = "9" if dies else "" if behaviour.exits is None else str(behaviour.exits)
        self.ordered = None
        return ("/bin/sh", "-c", _SCRIPT, _NAME, behaviour.says, exits, "deaf" if behaviour.deaf else "", does)

    def inject(self, fault: Fault) -> None:
        hosts = self.hosts
        if fault in _BY_COMMAND:
            self.ordered = fault
        elif fault is Fault.REFUSED:
            self.write_hosts(slots=0)
        elif fault is Fault.PAGE_LOST:
            hosts[0].order("cut-before")
        elif fault in _EVERY_HOST:
            for host in hosts:
                host.order(_EVERY_HOST[fault])
        else:
            hosts[0].order(_ONE_CALL[fault])
        if _EVERY_HOST.get(fault) in ("denied", "refused", "strange-key"):  # met by new connections only
            self.hang_up()

    def hang_up(self) -> None:
        for backend in self.made:
            backend.close()

    def close(self) -> None:
        self.hang_up()
        mark = os.fsencode(self.remote)
        deadline = time.monotonic() + 20
        while left := [pid for pid in pids() if mark in read(pid, "environ")]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for host in self.hosts:
            assert not host.orders(), "an order that nobody met"
            host.calm()

    # ------------------------------------------------ through /proc

    def alive(self, handle: str) -> bool:
        return bool(self._processes(handle))

    def token(self, handle: str) -> str:
        path = Path(self.environment(handle)["WM_JOIN_TOKEN_FILE"])
        assert path.stat().st_mode & 0o777 == 0o600
        for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
            assert folder.stat().st_mode & 0o777 == 0o700
        return path.read_text()

    def environment(self, handle: str) -> Mapping[str, str]:
        words = read(self._worker(handle), "environ").decode().split("\0")
        return dict(word.split("=", 1) for word in words if word)

    def argv(self, handle: str) -> tuple[str, ...]:
        return tuple(read(self._worker(handle), "cmdline").decode().split("\0")[:-1])

    def exposed(self, handle: str) -> str:
        mine = self._processes(handle)
        return "".join((read(pid, "cmdline") + read(pid, "environ")).decode() for pid in mine)

    def _processes(self, handle: str) -> set[int]:
        mark = f"WM_WORKER={handle.partition('@')[0]}\0".encode()
        return {pid for pid in pids() if mark in read(pid, "environ") and alive(pid)}

    def _worker(self, handle: str) -> int:
        """Not what it has forked, which looks the same until it becomes something else."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            alike = {
                pid for pid in self._processes(handle) if read(pid, "cmdline").split(b"\0")[3:4] == [_NAME.encode()]
            }
            forked = {child for pid in alike for child in children(pid)}
            if eldest := alike - forked:
                return min(eldest)
        raise AssertionError(f"{handle} did not start")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshSite]:
    needs.sshd()
    site = SshSite(tmp_path_factory.mktemp("ssh") / "site")
    yield site
    site.close()


class TestSsh(Conformance):
    @pytest.fixture
    def adopter(self, site: SshSite, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Adopter]:
        """One host, which is quicker, but where it takes two to see something."""
        two = any(word in request.node.name for word in ("page", "batch", "several", "two_hundred", "refusal"))
        adopter = SshAdopter(site, tmp_path, 2 if two else 1)
        yield adopter
        adopter.close()
