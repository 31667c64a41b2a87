"""What went wrong with a request, and what that means. Pure: the client makes a Trouble of whatever the SDK raised."""

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from backends.azure_batch import states
from backends.base import Refused, Unknown, clipped

_STRANGE = 5_000  # characters of an answer that is none of Batch's


class Trouble(Exception):
    """`status` and `code` are the service's; without a status no answer came, or none that can be read.
    `before`: nothing was sent, because it could not even be said who we are."""

    def __init__(
        self,
        text: str,
        status: int | None = None,
        code: str = "",
        retry_after_s: float | None = None,
        before: bool = False,
    ) -> None:
        super().__init__(text)
        self.text, self.status, self.code = text, status, code
        self.retry_after_s, self.before = retry_after_s, before

    def __str__(self) -> str:
        return clipped(self.text)

    @property
    def gone(self) -> bool:
        return self.status == 404


def from_answer(status: int, body: str, headers: Mapping[str, str], now_s: float) -> Trouble:
    code, words = envelope(body)
    said = f"{code}: {words}" if code else words[:_STRANGE] or "without a word"
    return Trouble(f"Azure Batch answered {status}: {said}", status, code, retry_after(headers, now_s))


def envelope(body: str) -> tuple[str, str]:
    """Code and words of an OData error; ("", the text) where it is none."""
    try:
        said = json.loads(body)
        code = said["code"]
    except (ValueError, KeyError, TypeError):
        return "", body.strip()
    return (str(code), spoken(said)) if isinstance(code, str) else ("", body.strip())


def spoken(said: Mapping[str, Any]) -> str:
    """The words of a BatchError: its message and the pairs behind it, without the request's id and time."""
    message = said.get("message")
    text = message.get("value") if isinstance(message, Mapping) else message
    first = str(text or "").partition("\nRequestId:")[0].strip()
    pairs = said.get("values") or said.get("details") or ()
    more = [f"{one.get('key') or one.get('name')}: {one.get('value')}" for one in pairs if isinstance(one, Mapping)]
    return "; ".join([first, *more] if first else more)


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds, however it is written; None where it is not, or makes no sense."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, scale in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lower.get(name, "").strip()
        if value.isascii() and value.replace(".", "", 1).isdigit():
            return float(value) * scale or None
    try:
        wait = parsedate_to_datetime(lower.get("retry-after", "")).timestamp() - now_s
    except (TypeError, ValueError):
        return None
    return wait if wait > 0 else None


def outcome(trouble: Trouble) -> Refused | Unknown:
    """Of something that was to be changed. Refused only when it certainly was not."""
    kind = states.error(401, "") if trouble.before else states.error(trouble.status, trouble.code)
    if kind is None:
        return Unknown(clipped(trouble.text))
    return Refused(kind, clipped(trouble.text), trouble.retry_after_s)
