"""How the manager's log looks: JSON lines where nobody watches, readable ones on a terminal; secrets masked in both."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from worker_manager.hub.loglines import masked


def configure(form: str, verbose: bool, color: bool) -> None:
    """`form` is auto, json or text. Logs go to stderr; stdout is for data."""
    import structlog

    readable = form == "text" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    last: Any = (
        structlog.dev.ConsoleRenderer(colors=color and sys.stderr.isatty())
        if readable
        else structlog.processors.JSONRenderer()
    )
    ends = [] if readable else [structlog.processors.format_exc_info]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ends, redact, last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for talkative in ("urllib3", "alembic"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Whatever is named or looks like a secret is not written, however deep it stands."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


_NAMES = ("token", "password", "secret", "credential", "authorization")


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(name, part) for part in value]
    if isinstance(value, str):
        return "***" if name.lower().endswith(_NAMES) and value else masked(value)
    return value
