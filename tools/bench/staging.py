"""What the stager moves in a second, against what people use for it: curl for transfers, cp for copies.

Ours digests every byte on its way; `curl + sha256sum` does the same. The stager's own code runs here in the bench's
process, as it does in the stager's, which stays; curl and cp are started each time.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.bench import sides
from tools.bench.cache import random_file
from tools.bench.report import Row
from tools.bench.web import serving
from worker.cache.digests import Content
from worker.staging import copying
from worker.staging.http import Patience, Source, fetch, rest
from worker.staging.lines import Lines
from worker.staging.sending import Place, Sending
from worker.staging.site import Site
from worker.staging.stops import Stop

SIZE = 128 * 2**20
ROUNDS = 25  # many and short ones: on a busy machine single ones scatter by a factor of three
HEAVY_ROUNDS = 5  # apart from the others: what comes after a sha256sum was seen to be slower, whatever it is
SMALL, LARGE = 64 * 2**20, 2 * 2**30  # of which the memory is measured


def run() -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="wm-bench-", dir="/var/tmp"))
    try:
        file = folder / "input"
        digest = random_file(file, SIZE)
        moved = [*downloads(folder, file, digest), *uploads(file), *copies(folder, file, digest)]
        return [*moved, *memory(folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- downloads


def downloads(folder: Path, file: Path, digest: str) -> list[Row]:
    to = folder / "to"
    with serving(file) as web:
        curl = ["curl", "--silent", "--fail", "--output", str(to), web.url]
        plain = lambda: subprocess.run(curl, check=True)  # noqa: E731
        ours = lambda: must_be(fetch(Source(web.url, size=SIZE), str(to)), digest)  # noqa: E731
        found = sides.take_turns({"curl": plain, "fetch": ours}, ROUNDS, to.unlink)
        by_hand = {"curl + sha256sum": lambda: then_digest(curl, to, digest)}
        found |= sides.take_turns(by_hand, HEAVY_ROUNDS, to.unlink)
    return sides.rows(f"staging/download of {SIZE >> 20} MiB", SIZE, "curl", found)


# ---------------------------------------------------------------- uploads


def uploads(file: Path) -> list[Row]:
    with serving(file) as web:
        curl = ["curl", "--silent", "--fail", "--upload-file", str(file), web.url]
        acts = {"curl": lambda: subprocess.run(curl, check=True), "send": lambda: send(file, web.url)}
        found = sides.take_turns(acts, ROUNDS, lambda: None)
        got = web.counts()["received"]
    if got != 2 * ROUNDS * SIZE:
        raise RuntimeError(f"{got} bytes came of {2 * ROUNDS * SIZE}")
    return sides.rows(f"staging/upload of {SIZE >> 20} MiB", SIZE, "curl", found)


def send(file: Path, url: str) -> None:
    """To an address as an object storage's; the digest was made before."""
    place = Place(url, {}, url)
    with file.open("rb") as opened:
        sending = Sending(opened.fileno(), SIZE, Lines(), Stop(), lambda _: None, lambda: place)
        sending.go(place, Patience(), rest)


# ---------------------------------------------------------------- copies


def copies(folder: Path, file: Path, digest: str) -> list[Row]:
    to = folder / "to"
    cp = ["cp", str(file), str(to)]
    acts = {
        "cp": lambda: subprocess.run(cp, check=True),
        "copy for a job that writes": lambda: copying.copy(str(file), str(to), None, Stop(), lambda _: None),
        "file:///, with its digest": lambda: must_be(bring(file, to), digest),
    }
    found = sides.take_turns(acts, ROUNDS, to.unlink)
    found |= sides.take_turns({"cp + sha256sum": lambda: then_digest(cp, to, digest)}, HEAVY_ROUNDS, to.unlink)
    return sides.rows(f"staging/copy of {SIZE >> 20} MiB", SIZE, "cp", found)


def bring(file: Path, to: Path) -> Content:
    site = Site(f"file://{file}", [str(file.parent)], Stop())
    (piece,) = site.pieces()
    return site.bring(piece, str(to), lambda _there, _whole: None)


def then_digest(command: list[str], path: Path, digest: str) -> None:
    subprocess.run(command, check=True)
    told = subprocess.run(["sha256sum", str(path)], check=True, capture_output=True, text=True).stdout
    if told.split()[0] != digest:
        raise RuntimeError("what came is not what was sent")


def must_be(content: Content, digest: str) -> None:
    if content.digest != digest:
        raise RuntimeError("what came is not what was sent")


# ---------------------------------------------------------------- memory

_FETCH = """
import sys
from worker.staging.http import Source, fetch
fetch(Source(sys.argv[1]), sys.argv[2])
print(open("/proc/self/status").read())
"""
_COPY = """
import sys
from worker.staging.site import Site
from worker.staging.stops import Stop
site = Site("file://" + sys.argv[1], ["/"], Stop())
site.bring(site.pieces()[0], sys.argv[2], lambda there, whole: None)
print(open("/proc/self/status").read())
"""


def memory(folder: Path) -> list[Row]:
    def peak(size: int, act: Callable[[Path], int]) -> int:
        file = folder / "sparse"
        with file.open("wb") as made:
            made.truncate(size)
        return act(file)

    def fetched(file: Path) -> int:
        with serving(file) as web:
            return alone(_FETCH, web.url)

    def alone(code: str, source: str) -> int:
        to = folder / "to"
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'){code}", source, str(to)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        to.unlink()
        return int(told.partition("VmHWM:")[2].split()[0]) * 1024

    made = []
    for name, act in (("download", fetched), ("copy", lambda file: alone(_COPY, str(file)))):
        small, large = peak(SMALL, act), peak(LARGE, act)
        what = f"staging/{name}: peak memory, {LARGE >> 30} GiB against {SMALL >> 20} MiB"
        made.append(Row(what, large / 2**20, "MiB", small / 2**20, large / small))
    return made
