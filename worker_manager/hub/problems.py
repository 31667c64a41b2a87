"""Every refusal as an RFC 9457 problem document.

A handler raises `Problem`; the store's refusals (`refusals.py`) are translated in `app.refusal_of`; nothing else
turns into a 4xx. What is not foreseen is a 500 with a reference number and no inner words.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from worker_manager.hub.types import PATTERN_WORDS

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that refuses: `code` is stable and for programs, `detail` a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **self.extra,
            "type": "about:blank",
            "title": _title(self.status),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return document

    def response(self) -> Response:
        body = json.dumps(self.document(), ensure_ascii=False).encode("utf-8", "backslashreplace")
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def bad_request(code: str, detail: str) -> Problem:
    return Problem(400, code, detail)


def not_found(what: str, which: str) -> Problem:
    return Problem(404, f"{what}-unknown", f"there is no {what} {which!r}")


def invalid(errors: Sequence[Mapping[str, str]]) -> Problem:
    """422: well-formed JSON that says something we do not take. Names every place."""
    first = errors[0] if errors else {"where": "", "what": "it is not valid"}
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem(422, "invalid", f"{first['where'] or 'the request'}: {first['what']}{more}", errors=errors)


def from_validation(error: ValidationError, at_most: int = 100) -> Problem:
    """Never repeats the refused value: it may be a secret that landed in the wrong place."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [{"where": place(each["loc"]), "what": _words(each["msg"])} for each in found[:at_most]]
    if len(found) > at_most:
        shown.append({"where": "", "what": f"{len(found) - at_most} further mistakes are not shown"})
    return invalid(shown)


def place(loc: Sequence[int | str]) -> str:
    """`('jobs', 3, 'resources', 'memory')` → `jobs[3].resources.memory`."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


_PATTERN = "String should match pattern '"


def _words(message: str) -> str:
    if message.startswith(_PATTERN):
        return PATTERN_WORDS.get(message.removeprefix(_PATTERN).removesuffix("'"), message)
    return message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "there is no such field")
