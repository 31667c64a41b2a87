"""The shared cache: eight workers that want the same 1 GiB at once, against one `cp` of it; and how fast it finds what
it has.

Rounds take turns with what they are held against. What is written to disk is what the kernel charges to the processes.
"""

import hashlib
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench.report import Row, against
from tools.bench.web import Web, serving
from worker.cache import digests
from worker.cache.store import Cache
from worker.staging.http import Source, fetch

SIZE = 2**30
WANTERS = 8
ROUNDS = 3
ENTRIES = 10_000
READERS = 16
SECONDS = 3.0

_FORK = multiprocessing.get_context("fork")


def run() -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="wm-bench-", dir="/var/tmp"))
    try:
        return [*same_input(folder), *hits(folder / "hits")]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- one input, many wanters


def same_input(folder: Path) -> list[Row]:
    file = folder / "input"
    digest = random_file(file, SIZE)
    took, copied, alone, written, downloads, sent = [], [], [], [], [], []
    with serving(file) as web:
        for number in range(ROUNDS):
            copied.append(timed(lambda: subprocess.run(["cp", file, folder / "copy"], check=True)))
            alone.append(timed(lambda: download(web, folder / "alone")))
            for name in ("copy", "alone"):
                (folder / name).unlink()
            before = web.counts()
            root = folder / f"cache-{number}"
            shares = together(WANTERS, lambda n, root=root: want(root, n, web, digest))  # type: ignore[misc]
            after = web.counts()
            took.append(max(share["s"] for share in shares))
            written.append(sum(share["written"] for share in shares))
            downloads.append(after["downloads"] - before["downloads"])
            sent.append(after["bytes"] - before["bytes"])
            shutil.rmtree(root)
            os.sync()
    copy = statistics.median(copied)
    what = f"{WANTERS} workers want the same {SIZE >> 30} GiB"
    return [
        Row("cache/cp of the same bytes", copy, "s", note=spread(copied)),
        against("cache/one download, no cache", statistics.median(alone), "s", copy, spread(alone)),
        against(f"cache/{what}: all have it", statistics.median(took), "s", copy, spread(took)),
        Row(f"cache/{what}: downloads", statistics.median(downloads), "", 1, statistics.median(downloads)),
        against(f"cache/{what}: sent by the server", statistics.median(sent), "bytes", SIZE),
        against(f"cache/{what}: written to disk", statistics.median(written), "bytes", SIZE),
    ]


def want(root: Path, number: int, web: Web, digest: str) -> dict[str, float]:
    cache = Cache(str(root), f"w{number}")
    before, began = disk_writes(), time.perf_counter()
    build = lambda path: fetch(Source(web.url, size=SIZE), path)  # noqa: E731
    pin = cache.get("file-" + digest, build, size=SIZE)
    took = time.perf_counter() - began
    pin.release()
    cache.close()
    return {"s": took, "written": disk_writes() - before}


def download(web: Web, path: Path) -> digests.Content:
    return fetch(Source(web.url, size=SIZE), str(path))


def disk_writes() -> int:
    """Of this process, as the kernel charges them."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


# ---------------------------------------------------------------- what is there already


def hits(root: Path) -> list[Row]:
    keys = filled(root)
    rates, floor, slowest = [], [], []
    for _ in range(ROUNDS):
        floor.append(sum(together(READERS, lambda n: links(root, n))))
        counted = together(READERS, lambda n: find(root, n, keys))
        rates.append(sum(count / SECONDS for count, _ in counted))
        slowest.append(max(longest for _, longest in counted))
    base = statistics.median(floor)
    what = f"cache/hits, {ENTRIES:,} entries, {READERS} workers"
    return [
        Row(f"cache/a link and its end, {READERS} processes", base, "1/s", note=spread(floor, ",.0f")),
        against(what, statistics.median(rates), "1/s", base, spread(rates, ",.0f")),
        Row(f"{what}: the longest", statistics.median(slowest) * 1000, "ms", note=spread(slowest, ".3f", 1000)),
    ]


def filled(root: Path) -> list[str]:
    cache = Cache(str(root), "filler")
    keys = []
    for number in range(ENTRIES):
        data = b"entry %d" % number
        keys.append("file-" + hashlib.sha256(data).hexdigest())
        cache.get(keys[-1], lambda path, data=data: _put(path, data)).release()  # type: ignore[misc]
    cache.close()
    return keys


def _put(path: str, data: bytes) -> digests.Content:
    Path(path).write_bytes(data)
    return digests.Content(hashlib.sha256(data).hexdigest(), len(data))


def find(root: Path, number: int, keys: list[str]) -> tuple[int, float]:
    """How often within the time, and the longest that one took."""
    cache = Cache(str(root), f"r{number}")
    order = random.Random(number)  # noqa: S311  # no secret
    found, longest = 0, 0.0
    until = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < until:
        cache.get(order.choice(keys), _must_be_there).release()
        longest = max(longest, time.perf_counter() - began)
        found += 1
    cache.close()
    return found, longest


def _must_be_there(_path: str) -> digests.Content:
    raise RuntimeError("an entry that was put there is not found")


def links(root: Path, number: int) -> float:
    """The least that a pin can cost: a hard link made and removed, one after the other."""
    folder = root / f"links-{number}"
    folder.mkdir()
    name, other = folder / "name", folder / "other"
    name.touch()
    made = 0
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        other.hardlink_to(name)
        other.unlink()
        made += 1
    shutil.rmtree(folder)
    return made / SECONDS


# ---------------------------------------------------------------- side by side


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What each of so many processes returns that begin at the same moment."""
    barrier, answers = _FORK.Barrier(count), _FORK.SimpleQueue()

    def one(number: int) -> None:
        barrier.wait()
        answers.put(act(number))

    processes = [_FORK.Process(target=one, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("one of the workers failed")
    return [answers.get() for _ in processes]


def random_file(path: Path, size: int) -> str:
    """Its digest."""
    digest, source = hashlib.sha256(), random.Random(0)  # noqa: S311  # no secret
    with path.open("wb") as file:
        for _ in range(size >> 20):
            piece = source.randbytes(2**20)
            digest.update(piece)
            file.write(piece)
    os.sync()
    return digest.hexdigest()


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def spread(values: list[float], form: str = ".2f", times: float = 1) -> str:
    return f"{min(values) * times:{form}}–{max(values) * times:{form}} over {len(values)} rounds"
