"""Hosts to log in to: a real sshd of OpenSSH for each, on loopback, in folders of its own, with faults to order.

A fault is a file that the next call to the host takes away: either ssh itself meets it before it has connected (`Match
exec` in its configuration), or the far side does (`ForceCommand`).
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

SSHD = next((path for path in ("/usr/sbin/sshd", shutil.which("sshd") or "") if path and os.access(path, os.X_OK)), "")
CLOSED_PORT = 1

# Takes one order of these kinds, the oldest first, and prints it. $1 the host's folder, then kinds.
_TAKE = """#!/bin/sh
folder=$1; shift
for kind in "$@"; do
    for order in "$folder/orders/$kind".*; do
        [ -e "$order" ] && mv "$order" "$folder/orders/.taken.$$" 2>/dev/null && { echo "$kind"; exit 0; }
    done
done
exit 1
"""

# What the far side runs instead of what it was asked to; $PPID is the connection's own sshd.
_FORCED = """#!/bin/sh
export HOME={home}
echo x >> {folder}/calls
for order in {folder}/orders/*; do break; done
[ -e "$order" ] || exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
case "$({take} {folder} cut-before cut-after hang garbage flood noise slow no-python stop)" in
cut-before) kill -KILL $PPID; exit ;;
cut-after) /bin/sh -c "$SSH_ORIGINAL_COMMAND" >/dev/null; kill -KILL $PPID; exit ;;
hang) kill -STOP $PPID; exit ;;
garbage) cat >/dev/null; echo '<html>'; printf 'wm-\\377\\n'; exit 0 ;;
flood) cat >/dev/null; exec head -c 10000000 /dev/zero ;;
noise) echo 'Welcome to {name}!'; echo 'wm-0123456789abcdef {{"answer": {{}}}}'; echo 'Last login: never' >&2 ;;
slow) sleep 2 ;;
no-python) echo 'wm-ssh: there is no Python 3.9 or newer here (looked for: python3)' >&2; exit 127 ;;
esac
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""

_SSHD_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {key}
PidFile none
AuthorizedKeysFile {authorized}
AuthenticationMethods publickey
StrictModes no
UsePAM no
PermitRootLogin yes
PrintMotd no
MaxStartups 100
MaxSessions 100
ForceCommand {forced}
"""

_SSH_CONFIG = """
Match originalhost {name}
    HostName 127.0.0.1
    Port {port}
    HostKeyAlias {name}
    User {user}
"""

_FAULTS_CONFIG = """
Match originalhost {name} exec "{take} {folder} refused"
    Port {closed}
Match originalhost {name} exec "{take} {folder} denied"
    Port {denying}
Match originalhost {name} exec "{take} {folder} strange-key"
    HostKeyAlias nobody-knows-me
"""


class SshHost:
    """One machine, as far as ssh can tell."""

    def __init__(self, site: "SshSite", name: str) -> None:
        self.name = name
        self.faults = ""
        self.folder = site.root / name
        self.home = self.folder / "home"
        for folder in (self.folder, self.home, self.folder / "orders"):
            folder.mkdir(mode=0o700)
        self.port, self.denying_port = free_port(), free_port()
        self.key = keypair(self.folder / "host_key")
        forced = script(
            self.folder / "forced", _FORCED.format(take=site.take, folder=self.folder, home=self.home, name=name)
        )
        self._listeners = {
            self.port: self._configured("sshd_config", self.port, site.authorized, forced),
            self.denying_port: self._configured("denying_config", self.denying_port, site.root / "nobody", forced),
        }
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def _configured(self, name: str, port: int, authorized: Path, forced: Path) -> Path:
        path = self.folder / name
        text = _SSHD_CONFIG.format(port=port, key=self.folder / "host_key", authorized=authorized, forced=forced)
        path.write_text(text)
        return path

    @property
    def known(self) -> str:
        return f"{self.name} {self.key}\n"

    def order(self, kind: str) -> None:
        (self.folder / "orders" / f"{kind}.{time.monotonic_ns()}").touch()
        if kind in ("refused", "denied", "strange-key"):
            (self.folder / "faults").write_text(self.faults)

    def calm(self) -> None:
        """No faults of the connection any more: asking for them costs every call two processes."""
        (self.folder / "faults").write_text("")

    def orders(self) -> list[str]:
        """Those that nobody has taken yet."""
        return [path.name for path in (self.folder / "orders").iterdir() if not path.name.startswith(".")]

    def calls(self) -> int:
        """How often something was run there."""
        path = self.folder / "calls"
        return len(path.read_text().split()) if path.exists() else 0

    def start(self) -> None:
        for port, config in self._listeners.items():
            log = (self.folder / "sshd.log").open("ab")
            with log:
                self._running[port] = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
        for port in self._listeners:
            wait_for_port(port)

    def stop(self) -> None:
        """All of sshd, at once; what it has started lives on, unless it hangs on the connection."""
        left = set(self._connections())
        for process in self._running.values():
            process.kill()
            process.wait()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._running.clear()

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """sshd and its connections."""
        for pid in [*self._connections(), *(process.pid for process in self._running.values())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def thaw(self) -> None:
        self.freeze(signal.SIGCONT)

    def _connections(self) -> Iterable[int]:
        """sshd's own processes only, not what runs in its sessions."""
        waiting = [process.pid for process in self._running.values()]
        while waiting:
            parent = waiting.pop()
            for pid in children(parent):
                if executable(pid) == os.path.realpath(SSHD):
                    waiting.append(pid)
                    yield pid


class SshSite:
    """Several hosts, one user, one key pair; `config` is what ssh is given."""

    def __init__(self, root: Path, names: Iterable[str] = ("alpha", "beta")) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it
        self.take = script(root / "take", _TAKE)
        self.authorized = root / "authorized_keys"
        self.authorized.write_text(keypair(root / "id") + "\n")
        self.hosts = {name: SshHost(self, name) for name in names}
        self.config = root / "ssh_config"
        self.known_hosts = root / "known hosts"
        self.known_hosts.write_text("".join(host.known for host in self.hosts.values()))
        faults = [f"Include {host.folder}/faults\n" for host in self.hosts.values()]
        self.config.write_text("".join([*faults, *map(self._config_of, self.hosts.values())]))
        for host in self.hosts.values():
            host.start()

    def _config_of(self, host: SshHost) -> str:
        values = {"name": host.name, "folder": host.folder, "port": host.port, "take": self.take}
        values |= {"closed": CLOSED_PORT, "denying": host.denying_port, "user": getpass.getuser()}
        host.faults = _FAULTS_CONFIG.format(**values)
        host.calm()
        return _SSH_CONFIG.format(**values)

    @property
    def options(self) -> dict[str, object]:
        """For the backend, beside `hosts`."""
        return {
            "identity-file": str(self.root / "id"),
            "ssh-config": str(self.config),
            "known-hosts": str(self.known_hosts),
        }

    def calls(self) -> int:
        return sum(host.calls() for host in self.hosts.values())

    def close(self) -> None:
        for host in self.hosts.values():
            host.thaw()
            host.stop()
        deadline = time.monotonic() + 20
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes of this test are left: {left}"
            time.sleep(0.02)

    def processes(self) -> list[int]:
        """Whatever carries a folder of this site in its command line or environment."""
        mark = os.fsencode(str(self.root))
        return [pid for pid in pids() if pid != os.getpid() and mark in read(pid, "cmdline") + read(pid, "environ")]


# ---------------------------------------------------------------- small things


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o700)
    return path


def keypair(path: Path) -> str:
    """Makes it; the public half without its comment."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.01)


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def read(pid: int, name: str) -> bytes:
    """Empty for what is gone, and for what is dead and waits for its parent."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def children(parent: int) -> list[int]:
    found = []
    for pid in pids():
        words = read(pid, "stat").rpartition(b")")[2].split()
        if len(words) > 1 and int(words[1]) == parent:
            found.append(pid)
    return found


def executable(pid: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/exe").readlink())
    return ""


if __name__ == "__main__":  # python -m tests.stand_ins.ssh FOLDER: hosts to try by hand, until Enter
    site = SshSite(Path(sys.argv[1]).absolute())
    print(f"ssh -F {site.config} -i {site.root}/id -o UserKnownHostsFile='\"{site.known_hosts}\"' alpha true")
    sys.stdin.readline()
    site.close()
