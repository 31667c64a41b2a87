"""`files JOB`: what it has kept. `download JOB [GLOB…]`: the same, to a folder here."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from worker.protocol import format_bytes
from worker_manager.cli.ids import kind_and_name
from worker_manager.cli.lazy import OurCommand, with_connection
from worker_manager.cli.output import FORMATS, Column, Kind, show_list, size, text
from worker_manager.cli.transfers import Meter, all_of, metered
from worker_manager.cli.world import Invocation, takes_invocation
from worker_manager.errors import UsageError, WorkerManagerError

PAGE = 1000
SHOWN = 10  # names in a message

File = Mapping[str, Any]


@click.command(cls=OurCommand)
@click.argument("job", metavar="JOB")
@click.argument("globs", nargs=-1, metavar="[GLOB]…")
@click.option("--attempt", type=click.IntRange(1), help="Of an earlier try. [default: the last that ended]")
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", help="[default: table]")
@with_connection
@takes_invocation
def files(
    inv: Invocation, job: str, globs: tuple[str, ...], attempt: int | None, output: str, **connection: Any
) -> None:
    """List the files that a job, or one task of an array (JOB-NUMBER), has kept."""
    inv = inv.plus(**connection)
    client = inv.client()
    name = _name(job)
    listed = _matching(_kept(client, name, attempt)["files"], globs)
    if not listed:
        _say_why_there_is_none(inv, client, name, globs)
    columns = (
        Column("PATH", text("path")),
        Column("SIZE", lambda file: size(file.get("size"))),
        Column("SHA256", text("sha256"), wide=True),
        Column("AT", text("at"), wide=True),
    )
    show_list(inv, Kind("File", columns, key="path"), listed, output)


@click.command(cls=OurCommand)
@click.argument("job", metavar="JOB")
@click.argument("globs", nargs=-1, metavar="[GLOB]…")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder. [default: here]")
@click.option("--attempt", type=click.IntRange(1), help="Of an earlier try. [default: the last that ended]")
@click.option("--force", is_flag=True, help="Replace files that are there and differ.")
@click.option("-q", "--quiet", is_flag=True, help="Print no names.")
@with_connection
@takes_invocation
def download(
    inv: Invocation,
    job: str,
    globs: tuple[str, ...],
    to: Path,
    attempt: int | None,
    force: bool,
    quiet: bool,
    **connection: Any,
) -> int:
    """Fetch what a job has kept: all of it, or what a GLOB means (** crosses folders, a folder is all in it). Each file
    is held against its digest, and goes on where an earlier call broke off."""
    inv = inv.plus(**connection)
    client = inv.client()
    name = _name(job)
    kept = _kept(client, name, attempt)
    listed = _matching(kept["files"], globs)
    if not listed:
        _say_why_there_is_none(inv, client, name, globs)
        return 1
    places = {str(file["path"]): _place(to, str(file["path"])) for file in listed}
    wanted = _not_there_yet(listed, places, force)
    failed = _fetch(inv, client, name, int(kept["attempt"]), wanted, places)
    for path, error in sorted(failed.items()):
        inv.say(f"worker-manager: {_plain(path)}: {error}")
    if not quiet:
        for file in listed:
            if file["path"] not in failed:
                click.echo(places[file["path"]])
    return 1 if failed else 0


def _name(job: str) -> str:
    return kind_and_name((job,), ["job"], "job")[1]


def _kept(client: Any, job: str, attempt: int | None) -> dict[str, Any]:
    """All pages as one."""
    found: dict[str, Any] = {}
    cursor = None
    while True:
        asked = {"attempt": found.get("attempt", attempt), "limit": PAGE, "cursor": cursor}
        page = client.get(f"/v1/jobs/{quote(job, safe='')}/files", params=asked)
        found = {**page, "files": [*found.get("files", []), *page["files"]]}
        cursor = page["next"]
        if cursor is None:
            return found


def _matching(listed: Sequence[File], globs: Sequence[str]) -> list[File]:
    if not globs:
        return list(listed)
    from worker.staging.errors import Refused
    from worker.staging.patterns import Pattern

    try:
        patterns = [Pattern(glob.rstrip("/") or glob) for glob in globs]
    except Refused as error:
        raise UsageError(str(error)) from None
    return [file for file in listed if any(_fits(pattern, str(file["path"])) for pattern in patterns)]


def _fits(pattern: Any, path: str) -> bool:
    where = pattern.start
    for part in path.split("/"):
        where = pattern.after(where, part)
    return bool(pattern.fits(where))


def _say_why_there_is_none(inv: Invocation, client: Any, name: str, globs: Sequence[str]) -> None:
    job = client.get(f"/v1/jobs/{quote(name, safe='')}")
    if job.get("array"):
        raise UsageError(
            f"{name} is an array: name one of its tasks, {name}-0 to {name}-{job['array'].get('count', 1) - 1}"
        )
    if not job.get("outputs"):
        inv.say(f"{name} keeps nothing: it was submitted without --output")
    elif globs and job.get("files"):
        inv.say(f"{name} has kept {job['files'].get('count')} files, and none of them is meant by {' '.join(globs)}")
    else:
        inv.say(f"{name} is {job.get('state')} and has kept nothing")


# ---------------------------------------------------------------- where they go


def _place(to: Path, path: str) -> Path:
    """Below `to`, whatever the hub says, and whatever links lie there."""
    from worker_manager.hub.files.names import is_safe_path

    if not is_safe_path(path):
        raise WorkerManagerError(f"the hub names {path[:200]!r}, which is no path below a folder")
    place = to / path
    if not place.parent.resolve().is_relative_to(to.resolve()):
        raise UsageError(f"{place.parent} is a link that leads out of {to}: nothing is written through it")
    return place


def _not_there_yet(listed: Sequence[File], places: Mapping[str, Path], force: bool) -> list[File]:
    """Without what is there already, byte for byte. Raises UsageError for what is there and differs."""
    wanted, others = [], []
    for file in listed:
        place = places[file["path"]]
        if place.is_symlink() or place.exists():
            if _is_same(place, file):
                continue
            others.append(place)
        wanted.append(file)
    folders = [place for place in others if place.is_dir() and not place.is_symlink()]
    if folders:
        raise UsageError(f"{_some(folders)}: a folder is in the way")
    if others and not force:
        raise UsageError(f"{_some(others)}: there already, and other than what was kept; --force replaces it")
    return wanted


def _is_same(place: Path, file: File) -> bool:
    if place.is_symlink() or not place.is_file() or place.stat().st_size != file["size"]:
        return False
    try:
        with place.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == str(file["sha256"])
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror or error}") from None


def _some(places: Sequence[Path]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(_plain(str(place)) for place in places[:SHOWN]) + more


def _plain(name: str) -> str:
    """A job may have named a file in any way: it does not speak to the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


# ---------------------------------------------------------------- how they come


def _fetch(
    inv: Invocation, client: Any, job: str, attempt: int, wanted: Sequence[File], places: Mapping[str, Path]
) -> dict[str, Exception]:
    """What could not be had, with the reason; the others are there then."""
    from worker_manager.blob_client import BlobClient

    blobs = BlobClient(client)
    by_path = {str(file["path"]): file for file in wanted}

    def one(path: str, meter: Meter) -> None:
        place = places[path]
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkerManagerError(f"{place.parent} cannot be made: {error.strerror or error}") from None
        source = f"/v1/jobs/{quote(job, safe='')}/files/{quote(path)}?attempt={attempt}"
        blobs.download(source, place, by_path[path]["sha256"], meter.of_one())

    whole = sum(int(file["size"]) for file in wanted)
    what = f"fetching {len(wanted)} file{'s' * (len(wanted) != 1)}, {format_bytes(whole)}"
    with metered(inv, what, whole) as meter:
        done = all_of(meter, list(by_path), lambda path: one(path, meter), go_on=True)
    return dict(_failures(done))


def _failures(done: Mapping[str, Any]) -> Iterator[tuple[str, Exception]]:
    return ((path, found) for path, found in done.items() if isinstance(found, Exception))
