"""What a cache holds, from the stager to the hub and back to where the next job goes: everything real."""

import hashlib
from pathlib import Path
from typing import Any

from tests.integration.agent.web import Web

DATA = b"wanted by many\n" * 1000


def test_the_next_job_goes_where_the_first_left_its_input_also_after_a_restart_of_the_hub(
    hub: Any, join: Any, eventually: Any, web: Web, tmp_path: Path
) -> None:
    token = hub.token("worker")
    inputs = [{"to": "in", "source": web.put("/in", DATA), "sha256": hashlib.sha256(DATA).hexdigest()}]

    def worker(name: str) -> None:
        cache_dir = str(tmp_path / name)
        join(hub, token, "--worker-id", name, "--cache-dir", cache_dir, "--checkin-frequency-seconds", "200ms")
        eventually(lambda: name in {one["id"] for one in hub.get("/v1/workers")["workers"]}, name)

    def cache(name: str) -> Any:
        return hub.get(f"/v1/workers/{name}")["cache"] or {}

    def where() -> str:
        job = hub.submit("cmp", "in", "in", inputs=inputs)
        shown = eventually(lambda: (one := hub.get(f"/v1/jobs/{job}"))["ended_ms"] and one, job)
        assert shown["state"] == "succeeded", shown
        return str(shown["worker"])

    worker("z-holder")
    assert where() == "z-holder"
    eventually(lambda: cache("z-holder").get("entries") == 1, "word of it")
    worker("a-other")  # of two that are idle, the first by name has the first turn
    assert where() == "z-holder"
    hub.restart()
    eventually(lambda: cache("z-holder").get("entries") == 1 and "bytes" in cache("a-other"), "word after the restart")
    assert where() == "z-holder"
    assert web.asked["GET", "/in"] == 1
    eventually(lambda: cache("z-holder").get("hits") == 2, "the hits")
    shown = cache("z-holder")
    assert (shown["misses"], shown["built_bytes"], shown["hit_bytes"]) == (1, len(DATA), 2 * len(DATA))
