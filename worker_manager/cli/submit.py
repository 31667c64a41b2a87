"""`submit`: a job from the command line, or many from a file. Ids go to stdout, one a line."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from worker.protocol import UnitError, parse_bytes, parse_cpus, parse_duration
from worker_manager.cli.ids import job_id
from worker_manager.cli.inputs import input_of, output_of, sent, source_of
from worker_manager.cli.jobfiles import jobs_from
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.config.flags import CONNECTION
from worker_manager.errors import UsageError

MOST_AT_ONCE = 10_000  # jobs in one request
ISOLATIONS = ("process", "sandbox", "docker", "podman", "apptainer")


class _Submit(OurCommand):
    """An option of the job's command that stands there without -- is no option of ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        said = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in said or all(word.startswith("-") for word in said):
                raise
            hint = "What belongs to the job's command stands after --: worker-manager submit [options] -- COMMAND"
            raise click.UsageError(f"{error.format_message()} {hint}", ctx=ctx) from None


@click.command(cls=_Submit)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--shell", "pipeline", help="A line for /bin/sh instead of a command.")
@click.option(
    "-f",
    "--file",
    type=click.Path(allow_dash=True),
    help="Jobs from FILE: .yaml, .json, .jsonl, or - for stdin (JSON lines).",
)
@click.option("--name", help="For people; need not be unique.")
@click.option("--cpus", help="CPUs, such as 2 or 0.5. [default: 1]")
@click.option("--memory", help="Such as 4GiB. [default: 0]")
@click.option("--gpus", type=click.IntRange(0), help="[default: 0]")
@click.option("--gpu-type", help="Their type, such as a100. [default: any]")
@click.option("--disk", help="Such as 20GiB. [default: 0]")
@click.option(
    "--custom",
    "--resource",
    "custom",
    multiple=True,
    metavar="NAME=N",
    help="So many of a countable resource (repeatable).",
)
@click.option("--time-limit", help="Such as 10m; then the job is ended. [default: none]")
@click.option("--max-processes", type=click.IntRange(1), help="So many at once, threads included. [default: any]")
@click.option("--max-files", type=click.IntRange(16), help="Open at once in a process. [default: the worker's own]")
@click.option("--isolation", type=click.Choice(ISOLATIONS), help="How it is kept apart. [default: process]")
@click.option("--image", help="Of docker, podman or apptainer; says --isolation docker when none is given.")
@click.option(
    "--no-network", "network", flag_value=False, default=None, type=bool, help="Nothing but itself to talk to."
)
@click.option(
    "--checkpoint-signal",
    metavar="NAME",
    help="It saves what it has done when it hears this, such as USR1, and goes on in its next attempt.",
)
@click.option("--checkpoint-grace", metavar="DURATION", help="How long it may take for that. [default: 30s]")
@click.option(
    "--progress-regex",
    metavar="PATTERN",
    help="Finds its progress in its output: its group is percent, or two are done and whole: 'step (\\d+)/(\\d+)'.",
)
@click.option("--cpu-affinity", is_flag=True, default=None, help="Bind it to cores that no other such job has.")
@click.option("--tag", "tags", multiple=True, help="Run only on workers that offer it (repeatable).")
@click.option("--queue", help="[default: default]")
@click.option("--priority", type=click.IntRange(-100, 100), help="Higher goes first. [default: 0]")
@click.option("--retries", type=click.IntRange(0, 100), help="Tries again after a failure. [default: 0]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[TO=]FROM",
    help="A file, a folder or an address (https://, s3://, job:ID/path, …) that stands in its directory (repeatable).",
)
@click.option(
    "--input-unpack", "unpacked", multiple=True, metavar="[TO=]FROM", help="An archive; TO is a folder with its files."
)
@click.option(
    "--input-copy", "copied", multiple=True, metavar="[TO=]FROM", help="The same, and the job may write to it."
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="GLOB[=TO]",
    help="What is kept of its directory when it has ended: by the hub, or below TO, such as s3://bucket/prefix/ "
    "(repeatable). None there: it has failed.",
)
@click.option("--output-optional", "optional", multiple=True, metavar="GLOB[=TO]", help="The same, if it is there.")
@click.option(
    "--output-always",
    "always",
    multiple=True,
    metavar="GLOB[=TO]",
    help="The same, if it is there, even after a failure.",
)
@click.option(
    "--after", multiple=True, metavar="ID[:end]", help="Start when that job has succeeded, or with :end, ended."
)
@click.option(
    "--array", type=click.IntRange(1, 1_000_000), metavar="N", help="N tasks; WM_ARRAY_INDEX tells the number."
)
@click.option("--env", "env", multiple=True, metavar="K=V", help="A variable of the job (repeatable).")
@click.option("--idempotency-key", help="The same key and jobs again submit nothing new.")
@click.option(
    "--wait",
    is_flag=True,
    help="Wait until all have ended. One job: exit as it did; several: 1 when one did not succeed.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print no ids.")
@with_connection
@takes_invocation
def submit(inv: Invocation, command: tuple[str, ...], pipeline: str | None, file: str | None, **options: Any) -> int:
    """Submit a job: worker-manager submit [options] -- COMMAND [ARGUMENTS…]"""
    connection = {flag.key: options.pop(flag.key) for flag in CONNECTION}
    key, wait, quiet = options.pop("idempotency_key"), options.pop("wait"), options.pop("quiet")
    ways = [way for way in (command, pipeline, file) if way]
    if len(ways) != 1:
        raise UsageError("give one of: a command after --, --shell 'a line', or -f FILE")
    shared = spec_of(**options)
    if file:
        jobs = [_with(shared, job) for job in jobs_from(file)]
    else:
        jobs = [{"command": list(command) or ["/bin/sh", "-c", str(pipeline)], **shared}]
    inv = inv.plus(**connection)
    client = inv.client()
    jobs = sent(inv, client, jobs)
    ids = []
    for part, batch in enumerate(_batches(jobs)):
        # A key of our own makes the request safe to repeat when its answer is lost.
        one_key = (key or uuid.uuid4().hex) + (f"-{part}" if part else "")
        answer = client.post("/v1/jobs", {"jobs": batch}, headers={"Idempotency-Key": one_key}, idempotent=True)
        for job in answer["jobs"]:
            ids.append(job["id"])
            if not quiet:
                click.echo(job["id"])
    if wait:
        from worker_manager.cli.wait import wait_for

        return wait_for(inv, client, ids)
    return 0


def spec_of(
    *,
    env: Sequence[str] = (),
    after: Sequence[str] = (),
    tags: Sequence[str] = (),
    array: int | None = None,
    time_limit: str | None = None,
    checkpoint_signal: str | None = None,
    checkpoint_grace: str | None = None,
    inputs: Sequence[str] = (),
    unpacked: Sequence[str] = (),
    copied: Sequence[str] = (),
    outputs: Sequence[str] = (),
    optional: Sequence[str] = (),
    always: Sequence[str] = (),
    custom: Sequence[str] = (),
    **plain: Any,
) -> dict[str, Any]:
    """A JobSpec without its command; only what was given."""
    asked: dict[str, Any] = {
        "cpus": _amount("cpus", plain.pop("cpus", None), parse_cpus),
        "memory": _amount("memory", plain.pop("memory", None), parse_bytes),
        "disk": _amount("disk", plain.pop("disk", None), parse_bytes),
        "gpus": plain.pop("gpus", None),
        "gpu_type": plain.pop("gpu_type", None),
        "custom": dict(_count(pair) for pair in custom) or None,
    }
    spec: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    if checkpoint_signal is not None or checkpoint_grace is not None:
        told = {"signal": checkpoint_signal, "grace": _amount("checkpoint-grace", checkpoint_grace, parse_duration)}
        spec["checkpoint"] = {name: value for name, value in told.items() if value is not None}
    if "image" in spec:
        spec.setdefault("isolation", "docker")
    if any(value is not None for value in asked.values()):
        spec["resources"] = {name: value for name, value in asked.items() if value is not None}
    taken = [*map(input_of, inputs)]
    taken += [input_of(word, unpack=True) for word in unpacked] + [input_of(word, copy=True) for word in copied]
    kept = [*map(output_of, outputs), *(output_of(word, required=False) for word in optional)]
    kept += [output_of(word, required=False, always=True) for word in always]
    spec.update({name: value for name, value in (("inputs", taken), ("outputs", kept)) if value})
    if env:
        spec["env"] = dict(_variable(pair) for pair in env)
    if after:
        spec["depends_on"] = [_dependency(word) for word in after]
    if tags:
        spec["tags"] = sorted(set(tags))
    if array is not None:
        spec["array"] = {"count": array}
    if time_limit is not None:
        spec["time_limit_ms"] = _amount("time-limit", time_limit, parse_duration)
    return spec


def _amount(name: str, given: str | None, parse: Callable[[str], int]) -> int | None:
    try:
        return None if given is None else parse(given)
    except UnitError as error:
        raise UsageError(f"--{name}: {error}") from None


def _variable(pair: str) -> tuple[str, str]:
    name, sign, value = pair.partition("=")
    if not sign or not name:
        raise UsageError(f"--env: write NAME=VALUE, not {pair!r}")
    return name, value


def _count(pair: str) -> tuple[str, int]:
    name, _, number = pair.partition("=")
    if not name or not (number.isascii() and number.isdigit()):
        raise UsageError(f"--custom: write NAME=NUMBER, not {pair!r}")
    return name, int(number)


def _dependency(word: str) -> dict[str, str]:
    job, _, needs = word.partition(":")
    if needs not in ("", "success", "end"):
        raise UsageError(f"--after: write {job} or {job}:end, not {word!r}")
    return {"job": job_id(job), "needs": needs or "success"}


def _with(shared: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """The flags are defaults for the jobs of a file; what a job says itself wins."""
    merged = {**shared, **job}
    for part in ("resources", "env"):
        if part in shared and isinstance(job.get(part), dict):
            merged[part] = {**shared[part], **job[part]}
    for part in ("inputs", "outputs"):
        if part in shared and isinstance(job.get(part), list):
            merged[part] = [*shared[part], *job[part]]
    return merged


def _batches(jobs: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    if len(jobs) > MOST_AT_ONCE and any(_refers_to_neighbours(job) for job in jobs):
        raise UsageError(f"more than {MOST_AT_ONCE} jobs go in several requests, so '#n' cannot name one of them")
    return (jobs[start : start + MOST_AT_ONCE] for start in range(0, len(jobs), MOST_AT_ONCE))


def _refers_to_neighbours(job: dict[str, Any]) -> bool:
    needed = any(str(one.get("job", "")).startswith("#") for one in _objects(job.get("depends_on")))
    return needed or any(str(source_of(one)).startswith("job:#") for one in _objects(job.get("inputs")))


def _objects(listed: Any) -> list[dict[str, Any]]:
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
