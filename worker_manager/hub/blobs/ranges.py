"""Which bytes of a blob a request asks for (RFC 9110, one range). Pure."""

import re
from collections.abc import Mapping

_RANGE = re.compile(rb"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII)


class Unsatisfiable(Exception):
    """No byte of what is asked for is there (416)."""


def tag(sha256: str) -> str:
    return f'"{sha256}"'


def asked(headers: Mapping[bytes, bytes], sha256: str, size: int) -> tuple[int, int] | None:
    """[first, end) of what is asked for; None: all of it. A range that we do not understand, more than one, or one of
    something else (If-Range) are answered with everything, as the standard allows. Raises Unsatisfiable."""
    found = _RANGE.fullmatch(headers.get(b"range", b"").strip().lower())
    condition = headers.get(b"if-range")
    if found is None or (condition is not None and condition.strip() != tag(sha256).encode()):
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        if int(last) == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable
    return int(first), min(size, int(last) + 1) if last else size
