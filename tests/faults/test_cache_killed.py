"""Workers that share a cache die at any step: no entry is torn, none is lost for ever, and nothing is left behind."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.cache_worker import content, fill, key
from worker.cache.store import Cache

PROGRAM = [sys.executable, "-m", "tests.faults.cache_worker"]
ROOT = Path(__file__).resolve().parents[2]


def start(*words: object) -> "subprocess.Popen[str]":
    argv = [*PROGRAM, *map(str, words)]
    return subprocess.Popen(argv, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("step", ["fetched", "pinned", "built", "published", "put-aside", "in-trash"])
def test_killed_at_each_step(tmp_path: Path, step: str) -> None:
    dead = start(tmp_path, "dead", "die", step)
    out, err = dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL, f"{step} was not reached: {out}{err}"
    cache = Cache(str(tmp_path), "alive", quota=len(content(1)))
    pin = cache.get(key(1), lambda path: fill(path, 1))
    assert Path(pin.path).read_bytes() == content(1)
    cache.tidy()
    for folder in ("pins", "building", "alive"):
        assert [path.name for path in (tmp_path / folder).iterdir()] == [cache.place.worker]
    assert not list((tmp_path / "trash").iterdir())
    assert not list((tmp_path / "claims").iterdir())
    pin.release()
    cache.get(
        key(2), lambda path: fill(path, 2)
    ).release()  # too large for the cache, so it stays only while it is used
    cache.tidy()
    assert list(cache.entries.all()) == [], "what the dead one pinned keeps nothing any more"


def storm(folder: Path, seconds: float, seed: int) -> list[str]:
    """Workers at work in a cache that is far too small, killed and started again at random; what they said of it."""
    chance = random.Random(seed)  # noqa: S311
    names = [f"w{number}" for number in range(4)]
    quota = 5 * len(content(3))

    def begin(name: str) -> "subprocess.Popen[str]":
        return start(folder, name, "work", chance.randrange(10**6), seconds, 24, quota)

    running = {name: begin(name) for name in names}
    said = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = chance.choice(names)
        time.sleep(chance.random() * 0.4)
        running[name].kill()
        said.append(running[name].communicate(timeout=60)[1])
        running[name] = begin(name)
    for one in running.values():
        out, err = one.communicate(timeout=120)
        said.append(err)
        assert one.returncode == 0, err + out
    return said


def check(folder: Path) -> None:
    cache = Cache(str(folder), "checker", quota=1)
    cache.tidy()
    for found in list(cache.entries.all()):
        assert cache.scrub(found.scope, found.key), f"{found.key} is torn"
    cache.room.make(0)
    assert list(cache.entries.all()) == [], "something that nobody uses cannot be evicted"
    assert not list((folder / "trash").iterdir())
    assert not list((folder / "claims").iterdir())
    assert [path.name for path in (folder / "pins").iterdir()] == [cache.place.worker]


def test_a_storm_of_deaths(tmp_path: Path) -> None:
    said = storm(tmp_path, 4, 20_26)
    assert not any(said), "\n".join(filter(None, said))
    check(tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_many_storms(tmp_path: Path, seed: int) -> None:
    said = storm(tmp_path, 30, seed)
    assert not any(said), "\n".join(filter(None, said))
    check(tmp_path)
