"""What the hub counts about itself, in a registry of its own (Prometheus text)."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from worker_manager.hub.inventory import Inventory

WAITS_EVERY_S = 5.0
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

TO_HOLDERS = "to_holders"
CACHE = {  # what workers count of their caches, as it is shown here
    "hits": ("wm_hub_cache_hits", "Inputs that a cache had"),
    "hit_bytes": ("wm_hub_cache_saved_bytes", "Bytes that needed not be fetched"),
    "misses": ("wm_hub_cache_misses", "Inputs that were fetched"),
    "built_bytes": ("wm_hub_cache_fetched_bytes", "Bytes that were fetched"),
    "evicted": ("wm_hub_cache_evicted", "Entries that made room for others"),
    "evicted_bytes": ("wm_hub_cache_evicted_bytes", "Bytes of those"),
    "broken": ("wm_hub_cache_broken", "Entries that were not what they should be, and were fetched anew"),
    TO_HOLDERS: ("wm_hub_jobs_to_holders", "Jobs that went before others to a worker that holds their inputs"),
}


class Metrics:
    """Counters move as things happen; gauges are set from the store when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("wm_hub_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.jobs = Gauge("wm_hub_jobs", "Jobs by state", ["state"], registry=self.registry)
        self.workers = Gauge("wm_hub_workers", "Workers by state", ["state"], registry=self.registry)
        self.backlog_jobs = Gauge("wm_hub_backlog_jobs", "Jobs that wait", registry=self.registry)
        self.backlog_groups = Gauge("wm_hub_backlog_groups", "Groups of jobs that wait", registry=self.registry)
        self.oldest = Gauge("wm_hub_backlog_oldest_seconds", "Age of the oldest waiting job", registry=self.registry)
        self.serving = Gauge("wm_hub_requests_serving", "Requests being served", registry=self.registry)
        self.waiting = Gauge("wm_hub_long_polls", "Requests that wait", registry=self.registry)
        self.wait = Gauge(
            "wm_hub_job_wait_seconds", "Wait of the jobs of the last hour", ["quantile"], registry=self.registry
        )
        self.leases_lost = Counter("wm_hub_leases_lost", "Workers whose lease ended", registry=self.registry)
        self.recalled = Counter("wm_hub_jobs_recalled", "Unstarted jobs called back", registry=self.registry)
        self.turned_away = Gauge("wm_hub_requests_turned_away", "Requests refused with 429", registry=self.registry)
        self.log_bytes = Counter("wm_hub_log_bytes", "Bytes of job output taken", registry=self.registry)
        self.log_batch = Histogram(
            "wm_hub_log_batch", "Pieces of output made durable together", buckets=BATCH, registry=self.registry
        )
        self.blobs = Gauge("wm_hub_blobs", "Blobs on disk", registry=self.registry)
        self.blob_bytes = Gauge("wm_hub_blob_bytes", "Bytes of blobs on disk", ["part"], registry=self.registry)
        self.transfers = Gauge("wm_hub_blob_transfers", "Blobs being moved", ["way"], registry=self.registry)
        self.blob_bytes_received = Counter("wm_hub_blob_bytes_received", "Bytes of blobs taken", registry=self.registry)
        self.blob_bytes_sent = Counter("wm_hub_blob_bytes_sent", "Bytes of blobs sent", registry=self.registry)
        self.commits = Counter("wm_hub_commits", "Commits that changed something", registry=self.registry)
        self._commit_batch = Histogram(
            "wm_hub_commit_batch", "Changes written in one commit", buckets=BATCH, registry=self.registry
        )
        self._commit_seconds = Histogram(
            "wm_hub_commit_seconds", "How long a commit took", buckets=SECONDS, registry=self.registry
        )
        self._cache = {name: Counter(*words, registry=self.registry) for name, words in CACHE.items()}
        self._cache_shown = dict.fromkeys(CACHE, 0)
        self.cache_entries = Gauge("wm_hub_cache_entries", "Entries that caches hold", registry=self.registry)
        self.cache_bytes = Gauge("wm_hub_cache_bytes", "Bytes that caches hold", registry=self.registry)
        self._waits_due = 0.0
        self._by_route: dict[tuple[str, int], Any] = {}

    def took_output(self, pieces: int, size: int) -> None:
        self.log_batch.observe(pieces)
        self.log_bytes.inc(size)

    def committed(self, changes: int, seconds: float) -> None:
        self._commit_batch.observe(changes)
        self._commit_seconds.observe(seconds)

    def answered(self, route: str, status: int) -> None:
        child = self._by_route.get((route, status))
        if child is None:
            child = self._by_route[route, status] = self._requests.labels(route, str(status))
        child.inc()

    def show_backlog(self, groups: Iterable[Mapping[str, Any]], now_ms: int) -> None:
        waiting = list(groups)
        self.backlog_groups.set(len(waiting))
        self.backlog_jobs.set(sum(group["count"] for group in waiting))
        self.oldest.set(max((now_ms - group["oldest_ms"] for group in waiting), default=0) / 1000)

    def takes_waits(self, now: float) -> bool:
        """Whether the waits should be computed anew: who is told so does it, and says with `waits_took` how long."""
        if now < self._waits_due:
            return False
        self._waits_due = now + WAITS_EVERY_S
        return True

    def waits_took(self, seconds: float, now: float) -> None:
        """On a large database the figures are costly: at most a twentieth of the time goes into them."""
        self._waits_due = now + max(WAITS_EVERY_S, 20 * seconds)

    def show_waits(self, waits_ms: Mapping[str, int | None]) -> None:
        """Unknown is not shown: it is not zero."""
        self.wait.clear()
        for quantile, wait_ms in waits_ms.items():
            if wait_ms is not None:
                self.wait.labels(quantile).set(wait_ms / 1000)

    def show_counts(self, gauge: Gauge, counts: Mapping[str, int]) -> None:
        gauge.clear()
        for state, count in counts.items():
            gauge.labels(state).set(count)

    def show_cache(self, inventory: Inventory, to_holders: int) -> None:
        """`to_holders`: jobs that went first to a worker for what it holds."""
        for name, count in {**inventory.totals(), TO_HOLDERS: to_holders}.items():
            if name in self._cache:
                self._cache[name].inc(max(0, count - self._cache_shown[name]))
                self._cache_shown[name] = max(count, self._cache_shown[name])
        entries, size = inventory.held()
        self.cache_entries.set(entries)
        self.cache_bytes.set(size)

    def show_blobs(self, count: int, whole: int, unfinished: int, uploads: int, transfers: int) -> None:
        self.blobs.set(count)
        self.show_counts(self.blob_bytes, {"whole": whole, "unfinished": unfinished})
        self.show_counts(self.transfers, {"upload": uploads, "download": transfers - uploads})

    def text(self) -> bytes:
        return generate_latest(self.registry)
