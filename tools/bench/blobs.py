"""Files to and from the hub, and what workers' heartbeats feel meanwhile."""

import asyncio
import hashlib
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.bench.fleet import Talker, register
from tools.bench.report import Row, against
from tools.bench.submit import heartbeats, percentile
from tools.house import House, local_pool

MIB = 2**20
SIZE = 256 * MIB
ROUNDS = 3
AT_ONCE = 4


def run() -> list[Row]:
    with House(local_pool(0, 1, cpus=1)) as house:
        talkers = register(house, 8, {"cpus": 1, "memory": 1})  # too small for any job: they only report
        files = Files(house)
        return [*_throughput(files), *_heartbeats(house, talkers, files)]


class Files:
    """Sent and fetched by curl, which costs next to nothing: what is measured is the hub."""

    def __init__(self, house: House) -> None:
        self._url = house.client.url
        self.folder = house.dir / "files"
        self.folder.mkdir()
        made = house.client.post("/v1/tokens", {"owner": "bench", "scopes": ["submit"]})
        self._headers = house.dir / "headers"  # a token never stands in argv
        self._headers.touch(mode=0o600)
        self._headers.write_text(f"Authorization: Bearer {made['token']}\n")
        self._block = os.urandom(MIB)

    def new(self, number: int) -> tuple[Path, str]:
        """A file that the hub has never seen."""
        path = self.folder / f"file-{number}"
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for part in range(SIZE // MIB):
                block = b"%16d%16d" % (number, part) + self._block[32:]
                digest.update(block)
                file.write(block)
            os.fsync(file.fileno())
        return path, digest.hexdigest()

    def send(self, path: Path, digest: str) -> None:
        told = ["-H", "Upload-Offset: 0", "-H", f"Upload-Length: {SIZE}", "-X", "PATCH", "-T", str(path)]
        self._curl(digest, "201", *told, "-o", "/dev/null")

    def fetch(self, digest: str, to: str) -> None:
        self._curl(digest, "200", "-o", to)

    def _curl(self, digest: str, expected: str, *words: str) -> None:
        argv = ["curl", "-sS", "-H", f"@{self._headers}", "-w", "%{http_code}", *words]
        found = subprocess.run([*argv, f"{self._url}/v1/blobs/{digest}"], capture_output=True, text=True, check=True)
        if found.stdout != expected:
            raise RuntimeError(f"the hub answered {found.stdout}")


def _throughput(files: Files) -> list[Row]:
    sent, fetched, kept, copied = [], [], [], []
    for number in range(ROUNDS):
        path, digest = files.new(number)
        copy = files.folder / "copy"
        durable = ["dd", f"if={path}", f"of={copy}", "bs=1M", "conv=fdatasync", "status=none"]
        kept.append(_rate(lambda argv=durable: _run(argv)))
        sent.append(_rate(lambda path=path, digest=digest: files.send(path, digest)))
        copied.append(_rate(lambda path=path, copy=copy: _run(["cp", str(path), str(copy)])))
        fetched.append(_rate(lambda digest=digest, copy=copy: files.fetch(digest, str(copy))))
    median = statistics.median
    return [
        against("blobs/to the hub, durable and checked", median(sent), "MiB/s", median(kept), "against dd, fdatasync"),
        against("blobs/from the hub", median(fetched), "MiB/s", median(copied), "against cp"),
    ]


def _heartbeats(house: House, talkers: list[Talker], files: Files) -> list[Row]:
    new = [files.new(100 + number) for number in range(AT_ONCE)]

    def beats(first: int, act: Callable[[tuple[Path, str]], None]) -> list[float]:
        return asyncio.run(heartbeats(house.client.url, talkers, first, lambda stop: _at_once(act, new, stop)))

    calm = asyncio.run(heartbeats(house.client.url, talkers, 1, lambda _: None))
    alone = beats(200_000, lambda file: _run(["cp", str(file[0]), f"{file[0]}.copy"]))
    sending = beats(400_000, lambda file: files.send(*file))
    fetching = beats(600_000, lambda file: files.fetch(file[1], "/dev/null"))
    quiet = percentile(calm, 99) * 1000
    rows = [Row("blobs/heartbeat p99, nothing else going on", quiet, "ms")]
    for words, took in (("4 cp of other files", alone), ("4 uploads", sending), ("4 downloads", fetching)):
        note = f"median {statistics.median(took) * 1000:.1f}, max {max(took) * 1000:.0f} ms"
        rows.append(against(f"blobs/heartbeat p99, during {words}", percentile(took, 99) * 1000, "ms", quiet, note))
    return rows


def _at_once(act: Callable[[tuple[Path, str]], None], files: list[tuple[Path, str]], stop: threading.Event) -> None:
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(act, files))
    finally:
        stop.set()


def _rate(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return SIZE / MIB / (time.perf_counter() - began)


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True)
