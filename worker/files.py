"""Wire values of files: what comes into a job's directory, what is kept of it, and how a worker may fetch and send it.

Plain data, for hub and worker alike. Stdlib only and Python 3.9, because it travels inside `worker.pyz`.
"""

import hashlib
from typing import Any, Dict, List, Mapping, Optional, TypedDict

MOST_KEPT = 10_000  # files that an attempt may keep; with more it has failed
MOST_PATH = 1000  # bytes of UTF-8 in the path of one
MOST_TOLD = 8 * 2**20  # bytes of a result that are about files: with others it has room in one report
PUBLIC = "public"  # the part of a cache that is everybody's


class Input(TypedDict, total=False):
    """One of `work["inputs"]`: what stands in the job's directory when it starts."""

    to: str  # relative path there
    source: str  # blob:SHA256 | job:ID/path | https://… | s3://… | az://account/container/… | gs://… | file:///…
    sha256: str  # of the file, where it is known; "" or left out: not known
    size: Optional[int]
    unpack: bool  # an archive: `to` is a folder with what is in it
    copy: bool  # the job may write to it; else it is read-only, and shared with others
    run: bool  # one file, which the job may execute


class Output(TypedDict, total=False):
    """One of `work["outputs"]`: what is kept of the job's directory when it has ended."""

    glob: str  # relative, ** crosses folders; a folder means everything in it
    to: str  # "hub", or a prefix in object storage, ending in /
    required: bool  # nothing matched: the attempt has failed
    always: bool  # also of an attempt that failed


class File(TypedDict, total=False):
    """One of a result's `files`: what was kept, and where it is now."""

    path: str
    size: int
    sha256: str
    at: str  # blob:SHA256, or the object's URI


def input_key(sha256: str, unpack: bool) -> str:
    """Its name in a cache, for an input whose digest is known."""
    return "name-" + hashlib.sha256(b"unpacked " + sha256.encode()).hexdigest() if unpack else "file-" + sha256


def cache_scope(owner: str) -> str:
    """The part of a cache that is this owner's alone."""
    return "owner-" + hashlib.sha256(owner.encode()).hexdigest()[:24]


def input_scope(source: str, owner: str) -> str:
    """The part of a cache where an input lies: everybody's when anybody could fetch it, else its owner's."""
    kind, _, rest = source.partition("://")
    anybody = kind in ("http", "https") and "?" not in rest and "@" not in rest.partition("/")[0]
    return PUBLIC if anybody else cache_scope(owner)


def input_digest(one: Mapping[str, Any]) -> str:
    """Of what comes from an `Input`'s source, where it is known before it comes; else empty."""
    source = str(one.get("source") or "")
    return str(one.get("sha256") or "") or (source[5:] if source.startswith("blob:") else "")


def told_bytes(path: str, at: str) -> int:
    """How much of a report one kept file takes, or a little less than this."""
    return 200 + sum(len(text) * (1 if text.isascii() else 6) for text in (path, at))


class Grants(TypedDict, total=False):
    """POST /v1/workers/{id}/grants: short-lived addresses for the inputs and outputs of an attempt that the worker
    holds, so that it needs no key of any storage."""

    session: int
    job: str
    epoch: int
    get: List[str]  # sources that stand in the job's inputs
    put: List[Dict[str, Any]]  # {path, size, sha256, to}: `to` as it stands in the job's outputs


class Granted(TypedDict, total=False):
    """In the order of what was asked; each may be {refused: {code, text}} instead."""

    get: List[Dict[str, Any]]  # {files: [{path, url, headers, size, sha256, tag}]}: path "" for the source itself
    put: List[Dict[str, Any]]  # {url, headers, method, at}, or {there: true, at}: the hub has it already
    until_ms: int  # UTC; then ask again
