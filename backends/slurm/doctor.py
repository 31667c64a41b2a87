"""What `doctor` asks of a cluster: programs, controller, partitions, does a worker fit, would sbatch take it."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backends import tools
from backends.base import Context, Finding, Severity, clipped
from backends.slurm import states
from backends.slurm.client import Client, Unanswered
from backends.slurm.folders import WorkDir
from backends.slurm.recipe import MAX_BATCH, MIB, resources
from backends.slurm.settings import SlurmSettings, minutes_of, time_text
from worker.protocol import Shape, format_bytes

_PROGRAMS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol")
_FIELDS = "%R|%a|%l|%c|%m|%G|%D|%t"


@dataclass(frozen=True)
class Nodes:
    """One line of sinfo: nodes of a partition that are alike."""

    partition: str
    available: str  # up, down, drain, inact
    minutes: int | None  # the partition's time limit; None: no limit
    cpus: int
    memory: int  # bytes
    gpus: int
    gpu_types: frozenset[str]
    count: int
    state: str


def findings(client: Client, settings: SlurmSettings, work_dir: WorkDir, context: Context) -> Iterator[Finding]:
    yield from folder_findings(work_dir)
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)}: no such program here"
        mend = "run the manager on a login node, or install Slurm's client programs (Debian: slurm-client)"
        yield Finding("programs", Severity.ERROR, text, mend)
        return
    try:
        version = client.read(["sbatch", "--version"]).strip()
        yield Finding("programs", Severity.OK, f"{version}: {shutil.which('sbatch')}")
        nodes = parse_sinfo(client.read(["sinfo", "--noheader", f"--format={_FIELDS}"]))
    except Unanswered as failed:
        mend = "`scontrol ping` shows whether it runs; SLURM_CONF names another configuration"
        yield Finding("controller", Severity.ERROR, clipped(str(failed)), mend)
        return
    yield Finding("controller", Severity.OK, "answers")
    yield from partition_findings(settings, nodes, context.shape)
    yield from array_findings(client, context.max_workers)
    yield dry_run(client, settings, context.shape)


def folder_findings(work_dir: WorkDir) -> Iterator[Finding]:
    subject = "slurm-work-dir"
    try:
        work_dir.make()
        with tempfile.NamedTemporaryFile(dir=work_dir.own):
            pass
        mode = work_dir.own.stat().st_mode & 0o777
    except OSError as failed:
        mend = f"mkdir -p -m 700 {work_dir.root}, or another --slurm-work-dir that the nodes share"
        yield Finding(subject, Severity.ERROR, f"{work_dir.root}: {failed.strerror}", mend)
        return
    if mode & 0o077:
        text = f"{work_dir.own} can be read by others, and join tokens lie in it"
        yield Finding(subject, Severity.ERROR, text, f"chmod 700 {work_dir.own}")
    elif _is_local_to_this_host(work_dir.root):
        text = f"{work_dir.root} is temporary, and nodes seldom share that"
        yield Finding(subject, Severity.WARNING, text, "--slurm-work-dir in a folder that every node sees")
    else:
        yield Finding(subject, Severity.OK, f"{work_dir.own} can be written; the nodes must see it under the same name")


def partition_findings(settings: SlurmSettings, nodes: tuple[Nodes, ...], shape: Shape | None) -> Iterator[Finding]:
    existing = {one.partition for one in nodes}
    for name in settings.partition.split(","):
        subject = f"partition {name}"
        if name not in existing:
            there = ", ".join(sorted(existing)) or "none"
            yield Finding(subject, Severity.ERROR, f"there is none of this name; there are: {there}", "--partition")
            continue
        mine = [one for one in nodes if one.partition == name]
        if mine[0].available != "up":
            text = f"it is {mine[0].available}: what is submitted waits"
            yield Finding(subject, Severity.WARNING, text, f"scontrol update partitionname={name} state=up")
        else:
            usable = sum(one.count for one in mine if not one.state.startswith(("down", "drain", "fail", "unk")))
            mend = f"sinfo --partition={name} --list-reasons" if not usable else ""
            severity = Severity.OK if usable else Severity.WARNING
            yield Finding(subject, severity, f"up, {usable} of {sum(one.count for one in mine)} nodes usable", mend)
        limit = mine[0].minutes
        if limit is not None and limit < (settings.minutes_min or settings.minutes):
            text = f"its time limit is {time_text(limit)}, a worker's {time_text(settings.minutes)}"
            yield Finding(subject, Severity.ERROR, text, f"--time {time_text(limit)}")
        if shape is not None:
            yield fit(name, mine, shape)


def fit(partition: str, nodes: list[Nodes], shape: Shape) -> Finding:
    """Is there a node, free or not, that one worker fits on?"""
    subject = f"shape in {partition}"
    cpus = max(1, -(-shape.cpus // 1000))
    for one in nodes:
        typed = not shape.gpu_type or not shape.gpus or shape.gpu_type in one.gpu_types
        if one.cpus >= cpus and one.memory >= shape.memory and one.gpus >= shape.gpus and typed:
            return Finding(subject, Severity.OK, "fits on a node")
    largest = max(nodes, key=lambda one: (one.gpus >= shape.gpus, one.cpus, one.memory))
    text = (
        f"a worker has {_amounts(cpus, shape.memory, shape.gpus, shape.gpu_type)}; the largest node "
        f"{_amounts(largest.cpus, largest.memory, largest.gpus, ','.join(sorted(largest.gpu_types)))}"
    )
    return Finding(subject, Severity.ERROR, text, "give the pool a smaller shape")


def _amounts(cpus: int, memory: int, gpus: int, kind: str) -> str:
    return f"{cpus} CPUs, {format_bytes(memory)}, {gpus}{' ' if kind else ''}{kind} GPUs"


def array_findings(client: Client, max_workers: int | None) -> Iterator[Finding]:
    """Workers are submitted as arrays, and a larger one than the cluster takes is refused whole."""
    try:
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", client.read(["scontrol", "show", "config"]))
    except Unanswered:
        return
    most = max(1, int(found[1])) if found else MAX_BATCH
    if most < min(MAX_BATCH, max_workers or MAX_BATCH):
        text = f"the cluster takes arrays of {most} workers at most, and refuses larger ones"
        yield Finding("arrays", Severity.WARNING, text, f"limits: {{step-up: {most}}} in the pool")


def dry_run(client: Client, settings: SlurmSettings, shape: Shape | None) -> Finding:
    """Account, quality of service, reservation and the rest, as the controller itself judges them."""
    words = [f"--{name}={value}" for name, value in settings.selectors]
    argv = ["sbatch", "--test-only", f"--partition={settings.partition}", f"--time={time_text(settings.minutes)}"]
    argv += [*resources(shape or Shape()), *words, *settings.directives]
    with tempfile.NamedTemporaryFile("w", prefix="worker-manager-") as script:
        script.write("#!/bin/sh\n")
        script.flush()
        try:
            ran = client.run([*argv, script.name])
        except (tools.TookTooLong, tools.NotInstalled, tools.TooMuch, OSError) as failed:
            return Finding("dry run", Severity.ERROR, str(failed), "scontrol ping")
    if ran.status == 0:
        return Finding("dry run", Severity.OK, clipped(ran.words.removeprefix("sbatch: ")))
    kind = states.refusal_of_sbatch(ran.status, ran.err)
    named = f"{kind.value}: " if kind else ""
    return Finding(
        "dry run", Severity.ERROR, clipped(named + ran.words), "change the option that it names, or ask the site"
    )


def parse_sinfo(text: str) -> tuple[Nodes, ...]:
    """Lines that are none are skipped: this is only for people."""
    found = []
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 8 or not fields[6].isdecimal():
            continue
        partition, available, limit, cpus, memory, gres, count, state = fields
        gpus, types = _gpus(gres)
        found.append(
            Nodes(
                partition=partition,
                available=available,
                minutes=None if limit in ("infinite", "n/a") else minutes_of(limit),
                cpus=_number(cpus),
                memory=_number(memory) * MIB,
                gpus=gpus,
                gpu_types=types,
                count=int(count),
                state=state,
            )
        )
    return tuple(found)


def _gpus(gres: str) -> tuple[int, frozenset[str]]:
    """`gpu:4`, `gpu:a100:4(S:0-1)`, several with commas."""
    total, types = 0, set()
    for kind, number in re.findall(r"gpu(?::([^:,(]+(?=:)))?:(\d+)", gres):
        total += int(number)
        types |= {kind} if kind else set()
    return total, frozenset(types)


def _number(text: str) -> int:
    """`8`, or `8+` for nodes that differ."""
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def _is_local_to_this_host(root: Path) -> bool:
    return any(root.is_relative_to(place) for place in ("/tmp", "/var/tmp", "/dev/shm", "/run"))  # noqa: S108
