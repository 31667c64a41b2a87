"""What a worker is given for the inputs and outputs of an attempt: addresses that are good for a quarter of an hour.

Each question is answered by itself: with addresses, or with `{refused: {code, text}}`. Codes that may pass by
themselves: `storage-unavailable`, and `ask-again` for what had no room in an answer, or no time. The others want
something done, and the text says what.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from worker import files
from worker_manager.hub.blobs.receiving import size_here
from worker_manager.hub.contract import HeldAttempt, KeptFile
from worker_manager.hub.files.names import BadName, Source, is_safe_path, read_prefix, read_source
from worker_manager.hub.files.types import HUB, JOB
from worker_manager.hub.refusals import NotFound
from worker_manager.hub.services import Services
from worker_manager.hub.storages.base import Address, Object, Storage, StorageRefuses, missing

LIFE_MS = 15 * 60_000
MOST_FILES = 10_000  # below one source
FULL = 10_000  # files in an answer: what is asked beyond them is to be asked again
AT_A_TIME = 8
LONG_S = 15.0  # after which no further question is begun with
LONGEST_KEY = 1024

Answer = dict[str, Any]


class Refused(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.answer: Answer = {"refused": {"code": code, "text": text}}


AGAIN = Refused("ask-again", "the answer is full: ask for this by itself")
LATE = Refused("storage-unavailable", "the storages answer slowly: ask again")


class Granting:
    """For one request about one attempt."""

    def __init__(self, hub: Services, held: HeldAttempt) -> None:
        self._hub = hub
        self._owner = held.owner
        self._job = held.job
        self._sources = {each["source"] for each in held.work.get("inputs", ())}
        self._places = {each["to"] for each in held.work.get("outputs", ())}
        self.until_ms = hub.clock.now_ms() + LIFE_MS

    async def all(self, get: Sequence[str], put: Sequence[Mapping[str, Any]]) -> files.Granted:
        got = await self._in_turn([lambda each=each: self._get(each) for each in get], AGAIN)  # type: ignore[misc]
        sent = await self._in_turn([lambda each=each: self._put(each) for each in put], LATE)  # type: ignore[misc]
        return {"get": got, "put": sent, "until_ms": self.until_ms}

    async def _in_turn(self, questions: Sequence[Callable[[], Awaitable[Answer]]], rest: Refused) -> list[Answer]:
        """Some at a time, until the answer is full or took long; the first of them are always answered."""
        answers: list[Answer] = []
        files, until = 0, self._hub.loop.time() + LONG_S
        for start in range(0, len(questions), AT_A_TIME):
            part = questions[start : start + AT_A_TIME]
            if start and (files >= FULL or self._hub.loop.time() > until):
                answers += [rest.answer] * len(part)
                continue
            found = await asyncio.gather(*(self._answered(ask()) for ask in part))
            for place, each in enumerate(found):
                files += len(each.get("files", ()))
                answers.append(each if files <= FULL or not start + place else rest.answer)
        return answers

    async def _answered(self, answer: Awaitable[Answer]) -> Answer:
        try:
            return await answer
        except Refused as refused:
            return refused.answer
        except StorageRefuses as refused:
            return Refused(refused.code, str(refused)).answer

    # ------------------------------------------------------------ inputs

    async def _get(self, text: str) -> Answer:
        if text not in self._sources:
            raise Refused("not-in-the-job", f"{self._job} has no such input")
        source = read_source(text)
        if source.scheme == "blob":
            return await self._blob(source)
        if source.scheme == "job":
            return await self._of_job(source)
        if source.scheme in ("http", "https", "file"):
            raise Refused(
                "no-grant-needed", "what anyone may fetch, and what lies on the worker's machine, is not ours"
            )
        self._must_be_named(source)
        found = await self._hub.storages.ask(source, _everything(source) if source.folder else _one(source))
        return {"files": found}

    async def _blob(self, source: Source) -> Answer:
        size = await self._hub.read(self._hub.store.find_blob, self._owner, source.key)
        if size is None:
            raise Refused("source-missing", f"{source} is not here any more: send it again, then submit the job again")
        return {"files": [self._of_blob("", source.key, size)]}

    def _of_blobs(self, kept: Sequence[KeptFile]) -> list[Answer]:
        return [self._of_blob(each.path, each.sha256, each.size) for each in kept]

    def _of_blob(self, path: str, sha256: str, size: int) -> Answer:
        url = self._hub.blobs.grants.address("GET", sha256, self._owner, self.until_ms)
        return {"path": path, "url": url, "headers": {}, "size": size, "sha256": sha256, "tag": sha256}

    async def _of_job(self, source: Source) -> Answer:
        """What another job has kept, wherever it lies."""
        try:
            most = MOST_FILES + 1
            kept = await self._hub.read(self._hub.store.files_taken, self._owner, source.where, source.key, most)
        except NotFound as gone:
            raise Refused("source-missing", gone.detail) from None
        if not kept:
            raise Refused("source-missing", f"{source.where} has kept nothing under {source.key or 'any name'!r}")
        if len(kept) > MOST_FILES:
            text = (
                f"{source}: more than {MOST_FILES} files; take them from some of its tasks, or let these keep archives"
            )
            raise Refused("too-many-files", text)
        in_hub = [each for each in kept if each.at.startswith("blob:")]
        found = await self._hub.read(self._of_blobs, in_hub)
        by_scheme: dict[str, list[KeptFile]] = {}
        for each in kept:
            if not each.at.startswith("blob:"):
                by_scheme.setdefault(each.at.partition(":")[0], []).append(each)
        for apart in by_scheme.values():
            found += await self._kept_elsewhere(apart)
        return {"files": found}

    async def _kept_elsewhere(self, kept: Sequence[KeptFile]) -> list[Answer]:
        sources = [(each, read_source(each.at)) for each in kept]
        for _, source in sources:
            self._must_be_named(source)

        def sign(storage: Storage) -> list[Answer]:
            return [
                _told(each.path, Object(source.key, each.size, each.sha256, each.sha256), _to_get(storage, source))
                for each, source in sources
            ]

        return await self._hub.storages.ask(sources[0][1], sign)

    def _must_be_named(self, source: Source) -> None:
        """Also at this moment: the operator may have thought better of it since the job was submitted."""
        if not self._hub.storages.named.cover(source, self._owner):
            raise Refused("storage-not-named", self._hub.storages.named.refusal(source, self._owner))

    # ------------------------------------------------------------ outputs

    async def _put(self, wanted: Mapping[str, Any]) -> Answer:
        if wanted["to"] not in self._places:
            raise Refused("not-in-the-job", f"{self._job} keeps nothing there")
        path, size, sha256 = wanted["path"], wanted["size"], wanted["sha256"]
        if wanted["to"] == HUB:
            at = f"blob:{sha256}"
            if await size_here(self._hub, self._owner, sha256) is not None:
                return {"there": True, "at": at}
            url = self._hub.blobs.grants.address("PATCH", sha256, self._owner, self.until_ms)
            return {"url": url, "headers": {}, "method": "PATCH", "at": at}
        source = self._object(str(wanted["to"]), path)
        self._must_be_named(source)

        def sign(storage: Storage) -> Address:
            if size > storage.largest_put:
                text = f"{path}: this storage takes at most {storage.largest_put} bytes in one request, it has {size}"
                raise StorageRefuses("file-too-large", text)
            return storage.to_put(source, size, sha256, LIFE_MS // 1000)

        address = await self._hub.storages.ask(source, sign)
        return {"url": address.url, "headers": dict(address.headers), "method": "PUT", "at": str(source)}

    def _object(self, to: str, path: str) -> Source:
        prefix = read_prefix(to.replace(JOB, self._job))
        key = prefix.key + path
        if len(key.encode("utf-8", "surrogatepass")) > LONGEST_KEY:
            raise Refused("name-refused", f"{to}…: the name is longer than the {LONGEST_KEY} bytes that storages take")
        try:
            return read_source(str(Source(prefix.scheme, prefix.where, key)))
        except BadName as error:
            raise Refused("name-refused", f"{path!r}: {error}") from None


# ---------------------------------------------------------------- in a storage's thread


def _one(source: Source) -> Callable[[Storage], list[Answer]]:
    def ask(storage: Storage) -> list[Answer]:
        return [_told("", storage.look(source), _to_get(storage, source))]

    return ask


def _everything(source: Source) -> Callable[[Storage], list[Answer]]:
    def ask(storage: Storage) -> list[Answer]:
        found: list[Answer] = []
        for each in storage.below(source):
            if each.key.endswith("/") and not each.size:
                continue  # how some tools mark a folder
            path = each.key[len(source.key) :]
            if not is_safe_path(path):
                raise StorageRefuses("name-refused", f"{source}: {path!r} below it cannot be a file's path")
            if len(found) == MOST_FILES:
                raise StorageRefuses("too-many-files", f"{source}: more than {MOST_FILES} objects lie below it")
            found.append(_told(path, each, _to_get(storage, Source(source.scheme, source.where, each.key))))
        if not found:
            raise missing(source)
        _refuse_files_within_files(source, {each["path"] for each in found})
        return found

    return ask


def _refuse_files_within_files(source: Source, paths: set[str]) -> None:
    for path in paths:
        for above in PurePosixPath(path).parents:
            if str(above) in paths:
                text = f"{source}: both {str(above)!r} and {path!r} lie below it: a file cannot be a folder as well"
                raise StorageRefuses("name-refused", text)


def _to_get(storage: Storage, source: Source) -> Address:
    return storage.to_get(source, LIFE_MS // 1000)


def _told(path: str, found: Object, address: Address) -> Answer:
    return {
        "path": path,
        "url": address.url,
        "headers": dict(address.headers),
        "size": found.size,
        "sha256": found.sha256,
        "tag": found.tag,
    }
