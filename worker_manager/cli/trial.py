"""One worker, launched by a manager as any other, that registers with the hub and is ended again.

It has a manager and a pool of its own, so nothing of those that run is touched, and takes jobs of a queue that nobody
submits to.
"""

import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backends.base import Finding, Severity
from worker.protocol import format_duration
from worker_manager.config.settings import PoolConfig, Settings
from worker_manager.errors import SourceUnavailable, WorkerManagerError

if TYPE_CHECKING:
    from worker_manager.assemble import House

MANAGER, POOL, QUEUE = "doctor", "doctor-trial", "doctor-trial"
LOOK_S = 0.2
END_S = 120.0


def try_launch(settings: Settings, pool: PoolConfig) -> Finding:
    from backends import registry
    from worker_manager import assemble
    from worker_manager.hub import discovery

    subject = f"{pool.name}: a trial launch"
    if registry.load(pool.backend).capabilities.identity:  # and a trial has a manager of its own
        text = "not tried: the machines of this kind of pool belong to its one manager"
        return Finding(subject, Severity.WARNING, text, "start that manager with --min-workers 1")
    limits = replace(pool.limits, min_workers=1, max_workers=1)
    trial = replace(pool, name=POOL, queues=(QUEUE,), limits=limits, law="pack", law_options={})
    aside = replace(settings, manager=replace(settings.manager, id=MANAGER, tick_ms=1_000), pools=(trial,))
    try:
        with assemble.house(aside) as house:
            found = _Trial(house, subject, limits.start_timeout_ms / 1000).run()
        if house.started_hub:
            discovery.stop(settings.manager.state_dir)
        return found
    except WorkerManagerError as error:
        return Finding(subject, Severity.ERROR, str(error), "see that no other doctor runs, then say this again")


class _Trial:
    def __init__(self, house: "House", subject: str, patience_s: float) -> None:
        self._house = house
        self._subject = subject
        self._patience_s = patience_s
        self._before = house.last_decision()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._manage, name="trial")

    def run(self) -> Finding:
        began = time.monotonic()
        self._thread.start()
        try:
            trouble = self._until_registered(began + self._patience_s)
            took = format_duration(int((time.monotonic() - began) * 1000))
        finally:
            left = self._end()
        if trouble:
            mend = f"worker-manager explain pool and docs/backends say what it means{f'; {left}' if left else ''}"
            return Finding(self._subject, Severity.ERROR, trouble, mend)
        if left:
            return Finding(
                self._subject, Severity.ERROR, f"a worker registered after {took}, but {left}", "end it there"
            )
        return Finding(self._subject, Severity.OK, f"a worker registered after {took}, and was ended again")

    def _manage(self) -> None:
        try:
            self._house.manager.run()
        except Exception as error:
            self._error = error

    def _until_registered(self, deadline: float) -> str:
        """Empty, or what went wrong."""
        while True:
            with suppress(SourceUnavailable):  # a busy hub is asked again
                if self._house.ready_workers():
                    return ""
            trouble = next(filter(None, map(_trouble, self._house.decisions(self._before))), "")
            if trouble or self._error is not None:
                return trouble or str(self._error)
            if time.monotonic() > deadline:
                return f"no worker registered within {format_duration(int(self._patience_s * 1000))}"
            time.sleep(LOOK_S)

    def _end(self) -> str:
        """What was started is ended, whatever came of it. What could not be is told."""
        self._house.close_pools(at_once=True)
        deadline = time.monotonic() + END_S
        while not self._house.empty() and time.monotonic() < deadline and self._error is None:
            with suppress(SourceUnavailable):
                self._house.end_workers()
            time.sleep(LOOK_S)
        self._house.manager.stop()
        self._thread.join()
        self._house.withdraw()
        return "" if self._house.empty() else "what was started could not be ended yet: say the same again"


def _trouble(decision: Any) -> str:
    """What the manager decided or met that ends the trial."""
    if decision["action"] == "launch" and decision["outcome"] in ("refused", "not launched"):
        return str(decision["text"])
    if decision["action"] == "close":
        return f"{decision['reason'].get('text')}: {decision['text']}".rstrip(": ")
    return ""
