"""What an operator tells the hub: cancel, drain, undrain, delete, freeze, unfreeze."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import click

from worker.protocol import JobState, UnitError, parse_duration
from worker_manager.cli.get import pages
from worker_manager.cli.ids import job_id, without_kind
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import HubError, UsageError

EVERYTHING = 1_000_000
AT_ONCE = 8  # requests: the hub commits together what comes together
MANY = 16
PAGE = 500


@click.command(cls=OurCommand)
@click.argument("jobs", nargs=-1, metavar="ID…")
@click.option("--all", "everything", is_flag=True, help="Every job that has not ended; --state narrows it.")
@click.option(
    "--state", type=click.Choice([s for s in JobState.ALL if s not in JobState.FINAL]), help="With --all: only these."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_connection
@takes_invocation
def cancel(
    inv: Invocation, jobs: tuple[str, ...], everything: bool, state: str | None, yes: bool, **connection: Any
) -> int:
    """Cancel jobs. What runs gets TERM, its grace, then KILL."""
    if bool(jobs) == everything or (state and not everything):
        raise UsageError("name jobs, or say --all (and perhaps --state queued)")
    client = inv.plus(**connection).client()
    chosen: Sequence[str] = [job_id(job) for job in without_kind(jobs, "job")] if jobs else []
    if everything:
        states = [state] if state else [s for s in JobState.ALL if s not in JobState.FINAL]
        found = [pages(client, "/v1/jobs", "jobs", {"state": one}, EVERYTHING, None)[0] for one in states]
        chosen = [str(job["id"]) for part in found for job in part]
        if not chosen:
            inv.say("there is no such job")
            return 0
        inv.confirm(f"Cancel {len(chosen)} jobs?", yes)

    if len(chosen) >= MANY:
        return told(inv, _cancelled(client, chosen))

    def end(job: str) -> None:
        _look_at(client.post(f"/v1/jobs/{quote(job, safe='')}/cancel", {}, idempotent=True))

    return each(inv, chosen, end)


def _cancelled(client: Any, jobs: Sequence[str]) -> Iterator[tuple[str, Exception | None]]:
    """Many at a time: one commit of the hub for each request."""
    for first in range(0, len(jobs), PAGE):
        answer = client.post("/v1/jobs/cancel", {"jobs": list(jobs[first : first + PAGE])}, idempotent=True)
        for job in answer["jobs"]:
            yield job["id"], _problem(job)


def _problem(job: Any) -> Exception | None:
    if "detail" in job:
        return HubError(0, job["code"], job["detail"])
    try:
        _look_at(job)
    except Already as already:
        return already
    return None


def _look_at(job: Any) -> None:
    if job.get("state") in JobState.FINAL and job["state"] != JobState.CANCELLED:
        raise Already(f"it had ended before: {job['state']}")


@click.command(cls=OurCommand)
@click.argument("workers", nargs=-1, required=True, metavar="WORKER…")
@click.option("--reason", default="", help="For people.")
@click.option("--within", metavar="TIME", help="Hand back what still runs after this, such as 30m.")
@with_connection
@takes_invocation
def drain(inv: Invocation, workers: tuple[str, ...], reason: str, within: str | None, **connection: Any) -> int:
    """Let workers finish what they have and take nothing new; then they exit."""
    body: dict[str, Any] = {"reason": reason}
    if within:
        body["deadline_ms"] = inv.world.now_ms() + _time("within", within)
    client = inv.plus(**connection).client()
    names = without_kind(workers, "worker")
    return each(
        inv, names, lambda worker: client.post(f"/v1/workers/{quote(worker, safe='')}/drain", body, idempotent=True)
    )


@click.command(cls=OurCommand)
@click.argument("workers", nargs=-1, required=True, metavar="WORKER…")
@with_connection
@takes_invocation
def undrain(inv: Invocation, workers: tuple[str, ...], **connection: Any) -> int:
    """Let drained workers take jobs again."""
    client = inv.plus(**connection).client()
    names = without_kind(workers, "worker")
    return each(
        inv, names, lambda worker: client.post(f"/v1/workers/{quote(worker, safe='')}/undrain", {}, idempotent=True)
    )


@click.command(cls=OurCommand)
@click.argument("workers", nargs=-1, required=True, metavar="worker ID…")
@click.option("--force", is_flag=True, help="Also a busy one: its jobs go back to the queue at once.")
@click.option("--grace-period", metavar="TIME", help="Between asking it and ending it, such as 30s.")
@with_connection
@takes_invocation
def delete(inv: Invocation, workers: tuple[str, ...], force: bool, grace_period: str | None, **connection: Any) -> int:
    """Tell a worker to hand everything back and exit, and its backend to end it."""
    params: dict[str, Any] = {"force": "true" if force else None}
    if grace_period:
        params["grace_ms"] = _time("grace-period", grace_period)
    client = inv.plus(**connection).client()

    def end(worker: str) -> Any:
        return client.request("DELETE", f"/v1/workers/{quote(worker, safe='')}", params=params, idempotent=True)

    return each(inv, without_kind(workers, "worker"), end)


@click.command(cls=OurCommand)
@click.argument("pools", nargs=-1, required=True, metavar="pool NAME")
@click.option("--for", "length", default="30m", metavar="TIME", help="It always ends by itself. [default: 30m]")
@click.option("--text", default="", help="Why; shown wherever the pool is.")
@click.option("--manager", help="Where two managers have a pool of this name.")
@with_connection
@takes_invocation
def freeze(
    inv: Invocation, pools: tuple[str, ...], length: str, text: str, manager: str | None, **connection: Any
) -> int:
    """Keep a pool as it is: nothing is launched, nothing goes."""
    body: dict[str, Any] = {"for_ms": _time("for", length), "text": text, **({"manager": manager} if manager else {})}
    client = inv.plus(**connection).client()
    names = without_kind(pools, "pool")
    return each(inv, names, lambda name: client.post(f"/v1/pools/{quote(name, safe='')}/freeze", body))


@click.command(cls=OurCommand)
@click.argument("pools", nargs=-1, required=True, metavar="pool NAME")
@click.option("--manager", help="Where two managers have a pool of this name.")
@with_connection
@takes_invocation
def unfreeze(inv: Invocation, pools: tuple[str, ...], manager: str | None, **connection: Any) -> int:
    """Let a frozen pool scale again."""
    body = {"manager": manager} if manager else {}
    client = inv.plus(**connection).client()
    names = without_kind(pools, "pool")
    return each(inv, names, lambda name: client.post(f"/v1/pools/{quote(name, safe='')}/unfreeze", body))


class Already(Exception):
    """Nothing had to be done, and the person may want to know."""


def each(inv: Invocation, names: Sequence[str], act: Callable[[str], Any]) -> int:
    """Every one is tried; the names of those done go to stdout, and 1 comes back when one was refused."""
    return told(inv, _tried(names, act))


def told(inv: Invocation, tried: Iterable[tuple[str, Exception | None]]) -> int:
    refused = 0
    for name, problem in tried:
        if problem is None:
            click.echo(name)
        else:
            refused |= not isinstance(problem, Already)
            inv.say(f"worker-manager: {_without_echo(name, str(problem))}")
    return int(refused)


def _tried(names: Sequence[str], act: Callable[[str], Any]) -> Iterator[tuple[str, Exception | None]]:
    def one(name: str) -> tuple[str, Exception | None]:
        try:
            act(name)
        except (HubError, Already) as error:
            return name, error
        return name, None

    if len(names) < MANY:
        yield from map(one, names)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(one, names)


def _without_echo(name: str, problem: str) -> str:
    return problem if name in problem.replace("'", " ").split() else f"{name}: {problem}"


def _time(option: str, text: str) -> int:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise UsageError(f"--{option}: {error}") from None
