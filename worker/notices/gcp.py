"""Compute Engine.

https://cloud.google.com/compute/docs/instances/create-use-spot (30 seconds before)
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice (60 seconds before, an hour with GPUs: we
cannot tell which, and take the shorter). A migration is no end.
"""

from typing import Mapping, Optional

from worker import metadata
from worker.link.connection import Unreachable
from worker.notices import Notice

VARIABLE = "GCE_METADATA_HOST"  # as Google's own libraries read it
HOST = "metadata.google.internal"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event"
HEADERS = {"Metadata-Flavor": "Google"}
PREEMPTION_MS = 30_000
MAINTENANCE_MS = 60_000


class Gcp:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._at = "http://" + (env.get(VARIABLE) or HOST)
        self._since_ms = {"spot-interruption": 0, "maintenance": 0}  # when we first saw it: no time is told

    def look(self, now_ms: int) -> Optional[Notice]:
        if self._get(PREEMPTED) == "TRUE":
            text = "Compute Engine preempts this machine within 30 seconds"
            return Notice("spot-interruption", text, self._since("spot-interruption", now_ms) + PREEMPTION_MS)
        if self._get(MAINTENANCE).startswith("TERMINATE"):
            text = "Compute Engine stops this machine for maintenance within a minute"
            return Notice("maintenance", text, self._since("maintenance", now_ms) + MAINTENANCE_MS)
        return None

    def _since(self, reason: str, now_ms: int) -> int:
        self._since_ms[reason] = self._since_ms[reason] or now_ms
        return self._since_ms[reason]

    def _get(self, path: str) -> str:
        status, text = metadata.ask(self._at, "GET", path, HEADERS)
        if status != 200:
            raise Unreachable("%s answers %d" % (path, status))
        return text.strip().upper()
