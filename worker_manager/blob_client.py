"""Files to the hub and from it: their digest first, only what is not there yet, and on from where a line broke.

Both ends are checked: the hub takes no file whose SHA-256 is another than announced, and a download gets its name only
when it is whole and right. A transfer is given up when nothing of it has moved in several tries, however long all of it
takes. Memory does not grow with the file.
"""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from worker_manager.errors import HubError, SourceUnavailable, UsageError, WorkerManagerError
from worker_manager.hub_client import TRY_AGAIN, HubClient, Stream

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all (None: not known)

PIECE = 64 * 2**20  # of one request: a proxy may bound them, and each proves anew who sends
BLOCK = 256 * 1024
TRIES = 8  # without any progress
LONGEST_PAUSE_S = 10.0
ANSWER_S = 300.0  # after the last byte: the hub makes it durable, and may have to read it again
LATER = TRY_AGAIN | {408, 409}


class Broken(WorkerManagerError):
    """What was fetched is not what it should be."""


@dataclass(frozen=True)
class Stored:
    """A file, as the hub and this side have it now."""

    sha256: str
    size: int


def no_progress(_done: int, _total: int | None) -> None:
    """Nobody watches."""


def digest_of(file: BinaryIO) -> Stored:
    """From where it stands to its end."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(2**20):
        digest.update(block)
        size += len(block)
    return Stored(digest.hexdigest(), size)


class BlobClient:
    """`pause(seconds)` waits; tests hand in another."""

    def __init__(self, hub: HubClient, *, tries: int = TRIES, pause: Callable[[float], None] = time.sleep) -> None:
        self._hub = hub
        self._tries = tries
        self._pause = pause

    # ------------------------------------------------------------ to the hub

    def upload(self, path: Path, progress: Progress = no_progress) -> Stored:
        """Safe to repeat, and quick where the hub has the file already."""
        with _readable(path) as file:
            what = digest_of(file)
            self._send_all(path, file, what, progress)
        progress(what.size, what.size)
        return what

    def _send_all(self, path: Path, file: BinaryIO, what: Stored, progress: Progress) -> None:
        patience = _Patience(self._tries, self._pause)
        offset: int | None = None
        while True:
            try:
                if offset is None:
                    offset = self._offset(what)
                if offset is None or (offset := self._send(file, what, offset, progress)) is None:
                    return
                patience.moved(offset)
            except (HubError, SourceUnavailable) as error:
                if isinstance(error, HubError) and error.code == "digest-differs":
                    raise UsageError(f"{path} changed while it was sent") from None
                patience.after(error)
                offset = None

    def _offset(self, what: Stored) -> int | None:
        """How much of it the hub has; None: all."""
        try:
            self._hub.exchange("HEAD", f"/v1/blobs/{what.sha256}")
        except HubError as error:
            offset = error.extra.get("upload_offset")
            if error.status != 404 or offset is None:
                raise
            if "retry_after_s" in error.extra:  # what we would send now would be refused when all of it has been sent
                raise HubError(409, "upload-busy", "somebody else sends this file now", error.extra) from None
            return min(int(offset), what.size)
        return None

    def _send(self, file: BinaryIO, what: Stored, offset: int, progress: Progress) -> int | None:
        """One piece. How much the hub has then; None: all."""
        piece = _Piece(file, offset, min(PIECE, what.size - offset), lambda done: progress(done, what.size))
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(what.size),
            "Content-Type": "application/octet-stream",
        }
        status, answer = self._hub.exchange(
            "PATCH", f"/v1/blobs/{what.sha256}", body=piece, headers=headers, timeout=ANSWER_S
        )
        return None if status == 201 else int(answer["Upload-Offset"])

    # ------------------------------------------------------------ from the hub

    def download(self, source: str, to: Path, sha256: str = "", progress: Progress = no_progress) -> Stored:
        """`source` is a blob's SHA-256 or a path of the hub's API. With `sha256` the file is held against it, and what
        an earlier call left unfinished is used; without it the hub's own word is (its ETag, where that is a digest)."""
        if "/" not in source:
            source, sha256 = f"/v1/blobs/{source}", source
        part = to.with_name(f".{to.name}.part")
        try:
            if not sha256:
                part.unlink(missing_ok=True)
            got = self._fetch(source, part, sha256, progress)
            part.replace(to)
        except OSError as error:
            raise WorkerManagerError(f"{to} cannot be written: {error.strerror or error}") from None
        return got

    def _fetch(self, source: str, part: Path, sha256: str, progress: Progress) -> Stored:
        patience = _Patience(self._tries, self._pause)
        tag, wrong = sha256, False
        while True:
            try:
                with part.open("ab") as file:
                    tag = self._append(source, file, tag, progress) or tag
            except (HubError, SourceUnavailable) as error:
                patience.moved(_size(part))
                patience.after(error)
                continue
            with part.open("rb") as file:
                got = digest_of(file)
            if not tag or got.sha256 == tag:
                return got
            part.unlink()
            if wrong:
                raise Broken(f"what came has the SHA-256 {got.sha256}, not {tag}")
            wrong = True  # an earlier part of it may have been: once more from the beginning

    def _append(self, source: str, file: BinaryIO, sha256: str, progress: Progress) -> str:
        """What is missing at the end of this file. The digest that the hub names, if it does."""
        begin = file.seek(0, os.SEEK_END)
        headers = {"Accept-Encoding": "identity"}
        if begin and sha256:
            headers |= {"Range": f"bytes={begin}-", "If-Range": f'"{sha256}"'}
        try:
            with self._opened(source, headers) as stream:
                if stream.status != 206:
                    file.truncate(0)
                    begin = 0
                _copy(stream, file, begin, progress)
                return _digest_in(stream.headers.get("ETag", ""))
        except HubError as error:
            if error.status != 416:
                raise
            return ""  # nothing is missing: whether it is right is looked at next

    @contextmanager
    def _opened(self, source: str, headers: dict[str, str]) -> Iterator[Stream]:
        """Of the hub, or of the storage to which it sends us. There our token is not shown."""
        with self._hub.opened(source, headers=headers) as stream:
            place = stream.headers.get("Location", "")
            if not 300 <= stream.status < 400:
                yield stream
                return
        headers.pop("If-Range", None)  # another's tags are others; the digest is looked at in the end
        with _opened_elsewhere(place, headers) as stream:
            yield stream


class _Patience:
    """How often a transfer may fail without having moved, and the pauses between."""

    def __init__(self, tries: int, pause: Callable[[float], None]) -> None:
        self._tries = tries
        self._pause = pause
        self._failed = 0
        self._furthest = -1

    def moved(self, to: int) -> None:
        if to > self._furthest:
            self._furthest, self._failed = to, 0

    def after(self, error: WorkerManagerError) -> None:
        """Waits, or raises the error when that makes no sense any more."""
        self._failed += 1
        if isinstance(error, HubError):
            self.moved(error.extra.get("upload_offset", -1))
            if error.status not in LATER:
                raise error
        if self._failed >= self._tries:
            raise error
        asked = error.extra.get("retry_after_s") if isinstance(error, HubError) else None
        by_itself = min(LONGEST_PAUSE_S, 0.1 * 2**self._failed) * random.uniform(0.5, 1.0)  # noqa: S311  # a pause
        self._pause(by_itself if asked is None else min(LONGEST_PAUSE_S, asked))


class _Piece:
    """A part of a file as a body."""

    def __init__(self, file: BinaryIO, begin: int, size: int, tell: Callable[[int], None]) -> None:
        self._file = file
        self._begin = begin
        self._size = size
        self._tell = tell

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._begin)
        left = self._size
        while left and (block := self._file.read(min(BLOCK, left))):
            yield block
            left -= len(block)
            self._tell(self._begin + self._size - left)
        if left:
            raise UsageError(f"{self._file.name} became shorter while it was sent")


@contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


@contextmanager
def _opened_elsewhere(url: str, headers: dict[str, str]) -> Iterator[Stream]:
    """The address itself is as good as a key: only its host is named in an error."""
    import requests

    host = urlsplit(url).hostname or "nowhere"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(10, 60), allow_redirects=False) as reply:
            if reply.status_code >= 300:
                raise HubError(reply.status_code, f"http-{reply.status_code}", f"{host} answered {reply.status_code}")
            yield Stream(reply.headers, reply.iter_content(BLOCK), reply.status_code)
    except (requests.RequestException, ValueError) as error:
        raise SourceUnavailable(f"{host} cannot be reached, or broke off: {type(error).__name__}") from None


def _copy(stream: Stream, file: BinaryIO, begin: int, progress: Progress) -> None:
    declared = stream.headers.get("Content-Length", "")
    total = begin + int(declared) if declared.isdigit() else None
    done = begin
    for block in stream.chunks:
        file.write(block)
        done += len(block)
        progress(done, total)
    if total is not None and done != total:
        raise SourceUnavailable(f"it broke off after {done} of {total} bytes")


def _digest_in(tag: str) -> str:
    text = tag.strip('"')
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
