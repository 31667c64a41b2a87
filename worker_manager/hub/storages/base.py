"""What the hub asks of an object storage: addresses that are good for minutes, and what is there.

Implementations block, with time-outs of their own, and are called in threads, several at once. They raise
`StorageRefuses`, whose text says what to do, and whose code a worker goes by: `storage-unavailable` may pass, the
others do not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from worker_manager.hub.files.names import Source

CONNECT_S = 5
READ_S = 15


class StorageRefuses(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def missing(source: Source) -> StorageRefuses:
    return StorageRefuses("source-missing", f"{source} is not there")


def forbidden(source: Source, right: str, said: str) -> StorageRefuses:
    text = f"{source}: the hub's identity may not do that ({said}): give it {right}, or name another source"
    return StorageRefuses("storage-forbidden", text)


def unavailable(source: Source, said: str) -> StorageRefuses:
    return StorageRefuses("storage-unavailable", f"{source}: its storage does not answer now: {said}")


def no_identity(source: Source, said: str) -> StorageRefuses:
    return StorageRefuses("storage-no-identity", f"{source}: the hub has no identity for this storage: {said}")


@dataclass(frozen=True, slots=True)
class Object:
    """`tag` changes with its content. The digest is "" where the storage does not know it."""

    key: str
    size: int
    tag: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """`headers` are part of what was signed: they must be sent as they are."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Storage(Protocol):
    largest_put: int  # bytes of a file that can be sent in one request

    def look(self, source: Source) -> Object:
        """One object."""
        ...

    def below(self, source: Source) -> Iterator[Object]:
        """Every object whose key begins with the source's, page by page."""
        ...

    def to_get(self, source: Source, life_s: int) -> Address: ...

    def to_put(self, source: Source, size: int, sha256: str, life_s: int) -> Address: ...
