"""How the hub's own log looks: JSON lines where nobody watches, readable ones on a terminal. Secrets are masked in
both."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

_SECRETS = re.compile(r"wm_[A-Za-z0-9_-]{20,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}")
MASK = "***"


def masked(text: str) -> str:
    return _SECRETS.sub(MASK, text)


def configure(level: str) -> None:
    """Does nothing where the program that runs us has set up logging already."""
    root = logging.getLogger()
    if root.handlers:
        return
    import structlog

    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), _mask]
    terminal = sys.stderr.isatty()
    last: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    processors: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not terminal:
        processors += [structlog.processors.format_exc_info, _mask]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*processors, last]))
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # a warning for each request that is none would fill the disk


def _mask(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: masked(value) if isinstance(value, str) else value for key, value in event.items()}
