"""Names for what is launched: lowercase DNS labels with the manager's name in front, so that people and listings find
them; and the tokens that are good for one registration."""

import hashlib
import re
import secrets
from collections.abc import Callable

NewId = Callable[[str, int], str]  # (manager, now) → the id of a submission

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
PREFIX_KEPT = 18  # 18 + "-" + 9 + 8 = 36 characters for a submission, and 4 more for "-999"


def prefix_of(manager: str) -> str:
    """What every id of this manager begins with. Managers of one hub need names that differ in these characters."""
    label = re.sub(r"[^a-z0-9-]+", "-", manager.lower()).strip("-")[:PREFIX_KEPT].strip("-")
    return label if label and label[0].isalpha() else f"m{label}"[:PREFIX_KEPT]


def new_submission_id(manager: str, now_ms: int) -> str:
    """Sorts by time; the random part keeps two of the same millisecond apart."""
    chance = "".join(secrets.choice(DIGITS) for _ in range(8))
    return f"{prefix_of(manager)}-{_base36(now_ms):0>9}{chance}"


def new_token() -> str:
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text
