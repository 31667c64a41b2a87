"""Workers behind cables: each in a network namespace of its own, joined to this machine by a pair of virtual
interfaces. A cable can be pulled, and can lose all that goes one way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.place import ROOT

Agent = subprocess.Popen[bytes]


def call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


@dataclass
class Cable:
    """To the namespace of this name."""

    name: str
    near: str  # our address on it, the same for all of them
    far: str

    def lay(self) -> None:
        ours, theirs = f"{self.name}-a", f"{self.name}-b"
        call("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name)
        call("ip", "addr", "add", self.near, "peer", self.far, "dev", ours)
        call("ip", "link", "set", ours, "up")
        call("ip", "-n", self.name, "link", "set", "lo", "up")
        call("ip", "-n", self.name, "addr", "add", self.far, "peer", self.near, "dev", theirs)
        self.plug()

    def pull(self) -> None:
        call("ip", "-n", self.name, "link", "set", f"{self.name}-b", "down")

    def plug(self) -> None:
        call("ip", "-n", self.name, "link", "set", f"{self.name}-b", "up")

    def lose(self, direction: str) -> None:
        """`INPUT`: what the hub says; `OUTPUT`: what the worker says."""
        call("ip", "netns", "exec", self.name, "iptables", "-A", direction, "-j", "DROP")

    def cut(self, direction: str = "") -> None:
        """In one direction, or pulled out."""
        if direction:
            self.lose(direction)
        else:
            self.pull()

    def mend(self) -> None:
        call("ip", "netns", "exec", self.name, "iptables", "-F")


@dataclass
class Cables:
    folder: Path
    stack: ExitStack
    near: str  # our address on all of them
    workers: dict[str, Agent] = field(default_factory=dict)

    def lay(self) -> Cable:
        """Another one."""
        at = len(self.workers) + 2
        cable = Cable(f"wm{os.getpid()}-{at}", self.near, f"{self.near.rpartition('.')[0]}.{at}")
        subprocess.run(["ip", "netns", "del", cable.name], capture_output=True)  # of a killed run with our number
        call("ip", "netns", "add", cable.name)
        self.stack.callback(call, "ip", "netns", "del", cable.name)  # its interfaces go with it
        cable.lay()
        return cable

    def worker(self, url: str, fingerprint: str, secret: str, name: str, *flags: str) -> Cable:
        """At the end of a new one."""
        cable = self.lay()
        token = self.folder / f"{name}.token"
        token.write_text(secret)
        token.chmod(0o600)
        argv = ["ip", "netns", "exec", cable.name, sys.executable, "-m", "worker", "--server", url]
        argv += ["--ca-fingerprint", f"sha256:{fingerprint}", "--token-file", str(token), "--worker-id", name]
        argv += ["--work-dir", str(self.folder / "work"), "--log-format", "json", "--notices", "off", *flags]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        with self.log(name).open("wb") as log:
            self.workers[name] = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=log)
        self.stack.callback(end, self.workers[name])
        return cable

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str, event: str) -> list[dict[str, Any]]:
        """By the worker of this name."""
        lines = [json.loads(line) for line in self.log(name).read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


def end(process: Agent) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@contextmanager
def cables(folder: Path) -> Iterator[Cables]:
    """Those laid are gone afterwards, with the workers at their ends."""
    with ExitStack() as stack:
        yield Cables(folder, stack, an_address(stack))


def an_address(stack: ExitStack) -> str:
    """One of this machine that nobody had before."""
    for number in range(250):
        address = f"10.231.{(os.getpid() + number) % 250}.1"
        if subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True).returncode == 0:
            stack.callback(call, "ip", "addr", "del", f"{address}/32", "dev", "lo")
            return address
    raise RuntimeError("no address could be had")
