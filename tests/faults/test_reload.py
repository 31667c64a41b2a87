"""SIGHUP: a configuration that is wrong is refused aloud, one reason at a time, and the old one stays; a good one is
taken while workers work."""

import signal
import subprocess

from tests.faults.sites import Site
from tests.place import Place, until

POOL = """\
  - name: {name}
    backend: local
    max-workers: {workers}
    queues: [{name}]
    shape: {{cpus: 100m, memory: 64MiB}}
    limits: {{idle: 1s, stabilise: 0s}}
"""
HEAD = "version: 1\nmanager: {id: reloads, tick: 1s}\npools:\n"
BAD: dict[str, tuple[bytes, str]] = {
    "no YAML": (b"version: 1\npools: [", "pools.yaml:"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
    "nothing": (b"", "name a configuration|version|pools"),
    "a list": (b"- 1\n- 2\n", "write version: 1"),
    "no pools": (b"version: 1\npools: []\n", "pool"),
    "an unknown backend": (HEAD.encode() + b"  - {name: a, backend: abacus}\n", "abacus"),
    "an unknown key": (HEAD.encode() + b"  - {name: a, backend: local, colour: red}\n", "colour"),
    "a wrong value": (HEAD.encode() + b"  - {name: a, backend: local, max-workers: -1}\n", "max-workers"),
    "two of a name": ((HEAD + POOL.format(name="a", workers=1) * 2).encode(), "a"),
    "another manager": ((HEAD + POOL.format(name="a", workers=1)).replace("reloads", "other").encode(), "manager"),
    "somebody's object": (HEAD.encode() + b"  - !!python/object:os.system {}\n", "tag|!!python"),
}


def complaints(place: Place) -> list[str]:
    return [line for line in place.log.read_text().splitlines() if "the old one stays" in line]


def hang_up(place: Place, manager: "subprocess.Popen[bytes]", content: bytes | None) -> str:
    """What it says to this configuration; None: the file is gone."""
    file = place.state_dir.parent / "pools.yaml"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content)
    before = len(complaints(place))
    manager.send_signal(signal.SIGHUP)
    until(lambda: len(complaints(place)) > before, lambda: f"a complaint about {content!r}: {place.log.read_text()}")
    assert manager.poll() is None
    return " ".join(complaints(place)[before:])


def most(place: Place) -> dict[str, int]:
    return {pool["pool"]: pool["max_workers"] for pool in place.items("pools")}


def test_a_bad_configuration_is_refused_and_a_good_one_taken(place: Place) -> None:
    first, second = Site(place, "a"), Site(place, "b", workers=1)
    file = place.pools(HEAD + POOL.format(name="a", workers=1))
    manager = place.manage("run", "-c", file)
    job = first.submit()  # two tasks, for one of which there is a worker
    until(lambda: place.job(f"{job}-0")["state"] == "running", "the first task to run")
    for kind, (content, words) in BAD.items():
        said = hang_up(place, manager, content)
        assert any(word in said for word in words.split("|")), (kind, said)
    assert "there is no file" in hang_up(place, manager, None)
    assert most(place) == {"a": 1}
    assert place.job(f"{job}-1")["state"] == "queued"

    place.pools(HEAD + POOL.format(name="a", workers=2) + POOL.format(name="b", workers=1))
    manager.send_signal(signal.SIGHUP)
    until(lambda: place.said("the configuration was read again"), "the good one to be taken")
    until(lambda: most(place) == {"a": 2, "b": 1}, "the plan by it")
    other = second.submit()
    until(lambda: place.job(f"{job}-1")["state"] == "running", "the second task, on a second worker")
    until(lambda: place.job(f"{other}-0")["state"] == "running", "a job of the new pool")

    place.pools(HEAD + POOL.format(name="b", workers=1))
    manager.send_signal(signal.SIGHUP)
    until(lambda: len(place.workers("draining")) == 2, "the workers of the first pool to be drained")
    assert {place.job(f"{job}-{task}")["state"] for task in range(2)} == {"running"}, "their jobs go on"
    for site, name in ((first, job), (second, other)):
        site.gate.touch()
        place.reaches(name, "succeeded")
    assert [place.job(f"{job}-{task}")["attempt"] for task in range(2)] == [1, 1]
    until(lambda: not place.workers(), "all to leave")
    until(lambda: most(place) == {"b": 1}, "the first pool to be gone")
    assert manager.poll() is None
