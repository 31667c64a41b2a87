from typing import Any

from structlog.testing import capture_logs

from worker_manager.cli.narrate import narrated

LAUNCHED = {
    "id": 8,
    "at_ms": 5,
    "pool": "local",
    "action": "launch",
    "subject": "m-1",
    "reason": {"code": "backlog", "numbers": {}, "text": "20 jobs wait: 20 more workers would hold them"},
    "limited": [{"code": "max-workers", "numbers": {"have": 2, "max": 2}, "text": "max-workers: 2 of 2"}],
    "outcome": "launched",
    "text": "2 workers, 20 wanted",
}
CLOSED = {**LAUNCHED, "id": 9, "action": "close", "limited": [], "text": "", "outcome": "closed"}


class Ledger:
    """Stands where the assembled house does: two decisions are made while it is watched."""

    def last_decision(self) -> int:
        return 7

    def decisions(self, after: int) -> list[dict[str, Any]]:
        return [made for made in (LAUNCHED, CLOSED) if made["id"] > after]


def test_each_decision_is_one_line_that_names_the_limits_too() -> None:
    with capture_logs() as told, narrated(Ledger()):  # type: ignore[arg-type]
        pass
    assert told == [
        {
            "event": "20 jobs wait: 20 more workers would hold them; 2 workers, 20 wanted; max-workers: 2 of 2",
            "action": "launch",
            "pool": "local",
            "subject": "m-1",
            "outcome": "launched",
            "reason": "backlog",
            "limited": ["max-workers"],
            "log_level": "info",
        },
        {
            "event": "20 jobs wait: 20 more workers would hold them",
            "action": "close",
            "pool": "local",
            "subject": "m-1",
            "outcome": "closed",
            "reason": "backlog",
            "log_level": "info",
        },
    ]
