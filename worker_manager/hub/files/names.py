"""Names of files: paths within a job's directory, sources and places beyond it.

Pure. What cannot be taken raises `BadName`, whose text says what is wrong. A source's key is taken as it stands:
nothing in it is decoded, and no part of it may be empty, `.` or `..`, so that nobody along the way can make another
key of it.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from worker import files

MOST_PATH = files.MOST_PATH  # bytes
MOST_PART = 255
MOST_DEEP = 64  # folders, as in the workers' own check
MOST_SOURCE = 4096
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar", ".zip")
STORAGES = ("s3", "gs", "az")
SCHEMES = ("blob", "job", "http", "https", "file", *STORAGES)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_JOB = re.compile(r"(?:#[0-9]{1,5}|j[1-9][0-9]{0,17})(?:-(?:0|[1-9][0-9]{0,6}))?")


class BadName(ValueError):
    """A path, a source or a place that cannot be taken."""


@dataclass(frozen=True, slots=True)
class Source:
    """`where` is the bucket, account/container, host or job; `key` what is there: a path, an object, a digest."""

    scheme: str
    where: str
    key: str

    @property
    def folder(self) -> bool:
        """It means everything below it."""
        return self.key.endswith("/") or (not self.key and self.scheme in ("job", *STORAGES))

    @property
    def name(self) -> str:
        """What it is called by itself; "" for a digest, and for the whole of a job or a bucket."""
        return "" if self.scheme == "blob" else self.key.rstrip("/").rpartition("/")[2]

    @property
    def job(self) -> str:
        """Of a `job:` source: the job that is to be waited for. A task's is its array."""
        return self.where.partition("-")[0]

    def __str__(self) -> str:
        if self.scheme == "blob":
            return f"blob:{self.key}"
        if self.scheme == "job":
            return f"job:{self.where}/{self.key}"
        return f"{self.scheme}://{self.where}/{self.key}"


def checked_path(text: str, most: int = MOST_PATH) -> str:
    """A relative path that stays where it is put."""
    if not text:
        raise BadName("it is empty")
    if _CONTROL.search(text):
        raise BadName("control characters are refused")
    if text.startswith("/"):
        raise BadName("write a path relative to the job's directory, without / in front")
    if text.count("/") >= MOST_DEEP:
        raise BadName(f"it lies more than {MOST_DEEP} folders deep")
    return _parts_checked(text, most)


def is_safe_path(text: object, most: int = MOST_PATH) -> bool:
    """What a worker may tell of a file: names of whatever kind, but within the directory."""
    if not isinstance(text, str) or not text or "\0" in text or text.startswith("/"):
        return False
    try:
        _parts_checked(text, most)
    except BadName:
        return False
    return True


def _parts_checked(text: str, most: int) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > most:
        raise BadName(f"it is longer than {most} bytes")
    for part in text.split("/"):
        if part in ("", ".", ".."):
            raise BadName(f"write it without {part or 'empty parts (//, or / at the end)'}")
        if len(part.encode("utf-8", "surrogatepass")) > MOST_PART:
            raise BadName(f"a name in it is longer than {MOST_PART} bytes")
    return text


# ---------------------------------------------------------------- sources


def read_source(text: str) -> Source:
    if len(text) > MOST_SOURCE:
        raise BadName(f"it is longer than {MOST_SOURCE} characters")
    if _CONTROL.search(text):
        raise BadName("control characters are refused")
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in SCHEMES:
        known = "blob:SHA256, job:ID/path, http(s)://…, s3://…, az://account/container/…, gs://…, file:///…"
        raise BadName(f"a source is one of {known}")
    if scheme == "blob":
        return _blob(rest)
    if scheme == "job":
        return _job(rest)
    if not rest.startswith("//"):
        raise BadName(f"write {scheme}:// in front")
    if scheme in ("http", "https"):
        return _web(scheme, text)
    return _file(rest[2:]) if scheme == "file" else _object(scheme, rest[2:])


def _blob(digest: str) -> Source:
    if not _DIGEST.fullmatch(digest):
        raise BadName("after blob: stands a SHA-256, 64 digits 0-9a-f")
    return Source("blob", "", digest)


def _job(rest: str) -> Source:
    job, slash, path = rest.partition("/")
    if not slash or not _JOB.fullmatch(job):
        raise BadName("write job:ID/path, such as job:j7/out/table.csv, or job:#0/… for the first job of this request")
    return Source("job", job, _key_checked(path) if path else "")


def _web(scheme: str, text: str) -> Source:
    if " " in text:
        raise BadName("a web address has no spaces: write %20")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise BadName(f"it is no web address: {error}") from None
    if not parts.hostname:
        raise BadName("it names no host")
    if "@" in parts.netloc:
        raise BadName("no user and password in an address: everyone who sees the job would see them")
    if parts.fragment:
        raise BadName("a part after # names no file of its own")
    return Source(scheme, parts.netloc, parts.path.removeprefix("/"))


def _file(rest: str) -> Source:
    if not rest.startswith("/") or rest == "/":
        raise BadName("write file:///path, with three slashes")
    return Source("file", "", _key_checked(rest[1:]))


def _object(scheme: str, rest: str) -> Source:
    where, _, key = rest.partition("/")
    if scheme == "az":
        container, _, key = key.partition("/")
        if not _ACCOUNT.fullmatch(where) or not _BUCKET.fullmatch(container):
            raise BadName("write az://account/container/blob")
        where = f"{where}/{container}"
    elif not _BUCKET.fullmatch(where):
        raise BadName(f"write {scheme}://bucket/name")
    return Source(scheme, where, _key_checked(key) if key else "")


def _key_checked(key: str) -> str:
    _parts_checked(key.removesuffix("/"), 1024)
    return key


# ---------------------------------------------------------------- places to keep in


def read_prefix(text: str) -> Source:
    """`s3://bucket/prefix/`: where things are kept, and what is to stand before their paths."""
    source = read_source(text)
    if source.scheme not in STORAGES:
        raise BadName('write "hub", or a prefix in object storage: s3://…/, az://account/container/…/ or gs://…/')
    if not source.folder:
        raise BadName("a prefix ends in /")
    return source


class Storages:
    """What the operator named: below these, and nowhere else, the hub signs. `{owner}` stands for the job's owner."""

    def __init__(self, named: tuple[str, ...] = ()) -> None:
        self.named = named
        self._prefixes = [_as_prefix(text) for text in named]

    def cover(self, source: Source, owner: str) -> bool:
        uri = str(source)
        return any(uri.startswith(prefix.replace("{owner}", owner)) for prefix in self._prefixes)

    def refusal(self, source: Source, owner: str) -> str:
        """Why not, and what there is."""
        if not self.named:
            return (
                f"this hub signs for no object storage: its operator has to name {source.scheme}://{source.where}/… "
                "(worker-manager hub --storage)"
            )
        there = ", ".join(prefix.replace("{owner}", owner) for prefix in self._prefixes)
        return f"{source.scheme}://{source.where}/{source.key} lies below none of the storages of this hub: {there}"


def _as_prefix(text: str) -> str:
    """Checked, and with a / at its end: `s3://b/data` does not mean `s3://b/database`."""
    try:
        return str(read_prefix(text if text.endswith("/") else text + "/"))
    except BadName as error:
        raise BadName(f"{text!r} is no storage: {error}") from None
