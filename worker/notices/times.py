"""Times as the platforms write them, in ms UTC; None for what is no time."""

import calendar
import time
from typing import Any, Optional


def utc_of_iso(text: Any) -> Optional[int]:
    """2026-11-20T08:22:00Z"""
    return _read(text, "%Y-%m-%dT%H:%M:%SZ")


def utc_of_http(text: Any) -> Optional[int]:
    """Fri, 20 Nov 2026 08:22:00 GMT, whatever language the process speaks"""
    from email.utils import parsedate

    read = parsedate(str(text)) if text else None
    return None if read is None else calendar.timegm(read) * 1000


def _read(text: Any, form: str) -> Optional[int]:
    try:
        return calendar.timegm(time.strptime(str(text), form)) * 1000
    except ValueError:
        return None
