"""What can be listed, and its columns."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from worker.protocol import Phase, format_bytes, format_cpus
from worker_manager.cli.output import (
    NOTHING,
    Column,
    Kind,
    Row,
    age,
    ago,
    duration,
    held,
    moment,
    resources,
    text,
    uses,
)

LONG_AGO_MS = 10**12  # what is more is an instant, what is less a length of time


def jobs(now_ms: int) -> Kind:
    return Kind(
        "Job",
        (
            Column("ID", text("id")),
            Column("NAME", text("name"), longest=32),
            Column("STATE", job_state, colored=True),
            Column("ASKS", lambda job: resources(job.get("resources"))),
            Column("WORKER", text("worker")),
            Column("RAN", lambda job: duration(job.get("run_ms"))),
            Column("AGE", age("submitted_ms", now_ms)),
            Column("OWNER", text("owner"), wide=True),
            Column("QUEUE", text("queue"), wide=True),
            Column("PRIORITY", text("priority"), wide=True),
            Column("TRY", text("attempt"), wide=True),
            Column("EXIT", text("exit_code"), wide=True),
            Column("USES", used, wide=True),
            Column("PROGRESS", lambda job: how_far(job.get("progress")), wide=True),
            Column("COMMAND", lambda job: shlex.join(job.get("command") or ())[:60], wide=True),
            Column("WHY", why),
        ),
    )


def workers(now_ms: int) -> Kind:
    return Kind(
        "Worker",
        (
            Column("ID", text("id")),
            Column("POOL", text("pool")),
            Column("STATE", text("state"), colored=True),
            Column("JOBS", lambda worker: f"{worker.get('running', 0)}+{worker.get('assigned', 0)}"),
            Column("DONE", text("runs")),
            Column("HAS", lambda worker: resources(worker.get("shape"))),
            Column("FREE", free),
            Column("AGE", since("ready_ms", "requested_ms", now_ms)),
            Column("SEEN", age("seen_ms", now_ms)),
            Column("IDLE", age("idle_since_ms", now_ms)),
            Column("MANAGER", text("manager"), wide=True),
            Column("HOST", lambda worker: str((worker.get("host") or {}).get("hostname") or NOTHING), wide=True),
            Column("CACHE", lambda worker: held(worker.get("cache")), wide=True),
            Column("CONFIG", text("config"), wide=True),
            Column("WHY", worker_why),
        ),
    )


def pools(now_ms: int) -> Kind:
    return Kind(
        "Pool",
        (
            Column("POOL", text("pool")),
            Column("MANAGER", text("manager")),
            Column("WANTED", text("wanted")),
            Column("REQUESTED", text("requested")),
            Column("OBSERVED", text("observed")),
            Column("READY", text("ready")),
            Column("IDLE", text("idle")),
            Column("DRAINING", text("draining"), wide=True),
            Column("MIN", text("min_workers")),
            Column("MAX", text("max_workers")),
            Column("SEEN", age("seen_ms", now_ms)),
            Column("WHY", lambda pool: pool_why(pool, now_ms)),
        ),
        key="pool",
    )


def events(_: int) -> Kind:
    return Kind(
        "Event",
        (
            Column("AT", lambda event: moment(event.get("at_ms"))),
            Column("SEQ", text("seq"), wide=True),
            Column("KIND", text("kind")),
            Column("SUBJECT", text("subject")),
            Column("WHAT", lambda event: details(event.get("data"))),
        ),
        key="seq",
    )


# ---------------------------------------------------------------- cells


def job_state(job: Row) -> str:
    """An array says how far it is, and so does a job whose worker told."""
    array = job.get("array")
    if isinstance(array, Mapping) and array.get("count"):
        done = sum(array.get(state) or 0 for state in ("succeeded", "failed", "cancelled"))
        return f"{job.get('state')} {done}/{array['count']}"
    progress = job.get("progress")
    if isinstance(progress, Mapping) and (
        progress.get("phase") != Phase.RUNNING or progress.get("percent") is not None
    ):
        return " ".join([str(job.get("state", NOTHING)), *_phase(progress), *_percent(progress)])
    return str(job.get("state", NOTHING))


def why(job: Row) -> str:
    """What keeps a job that waits; how one ended that did not succeed."""
    if job.get("unservable"):
        return "no pool can serve it: " + sentence(job["unservable"])
    if job.get("state") in ("queued", "blocked"):
        waits, first = job.get("waits"), job.get("waits_for")
        if first:
            return "waits for " + ", ".join(first)
        if waits:
            return f"{waits.get('pool')}: {sentence(waits.get('reason'))}"
    array = job.get("array")
    if isinstance(array, Mapping) and array.get("failed"):
        return f"{array['failed']} failed: get jobs --array {job.get('id')} --state failed"
    return str(job.get("text") or sentence(job.get("reason")))


def used(job: Row) -> str:
    """What it uses now; of one that has ended, its processor time and the most memory that it held."""
    if job.get("usage") is not None or job.get("cpu_ms") is None:
        return uses(job.get("usage"))
    peak = "" if job.get("max_rss") is None else f", {format_bytes(job['max_rss'])}"
    return duration(job["cpu_ms"]) + peak


def how_far(progress: Any) -> str:
    """`40%, epoch 3`; `staging 12%, 1.2 GiB of 10 GiB`; `17, files` where nobody knows how many there are."""
    if not isinstance(progress, Mapping):
        return NOTHING
    done, whole = progress.get("done"), progress.get("whole")
    moves = progress.get("phase") != Phase.RUNNING
    amount = format_bytes if moves else str
    words = _percent(progress) or ([] if moves else [str(done)])
    words = [" ".join([*_phase(progress), *words])] if words or moves else []
    if moves:
        words.append(amount(done or 0) + (f" of {amount(whole)}" if whole else ""))
    return ", ".join([*words, *([str(progress["text"])] if progress.get("text") else [])])


def _phase(progress: Row) -> list[str]:
    return [] if progress.get("phase") == Phase.RUNNING else [str(progress.get("phase"))]


def _percent(progress: Row) -> list[str]:
    return [] if progress.get("percent") is None else [f"{progress['percent']}%"]


def free(worker: Row) -> str:
    wire = worker.get("free")
    if not isinstance(wire, Mapping):
        return NOTHING
    parts = [f"{format_cpus(wire.get('cpus', 1000))} cpu"]
    return ", ".join(parts + ([format_bytes(wire["memory"])] if wire.get("memory") else []))


# What to do about a worker that its platform lets wait, or refused.
_MENDS = {
    "capacity": "it has no machine of this kind now: wait, or let the pool use other machines",
    "quota": "ask for a higher quota, or lower max-workers",
    "config": "it will never work like this: change what it says",
    "auth": "renew or extend the credentials; worker-manager doctor tries them",
    "throttled": "it was asked too often: nothing to do",
}


def platform_says(worker: Row) -> str:
    """Of a worker that has not registered: its platform's words, and what to do."""
    refusal = worker.get("refusal")
    said = [f"{refusal}: {worker['text']}" if worker.get("text") else str(refusal)] if refusal else []
    said = said or ([str(worker["text"])] if worker.get("text") else [])
    return "; ".join([*said, *([_MENDS[refusal]] if refusal in _MENDS else [])]) or NOTHING


def worker_why(worker: Row) -> str:
    """Why it drains; of one that has not registered, what its platform says."""
    cordon = sentence((worker.get("cordon") or {}).get("reason"))
    return cordon if cordon != NOTHING else platform_says(worker)


def since(name: str, otherwise: str, now_ms: int) -> Callable[[Row], str]:
    one, other = age(name, now_ms), age(otherwise, now_ms)
    return lambda row: one(row) if row.get(name) is not None else other(row)


def pool_why(pool: Row, now_ms: int) -> str:
    """A freeze comes first: while it lasts nothing else matters."""
    reasons = [sentence(reason) for reason in pool.get("reasons") or () if code(reason) != "frozen"]
    frozen = pool.get("frozen")
    if isinstance(frozen, Mapping):
        reasons.insert(0, f"frozen, ends {ago(frozen['until_ms'], now_ms)}: {frozen.get('text') or 'no reason given'}")
    return "; ".join(reasons) or NOTHING


def code(reason: Any) -> str:
    return str(reason.get("code", "")) if isinstance(reason, Mapping) else ""


def sentence(reason: Any) -> str:
    """A reason as {code, numbers, text}, or as plain words."""
    if isinstance(reason, Mapping):
        return str(reason.get("text") or reason.get("code") or NOTHING)
    return str(reason) if reason else NOTHING


def decision_why(decision: Row) -> str:
    """What asked for it, how much came of it, and the limits that left no more."""
    limits = [sentence(limit) for limit in decision.get("limited") or ()]
    return "; ".join(filter(None, (sentence(decision.get("reason")), decision.get("text"), *limits)))


def details(data: Any) -> str:
    if not isinstance(data, Mapping):
        return str(data) if data else NOTHING
    if isinstance(data.get("decision"), Mapping):
        made = data["decision"]
        return f"{made.get('action')} {made.get('subject')}: {made.get('outcome')}; {decision_why(made)}"
    if data.get("text"):
        return str(data["text"])
    return (
        " ".join(
            f"{name.removesuffix('_ms')}={told(value, name)}" for name, value in data.items() if value not in (None, "")
        )
        or NOTHING
    )


def told(value: Any, name: str = "") -> str:
    if name.endswith("_ms") and isinstance(value, int):
        return moment(value) if value > LONG_AGO_MS else duration(value)
    return ",".join(map(str, value)) if isinstance(value, list) else sentence(value) if value else str(value)
