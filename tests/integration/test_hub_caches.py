"""What workers' caches hold, through a real hub: told, asked for, shown, and never a reason to refuse a report."""

from typing import Any

from worker.files import cache_scope, input_key

DIGEST = "a" * 64
STAGES = {"can": ["inputs"]}


def entry(owner: str) -> list[Any]:
    return [cache_scope(owner), input_key(DIGEST, False), 2**20]


def test_a_hub_that_starts_again_asks_and_shows_what_it_is_told(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"), **STAGES)
    path = f"/v1/workers/{worker.name}"
    assert hub.get(path)["cache"] is None
    assert worker.report()["tell"] == ["cache"]
    counts = {"hits": 3, "hit_bytes": 3 * 2**20, "misses": 1, "built_bytes": 2**20}
    news = {"all": True, "added": [entry("alice")], "counts": counts}
    assert "tell" not in worker.report(cache=news)
    assert hub.get(path)["cache"] == {"entries": 1, "bytes": 2**20, **counts}
    assert hub.get("/v1/workers")["workers"][0]["cache"]["hits"] == 3
    assert "wm_hub_cache_saved_bytes_total 3.145728e+06" in hub.call("GET", "/metrics", by=None).text
    hub.restart()
    assert worker.report()["tell"] == ["cache"]
    worker.report(cache=news)
    metrics = hub.call("GET", "/metrics", by=None).text
    assert "wm_hub_cache_entries 1.0" in metrics
    assert "wm_hub_cache_hits_total 0.0" in metrics, "counted before this hub began"


ODD: tuple[Any, ...] = (None, [], "x", {"added": [["a"], 5, [1, 2, 3]], "gone": "x", "counts": {"hits": -1}})


def test_no_report_is_refused_for_what_it_says_of_a_cache(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"), **STAGES)
    for told in ODD:
        worker.report(cache=told)
    job = hub.submit("true")
    worker.finish(worker.take(), exit_code=0)
    assert hub.get(f"/v1/jobs/{job}")["state"] == "succeeded"


def test_a_job_goes_to_the_worker_that_holds_its_input_and_explain_says_so(hub: Any, wire_worker: Any) -> None:
    workers = [wire_worker(hub, hub.token("worker"), f"w-{number}", **STAGES) for number in range(3)]
    holder = workers[1]
    holder.report(cache={"all": True, "added": [entry("alice")]})
    source = {"to": "in", "source": "https://a.example/x?signed=1", "sha256": DIGEST}
    job = hub.submit("true", by=hub.token("submit", "read"), inputs=[source])
    told = hub.get(f"/v1/jobs/{job}/explain")
    assert (hub.get(f"/v1/jobs/{job}")["worker"], told["held_bytes"]) == (holder.name, 2**20)
    assert told["text"] == f"assigned on {holder.name}, which held 1 MiB of its inputs"
