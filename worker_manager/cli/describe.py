"""`describe job|worker|pool ID`."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import click

from worker_manager.cli.ids import kind_and_name
from worker_manager.cli.kinds import decision_why, how_far, job_state, platform_says, pool_why, sentence, why
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import (
    Column,
    ago,
    duration,
    gpu_use,
    held,
    moment_ago,
    resources,
    show_one,
    show_pairs,
    show_table,
    size,
    text,
    uses,
)
from worker_manager.cli.world import Invocation, takes_invocation

_PATHS = {"job": "/v1/jobs/{}", "worker": "/v1/workers/{}", "pool": "/v1/pools/{}/explain"}
_SECRET = re.compile(r"token|passw|secret|credential|key$", re.IGNORECASE)
_LIMITS = (("max_processes", "processes"), ("max_files", "open files"))
BAR = 20
_FORM = click.Choice(["text", "json", "yaml"])


@click.command(cls=OurCommand)
@click.argument("words", nargs=-1, required=True, metavar="[job|worker|pool] ID")
@click.option("-o", "--output", type=_FORM, default="text", help="[default: text]")
@with_connection
@takes_invocation
def describe(inv: Invocation, words: tuple[str, ...], output: str, **connection: Any) -> None:
    """Everything about one job, worker or pool."""
    kind, name = kind_and_name(words, list(_PATHS), "worker")
    thing = inv.plus(**connection).client().get(_PATHS[kind].format(quote(name, safe="")))
    if output != "text":
        show_one(kind.capitalize(), thing, output)
    else:
        {"job": _job, "worker": _worker, "pool": _pool}[kind](inv, thing)


def _job(inv: Invocation, job: Mapping[str, Any]) -> None:
    now = inv.world.now_ms()
    show_pairs(
        [
            ("Job", str(job.get("id", ""))),
            ("Name", text("name")(job)),
            ("State", job_state(job)),
            ("Why", why(job)),
            ("Command", shlex.join(job.get("command") or ())),
            ("Environment", " ".join(_variable(*pair) for pair in (job.get("env") or {}).items())),
            ("Asks", resources(job.get("resources"))),
            ("Tags", ", ".join(job.get("tags") or ())),
            ("Owner", text("owner")(job)),
            ("Queue", text("queue")(job)),
            ("Priority", text("priority")(job)),
            ("Time limit", duration(job.get("time_limit_ms"))),
            ("Limits", _limits(job)),
            ("Checkpoint", _checkpoint(job["checkpoint"]) if job.get("checkpoint") else ""),
            ("Isolation", _isolation(job) if job.get("isolation") else ""),
            *_files(job),
            ("Retries", text("retries")(job)),
            ("Worker", text("worker")(job)),
            ("Exit code", text("exit_code")(job)),
            ("Signal", text("signal")(job)),
            ("Submitted", moment_ago(job.get("submitted_ms"), now)),
            ("Started", moment_ago(job.get("started_ms"), now)),
            ("Ended", moment_ago(job.get("ended_ms"), now)),
            ("Ran", duration(job.get("run_ms"))),
            ("CPU", duration(job.get("cpu_ms"))),
            ("Peak memory", size(job.get("max_rss"))),
            ("Uses now", uses(job.get("usage"))),
            ("GPUs", _gpus(job.get("usage"))),
            ("Progress", _progress(job.get("progress"), now)),
        ]
    )
    _array(job.get("array"))
    _table(
        inv,
        "Attempts",
        job.get("attempts"),
        (
            Column("TRY", lambda attempt: str(attempt.get("epoch", attempt.get("attempt", "-")))),
            Column("WORKER", text("worker")),
            Column("STATE", lambda attempt: str(attempt.get("outcome") or attempt.get("state") or "-"), colored=True),
            Column("EXIT", text("exit_code")),
            Column("RAN", lambda attempt: duration(attempt.get("run_ms"))),
            Column("WHY", lambda attempt: str(attempt.get("text") or sentence(attempt.get("reason")))),
        ),
    )
    show_verdicts(inv, job.get("why"))


def _variable(name: str, value: str) -> str:
    """A screen is often seen by others: what looks like a secret is named there, and told by -o json only."""
    return f"{name}={'***' if _SECRET.search(name) else value}"


def _limits(job: Mapping[str, Any]) -> str:
    """What of it is bounded or bound beyond what it asks for."""
    words = [f"{job[name]} {what}" for name, what in _LIMITS if job.get(name)]
    return ", ".join([*words, *(["cores of its own"] if job.get("cpu_affinity") else [])])


def _checkpoint(told: Mapping[str, Any]) -> str:
    return f"{told.get('signal')}, {duration(told.get('grace_ms'))} before it must go"


def _isolation(job: Mapping[str, Any]) -> str:
    words = [job["isolation"], job.get("image"), None if job.get("network", True) else "no network"]
    return ", ".join(word for word in words if word)


def _files(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What it takes, what of it is kept, and what was."""
    for each in job.get("inputs") or ():
        words = [f"{each.get('to')} from {_shown(str(each.get('source')))}"]
        words += [
            word
            for name, word in (("unpack", "unpacked"), ("copy", "a copy of its own"), ("run", "executable"))
            if each.get(name)
        ]
        yield "Input", ", ".join(words)
    for each in job.get("outputs") or ():
        words = [f"{each.get('glob')} to {'the hub' if each.get('to') == 'hub' else each.get('to')}"]
        words += [] if each.get("required", True) else ["if it is there"]
        words += ["even after a failure"] if each.get("always") else []
        yield "Output", ", ".join(words)
    kept = job.get("files")
    if isinstance(kept, Mapping):
        count = kept.get("count")
        yield (
            "Kept",
            f"{count} file{'s' * (count != 1)}, {size(kept.get('size'))}: worker-manager files {job.get('id')}",
        )


def _shown(source: str) -> str:
    """What is signed into a web address is as good as a key."""
    address, sign, _ = source.partition("?")
    return f"{address}?…" if sign and source.startswith("http") else source


def _progress(progress: Any, now: int) -> str:
    if not isinstance(progress, Mapping):
        return ""
    percent = progress.get("percent")
    full = 0 if percent is None else percent * BAR // 100
    bar = "" if percent is None else f"[{'#' * full}{'-' * (BAR - full)}] "
    return f"{bar}{how_far(progress)} ({ago(progress.get('at_ms') or now, now)})"


def _array(array: Any) -> None:
    if isinstance(array, Mapping):
        counts = ", ".join(f"{array[state]} {state}" for state in array if state != "count" and array[state])
        click.echo(f"{array.get('count')} tasks: {counts}")


def _worker(inv: Invocation, worker: Mapping[str, Any]) -> None:
    cordon = worker.get("cordon") or {}
    host = worker.get("host") or {}
    now = inv.world.now_ms()
    show_pairs(
        [
            ("Worker", str(worker.get("id", ""))),
            ("Pool", text("pool")(worker)),
            ("Manager", text("manager")(worker)),
            ("State", text("state")(worker)),
            ("Has", resources(worker.get("shape"))),
            ("Free", resources(worker.get("free"))),
            ("Shares machine", str((worker.get("shape") or {}).get("machine", ""))),
            ("Running", text("running")(worker)),
            ("Assigned", text("assigned")(worker)),
            ("Jobs done", text("runs")(worker)),
            ("Jobs here", ", ".join(str(_id_of(job)) for job in worker.get("jobs") or ())),
            ("Host", " ".join(f"{name}={value}" for name, value in host.items())),
            ("Asked for", moment_ago(worker.get("requested_ms"), now)),
            ("Platform says", platform_says(worker)),
            ("Ready", moment_ago(worker.get("ready_ms"), now)),
            ("Last seen", moment_ago(worker.get("seen_ms"), now)),
            ("Idle since", moment_ago(worker.get("idle_since_ms"), now)),
            ("Gone", moment_ago(worker.get("gone_ms"), now)),
            ("Drains", sentence(cordon.get("reason")) if cordon else ""),
            ("Drains until", moment_ago(cordon.get("deadline_ms"), now) if cordon else ""),
            ("Config", text("config")(worker)),
            ("Agent uses", uses(worker.get("usage"))),
            ("Disk free", size((worker.get("usage") or {}).get("disk"))),
            ("Load", _load(worker.get("usage") or {})),
            ("Cache", held(worker.get("cache"))),
            ("GPUs", _gpus(worker.get("usage"))),
        ]
    )


def _load(usage: Mapping[str, Any]) -> str:
    return "" if usage.get("load") is None else f"{usage['load'] / 1000:.2f}"


def _gpus(usage: Any) -> str:
    return ", ".join(gpu_use(one) for one in (usage or {}).get("gpus") or ())


def _id_of(job: Any) -> Any:
    return job.get("id", job.get("job")) if isinstance(job, Mapping) else job


def _pool(inv: Invocation, answer: Mapping[str, Any]) -> None:
    """One for each manager that has a pool of this name."""
    now = inv.world.now_ms()
    for pool in answer.get("pools") or ():
        show_pairs(
            [
                ("Pool", text("pool")(pool)),
                ("Manager", text("manager")(pool)),
                ("Workers", counts(pool)),
                ("Bounds", f"{pool.get('min_workers', '-')} to {pool.get('max_workers', '-')}"),
                ("Why", pool_why(pool, now)),
                ("Last seen", moment_ago(pool.get("seen_ms"), now)),
            ]
        )
        show_verdicts(inv, pool.get("verdicts"))
        show_awaited(inv, pool.get("awaited"))
        show_decisions(inv, pool.get("decisions"))


def counts(pool: Mapping[str, Any]) -> str:
    names = ("wanted", "requested", "observed", "ready", "idle", "draining")
    return ", ".join(f"{pool[name]} {name}" for name in names if pool.get(name) is not None)


def show_decisions(inv: Invocation, decisions: Any) -> None:
    """What was done, newest last, and how it went."""
    now = inv.world.now_ms()
    _table(
        inv,
        "Last decisions",
        decisions,
        (
            Column("WHEN", lambda decision: ago(decision.get("at_ms") or now, now)),
            Column("ACTION", text("action")),
            Column("SUBJECT", text("subject")),
            Column("OUTCOME", text("outcome")),
            Column("WHY", decision_why),
        ),
    )


def show_awaited(inv: Invocation, awaited: Any) -> None:
    """Workers that have not registered, and what their platform says of them."""
    now = inv.world.now_ms()
    columns = (
        Column("WORKER", text("worker")),
        Column("STATE", text("state"), colored=True),
        Column("ASKED FOR", lambda one: ago(one.get("since") or now, now)),
        Column("ITS PLATFORM SAYS", platform_says),
    )
    _table(inv, "Not registered yet", awaited, columns)


def show_verdicts(inv: Invocation, verdicts: Any) -> None:
    """What becomes of a job, or of each job group, in each pool."""
    groups = (Column("GROUP", text("group")),) if any(verdict.get("group") for verdict in verdicts or ()) else ()
    columns = (
        Column("POOL", text("pool")),
        *groups,
        Column("STATUS", text("status")),
        Column("JOBS", text("jobs")),
        Column("WHY", lambda verdict: sentence(verdict.get("reason"))),
    )
    _table(inv, "Verdicts", verdicts, columns)


def _table(inv: Invocation, title: str, rows: Any, columns: tuple[Column, ...]) -> None:
    if rows:
        click.echo(f"{title}:")
        show_table(columns, rows, inv.colored, width=inv.width)
