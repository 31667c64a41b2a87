"""Paths that others name: what of them may become one of ours."""

import os
from typing import Tuple

from worker.staging.errors import Unsafe

LONGEST_PATH = 4096
LONGEST_NAME = 255
DEPTH = 64


def parts_of(path: str, depth: int = DEPTH) -> Tuple[str, ...]:
    """The names of a relative path. Raises Unsafe for one that is absolute, climbs, or cannot be a name here."""
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        length = LONGEST_PATH + 1
    if "\0" in path or length > LONGEST_PATH:
        raise Unsafe("%r is no path" % path[:200])
    if path.startswith("/") or "\\" in path or (len(path) > 1 and path[1] == ":"):
        raise Unsafe("%r is no relative path" % path[:200])
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Unsafe("%r leads out of its folder" % path[:200])
    if len(parts) > depth:
        raise Unsafe("%r is deeper than %d folders" % (path[:200], depth))
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        raise Unsafe("a name in %r is too long" % path[:200])
    return parts
