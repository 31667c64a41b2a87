"""Azure's scheduled events, of this machine alone: in a scale set everyone hears everybody's.

https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
The first question may take two minutes, because it switches the service on. `Freeze` is a pause of some seconds and no
end.
"""

import json
from typing import Any, Mapping, Optional

from worker import metadata
from worker.link.connection import Unreachable
from worker.notices import Notice
from worker.notices.times import utc_of_http

VARIABLE = "WM_AZURE_METADATA"
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
HEADERS = {"Metadata": "true"}
FIRST_S = 150.0
REASONS = {
    "Preempt": "spot-interruption",
    "Terminate": "termination",
    "Reboot": "maintenance",
    "Redeploy": "maintenance",
}


class Azure:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._at = (env.get(VARIABLE) or metadata.LINK_LOCAL).rstrip("/")
        self._name = ""
        self._patience_s = FIRST_S

    def look(self, now_ms: int) -> Optional[Notice]:
        if not self._name:
            self._name = self._get(NAME).strip()
        events = _events(self._get(EVENTS))
        self._patience_s = metadata.PATIENCE_S
        found = [self._notice(event, now_ms) for event in events if self._is_ours(event)]
        return min((each for each in found if each is not None), key=lambda each: each.ends_ms or 0, default=None)

    def _is_ours(self, event: Any) -> bool:
        resources = event.get("Resources") if isinstance(event, dict) else None
        return isinstance(resources, list) and self._name in resources

    def _notice(self, event: Mapping[str, Any], now_ms: int) -> Optional[Notice]:
        kind = str(event.get("EventType"))
        if kind not in REASONS or event.get("EventStatus") in ("Completed", "Canceled"):
            return None
        not_before = event.get("NotBefore")
        text = "Azure: %s of this machine, not before %s" % (kind, not_before or "now")
        return Notice(REASONS[kind], text, utc_of_http(not_before) or now_ms)

    def _get(self, path: str) -> str:
        status, text = metadata.ask(self._at, "GET", path, HEADERS, self._patience_s)
        if status != 200:
            raise Unreachable("%s answers %d" % (path.partition("?")[0], status))
        return text


def _events(text: str) -> "list[Any]":
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    events = told.get("Events") if isinstance(told, dict) else None
    if not isinstance(events, list):
        raise Unreachable("the scheduled events are no list")
    return events
