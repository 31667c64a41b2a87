"""Limits and usage from the hub's API to the job's processes and back."""

import json
import sys
from typing import Any

import pytest

MIB = 2**20
GREEDY = "import time\nheld = []\nwhile len(held) < 50:\n    held.append(b'x' * (4 << 20)); time.sleep(0.01)\n"
BUSY = "held = b'x' * (50 << 20)\nwhile True: pass\n"


def ended(hub: Any, job: str) -> Any:
    shown = hub.get(f"/v1/jobs/{job}")
    return shown if shown["state"] in ("succeeded", "failed", "cancelled") else None


@pytest.mark.parametrize("limits", ["auto", "watch"])
def test_a_job_that_takes_too_much_memory_fails_and_spends_its_retry(
    hub: Any, join: Any, eventually: Any, limits: str
) -> None:
    join(hub, hub.token("worker"), "--limits", limits)
    job = hub.submit(sys.executable, "-S", "-c", GREEDY, resources={"memory": "100MiB"}, retries=1)
    shown = eventually(lambda: ended(hub, job), "the greedy job", 60)
    assert (shown["state"], shown["reason"], shown["attempt"]) == ("failed", "memory-limit", 2)
    assert "of 100 MiB of memory" in shown["text"]
    assert shown["max_rss"] > 90 * MIB
    second = hub.submit("true", resources={"memory": "100MiB"})
    assert eventually(lambda: ended(hub, second), "the next")["state"] == "succeeded"


def test_bounds_and_cores_reach_the_job(hub: Any, join: Any, eventually: Any) -> None:
    join(hub, hub.token("worker"))
    script = "import os, resource; print(resource.getrlimit(resource.RLIMIT_NOFILE), len(os.sched_getaffinity(0)))"
    job = hub.submit(sys.executable, "-S", "-c", script, max_files=99, cpu_affinity=True)
    shown = eventually(lambda: ended(hub, job), "the job")
    assert (shown["state"], shown["max_files"], shown["cpu_affinity"]) == ("succeeded", 99, True)
    assert hub.call("GET", f"/v1/jobs/{job}/logs").content == b"(99, 99) 1\n"


def test_what_a_worker_cannot_bound_waits_for_one_that_can(hub: Any, join: Any, eventually: Any) -> None:
    join(hub, hub.token("worker"), "--limits", "watch")
    eventually(lambda: hub.get("/v1/workers")["workers"], "the worker")
    assert "max-processes" not in hub.get("/v1/workers/by-hand")["shape"]["can"]
    bounded, plain = hub.submit("true", max_processes=5), hub.submit("true")
    assert eventually(lambda: ended(hub, plain), "the plain one")["state"] == "succeeded"
    assert hub.get(f"/v1/jobs/{bounded}")["state"] == "queued"


def test_a_running_job_and_its_worker_show_what_they_use(hub: Any, join: Any, eventually: Any) -> None:
    join(hub, hub.token("worker"), "--checkin-frequency-seconds", "1s")
    job = hub.submit(sys.executable, "-S", "-c", BUSY, resources={"memory": "200MiB"})

    def uses() -> Any:
        usage = hub.get(f"/v1/jobs/{job}")["usage"]
        return usage if usage and usage["cpus"] is not None else None

    usage = eventually(uses, "two heartbeats", 30)
    assert usage["cpu_ms"] > 0
    assert 0 < usage["cpus"] <= 1100  # one thread
    assert 50 * MIB < usage["memory"] < 90 * MIB
    (listed,) = hub.get("/v1/jobs")["jobs"]
    assert listed["usage"]["memory"] > 50 * MIB
    worker = hub.get("/v1/workers/by-hand")["usage"]
    assert 5 * MIB < worker["memory"] < 100 * MIB
    assert worker["disk"] > 0
    assert "jobs" not in worker
    hub.post(f"/v1/jobs/{job}/cancel")
    shown = eventually(lambda: ended(hub, job), "its end")
    assert shown["usage"] is None
    assert json.loads(json.dumps(shown))["max_rss"] > 50 * MIB
