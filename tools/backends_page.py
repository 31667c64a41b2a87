"""Writes docs/backends/README.md from what the backends say of themselves: `python -m tools.backends_page`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backends import registry
from backends.base import Capabilities

PAGE = Path(__file__).resolve().parents[1] / "docs" / "backends" / "README.md"

HEAD = """\
# Backends

Where workers begin and end. The tables are written by `python -m tools.backends_page` from what each backend says of
itself; a test keeps them up to date.

Begin with the page of yours. The command is always the same:

```console
$ worker-manager --max-workers 8 slurm --partition cpu --cpus 4
```

| Backend | A worker is | Tried against |
|---|---|---|
"""

SECOND = """
## What the platforms promise

| Backend | Workers in one call | The join token travels in | Asked to end | Forced | An end is believed when |
|---|---|---|---|---|---|
"""

TAIL = """
A join token serves for one registration of one worker, and is worthless afterwards. No long-lived secret reaches a
worker. A worker that is asked to end hands back its jobs first: its hub has drained it before, and its platform
leaves it the time that stands there. `worker-manager delete worker ID --force` gives its jobs back at once and ends
it the other way.

## The same for all

**Workers on other machines have to reach the hub.** Say where that is, once; without it nothing is started:

```console
$ worker-manager --advertise-url https://login1.example:8443 --max-workers 8 slurm --partition cpu
```

The hub then listens on port 8443 of every interface, with an authority of its own, and each launch carries that
authority's fingerprint: nothing has to be copied to the nodes. `--server URL` uses a hub that runs elsewhere instead.
A hub that runs already keeps its address until `worker-manager hub stop`. Jobs stay; workers that run at that moment
lose it and end. `http://127.0.0.1:PORT` is accepted too, for trying things out.

**Nothing has to be installed on the nodes** but a POSIX shell and Python 3.9 or newer: the worker fetches the agent,
one file, from the hub, and holds it against the digest that its launch named.

**Look before.** `doctor` and `render` take the same words as the command itself:

```console
$ worker-manager doctor slurm --partition cpu --cpus 4
$ worker-manager render slurm --partition cpu --cpus 4 --count 3
$ worker-manager doctor --try-launch slurm --partition cpu
```

`doctor` tries credentials, rights, names and sizes, and says what mends a trouble. With `--try-launch` it also starts
one worker, waits until it has registered, and ends it: with a manager and a pool of its own, so nothing else is
touched. `render` prints exactly what would be sent, secrets masked, and needs no hub. Both read a configuration as
well (`-c FILE`).

**At night.** `worker-manager explain pool NAME` has the platform's own words: why a launch was refused, what it says
of workers that wait, and the last lines of those that never registered. `worker-manager logs worker ID` shows up to
64 KiB of what a worker wrote, of those that never registered also when the platform has forgotten them. [Why is it
not scaling?](../how-to/why-is-it-not-scaling.md) explains every reason.

**How fast.** `make bench NAME=backends` launches, lists and ends workers with each backend and counts the calls.

A backend of your own: [write a backend](../how-to/write-a-backend.md).
"""


@dataclass(frozen=True)
class Words:
    """What no capability says."""

    worker: str
    tried: str
    asked: str
    forced: str


STAND_IN = "a stand-in with real HTTP and real processes"
WORDS = {
    "aws-batch": Words(
        "a job, or one of an array job",
        f"the official SDK and {STAND_IN} (moto); not AWS itself",
        "SIGTERM; killed after 30 s",
        "the same: Batch knows no other end",
    ),
    "azure-batch": Words(
        "a task of a job",
        f"the official SDK and {STAND_IN}; not Azure itself",
        "the hub drains it; Azure itself kills",
        "the task is ended at once",
    ),
    "ec2-asg": Words(
        "an instance of an Auto Scaling group",
        f"the official SDK and {STAND_IN} (moto); not AWS itself",
        "the instance ends, after its worker was told",
        "EC2 ends the instance without a shutdown",
    ),
    "kubernetes": Words(
        "a Job with one pod",
        f"a real API server and Job controller with a node that is played; {STAND_IN}",
        "the pod's grace period",
        "a grace period of one second",
    ),
    "local": Words("a process of this machine", "real processes", "SIGTERM", "SIGKILL to all it started"),
    "slurm": Words(
        "a job, or one of a job array",
        "a real cluster: slurmctld, slurmd, munge, slurmdbd",
        "SIGTERM to the worker",
        "scancel: SIGTERM to all of it, SIGKILL after Slurm's KillWait",
    ),
    "ssh": Words(
        "a process on a host",
        "real sshd of OpenSSH",
        "SIGTERM",
        "SIGKILL to all it started",
    ),
}
SECRETS = {
    "file": "a file of mode 0600",
    "platform": "the platform's secret",
    "environment": "the job's environment: the platform has nothing better",
    "none": "none: the platform vouches for the machine",
}
PAGES = {"local": "../quickstart.md"}


def text() -> str:
    return HEAD + "".join(_first()) + SECOND + "".join(_second()) + TAIL


def names() -> list[str]:
    """Those for real machines; `memory` is for trying out."""
    return [name for name in sorted(registry.BACKENDS) if name != "memory"]


def _first() -> Iterator[str]:
    for name in names():
        yield f"| {_link(name)} | {WORDS[name].worker} | {WORDS[name].tried} |\n"


def _second() -> Iterator[str]:
    for name in names():
        can, words = registry.load(name).capabilities, WORDS[name]
        cells = (_link(name), f"{can.max_batch:,}", SECRETS[can.secrets], words.asked, words.forced, _believed(can))
        yield f"| {' | '.join(cells)} |\n"


def _believed(can: Capabilities) -> str:
    if not can.confirms_end:
        return "the worker's lease is over: the platform cannot be sure"
    return "the platform says so"


def _link(name: str) -> str:
    target = PAGES.get(name, f"{name}.md")
    return f"[{name}]({target})" if (PAGE.parent / target).exists() else name


if __name__ == "__main__":
    PAGE.write_text(text())
