"""A stager that is killed at any step leaves nothing torn, nothing that stays for ever, and the next one goes on."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.tracing import injected
from tests.live_stager import LiveStager, StartStager, hub, start_stager
from tests.place import ROOT, until
from tests.stand_ins.file_hub import FileHub, digest_of
from worker.cache.store import Cache
from worker.channel import Channel
from worker.staging.messages import Cache as CacheNews
from worker.staging.messages import Collected

__all__ = ["hub", "start_stager"]
DATA = [os.urandom(300_000) for _ in range(3)]
OUTPUT = os.urandom(2_500_000)


def start_mortal(step: str) -> tuple[Channel, int]:
    ours, theirs = socket.socketpair()
    words = [
        sys.executable,
        "-c",
        f"import os, sys; os.dup2({theirs.fileno()}, 3); os.execv(sys.executable, sys.argv[1:])",
    ]
    argv = [*words, sys.executable, "-m", "tests.faults.mortal_stager", step]
    process = subprocess.Popen(argv, cwd=ROOT, pass_fds=[theirs.fileno()])
    theirs.close()
    process.returncode = 0  # it is reaped as any stager is
    return Channel(ours.detach()), process.pid


def work(stager: LiveStager, hub: FileHub, folder: Path) -> None:
    """Everything a stager does; it may be dead at any point of it. Nothing is waited for when it is."""
    one, two = (f"blob:{hub.add(data)}" for data in DATA[:2])
    stager.staged({"to": "x", "source": one}, {"to": "y", "source": one, "copy": True}, job="j1")
    stager.drop("j1")
    until(lambda: not stager.folder("j1").exists() or is_dead(stager), "its folder to be gone")
    stager.staged({"to": "x", "source": two}, job="j2")
    stager.collected(folder, {"glob": "out"}, job="j2")
    stager.drop("j2")
    until(lambda: not stager.folder("j2").exists() or is_dead(stager), "its folder to be gone")


def is_dead(stager: LiveStager) -> bool:
    try:
        return Path(f"/proc/{stager.pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def check(start: StartStager, hub: FileHub, folder: Path) -> None:
    """What the dead one left does no harm to the next one of the same agent, and goes."""
    stager = start(cache_quota=400_000)
    work(stager, hub, folder)
    assert hub.blobs[digest_of(OUTPUT)] == OUTPUT
    cache = Cache(str(stager.cache_dir), "checker")
    for found in list(cache.entries.all()):
        assert cache.scrub(found.scope, found.key), f"{found.key} is torn"
    assert stager.end() == 0
    cache.tidy()
    for name in ("pins", "building", "alive"):
        assert [path.name for path in (stager.cache_dir / name).iterdir()] == [cache.place.worker]
    assert not list((stager.cache_dir / "trash").iterdir())
    assert not list((stager.cache_dir / "claims").iterdir())
    assert not list(stager.work_dir.iterdir())
    assert all(digest_of(data) == sha256 for sha256, data in hub.blobs.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "aside"
    made.mkdir()
    (made / "out").write_bytes(OUTPUT)
    return made


@pytest.mark.parametrize("step", ["fetched", "pinned", "built", "published", "put-aside", "in-trash"])
def test_killed_at_each_step_of_the_cache(start_stager: StartStager, hub: FileHub, folder: Path, step: str) -> None:
    mortal = start_stager(cache_quota=400_000, start=lambda: start_mortal(step))
    with pytest.raises(AssertionError, match="the stager is gone"):
        work(mortal, hub, folder)
    assert mortal.reap() == -signal.SIGKILL, f"{step} was not reached"
    check(start_stager, hub, folder)


@pytest.mark.parametrize(
    "call",
    [
        "mkdir",
        "symlink",
        "link",
        "rename",
        "chmod",
        "recvfrom:when=3",
        "sendto:when=2",
        "preadv,preadv2:when=2",
        "unlink:when=2",
        "unlinkat",
        "rmdir",
        "copy_file_range",
        "newfstatat:when=20",
    ],
)
def test_killed_at_a_system_call(start_stager: StartStager, hub: FileHub, folder: Path, call: str) -> None:
    mortal = start_stager(cache_quota=400_000)
    mortal.hear(CacheNews)  # it is up
    calls, _, when = call.partition(":")
    with injected(mortal.pid, f"{calls}:signal=SIGKILL" + (f":{when}" if when else "")):
        try:
            work(mortal, hub, folder)
        except AssertionError as error:
            assert "the stager is gone" in str(error)
        else:
            pytest.fail(f"{call} was not reached")
    check(start_stager, hub, folder)


def test_killed_while_it_collects_it_goes_on_where_it_was(
    start_stager: StartStager, hub: FileHub, folder: Path
) -> None:
    first = start_stager()

    def half(request: object) -> None:
        hub.partial[digest_of(OUTPUT)] = bytearray(request.rfile.read(1_000_000))  # type: ignore[attr-defined]
        os.kill(first.pid, signal.SIGKILL)

    hub.faults["patch"] = [half]
    first.collect(folder, {"glob": "out"})
    until(lambda: is_dead(first), "its death")
    first.reap()
    second = start_stager()
    said = second.collected(folder, {"glob": "out"})
    assert isinstance(said, Collected) and hub.blobs[digest_of(OUTPUT)] == OUTPUT
