"""Inputs and outputs as people write them; what is a file of this machine is sent to the hub first.

`[TO=]FROM`: FROM is an address (blob:, job:, http(s)://, s3://, az://, gs://, file:///) or a file or folder here, TO
the path that it is to have in the job's directory, else its own name. With a / at its end TO is a folder for it.
"""

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker_manager.cli.transfers import all_of, metered
from worker_manager.cli.world import Invocation
from worker_manager.errors import UsageError

MOST = 1000  # inputs of a job
_ADDRESS = re.compile(r"(?:blob|job):|(?:https?|s3|az|gs|file)://")
_JOB = re.compile(r"^job:(?=[0-9])")  # 7 is j7, as everywhere
_PLACE = re.compile(r"=(hub|(?:s3|az|gs)://.*)\Z", re.DOTALL)

Spec = dict[str, Any]


def input_of(word: str, **more: bool) -> Spec:
    to, source = _split(word)
    if not source:
        raise UsageError(f"--input: write [TO=]FROM, not {word!r}")
    found: Spec = {"from": _JOB.sub("job:j", source), **more}
    if to:
        found["to"] = _to(to, source)
    return found


def _split(word: str) -> tuple[str, str]:
    to, sign, source = word.partition("=")
    if not sign or _ADDRESS.match(to) or to.startswith(("/", "./", "../")):
        return "", word  # the = belongs to an address, or to a name
    return to, source


def _to(to: str, source: str) -> str:
    path = source.partition("?")[0] if source.startswith("http") else source
    name = path.rstrip("/").rpartition("/")[2]
    return posixpath.normpath(to + name if to.endswith("/") else to)


def output_of(word: str, **more: bool) -> Spec:
    found = _PLACE.search(word)
    if found is None:
        return {"glob": posixpath.normpath(word) if word else word, **more}
    to = found.group(1)
    glob = posixpath.normpath(word[: found.start()])
    return {"glob": glob, "to": to if to == "hub" or to.endswith("/") else to + "/", **more}


def is_here(source: object) -> bool:
    """A file or folder of this machine."""
    return isinstance(source, str) and not _ADDRESS.match(source)


def source_of(each: Mapping[str, Any]) -> Any:
    return each.get("from", each.get("source"))


def from_folder(job: Spec, folder: Path) -> Spec:
    """A job of a file: what it names of this machine lies beside that file."""
    inputs = job.get("inputs")
    if not isinstance(inputs, list):
        return job
    return {**job, "inputs": [_from_folder(each, folder) for each in inputs]}


def _from_folder(each: Any, folder: Path) -> Any:
    if not isinstance(each, dict) or not is_here(source_of(each)):
        return each
    name = "from" if "from" in each else "source"
    return {**each, name: str(folder / each[name])}


# ---------------------------------------------------------------- sending


def sent(inv: Invocation, client: Any, jobs: Sequence[Spec]) -> list[Spec]:
    """The jobs, with blobs of the hub in place of files of this machine. A file is read and sent once, however many
    jobs name it; what the hub has is not sent."""
    named = {source_of(each) for job in jobs for each in _inputs(job) if is_here(source_of(each))}
    if not named:
        return list(jobs)
    files = {source: _files_of(source) for source in named}
    wanted = {path: path.stat().st_size for found in files.values() for path in found.values()}
    from worker_manager.blob_client import BlobClient

    blobs = BlobClient(client)
    what = f"sending {len(wanted)} file{'s' * (len(wanted) != 1)}"
    with metered(inv, what, sum(wanted.values())) as meter:
        stored = all_of(meter, list(wanted), lambda path: blobs.upload(path, meter.of_one()))

    def expanded(each: Spec) -> Iterator[Spec]:
        source = source_of(each)
        if not is_here(source):
            yield each
            return
        if each.get("unpack") and "" not in files[source]:
            raise UsageError(f"{source} is a folder: only an archive can be unpacked")
        rest = {name: value for name, value in each.items() if name not in ("from", "source", "to")}
        for below, path in files[source].items():
            found = stored[path]
            if rest.get("sha256") not in (None, "", found.sha256):
                raise UsageError(f"{path} has the SHA-256 {found.sha256}, not {rest['sha256']}")
            place = _place(str(each.get("to") or _own_name(source)), below)
            more = {"run": True} if path.stat().st_mode & 0o100 and not each.get("unpack") else {}
            yield {**more, **rest, "source": f"blob:{found.sha256}", "to": place, "size": found.size}

    return [_with_inputs(job, expanded) for job in jobs]


def _with_inputs(job: Spec, expanded: Any) -> Spec:
    if not any(is_here(source_of(each)) for each in _inputs(job)):
        return job
    found = [one for each in job["inputs"] for one in (expanded(each) if isinstance(each, dict) else [each])]
    if len(found) > MOST:
        raise UsageError(
            f"a job takes at most {MOST} inputs, and these are {len(found)} files: put them into an archive (tar), and "
            "say --input-unpack"
        )
    return {**job, "inputs": found}


def _inputs(job: Spec) -> Iterable[Spec]:
    inputs = job.get("inputs")
    return [each for each in inputs if isinstance(each, dict)] if isinstance(inputs, list) else []


def _own_name(source: str) -> str:
    return Path(os.path.abspath(source)).name  # noqa: PTH100 -- a link keeps its name


def _place(to: str, below: str) -> str:
    return posixpath.normpath(posixpath.join(to, below)) if below else to


def _files_of(source: str) -> dict[str, Path]:
    """Path below the source ("" for a file itself) → where it is."""
    path = Path(source)
    try:
        if not path.is_dir():
            _refuse_what_is_no_file(path)
            return {"": path}
        found = dict(_walk(path))
    except OSError as error:
        raise UsageError(f"{error.filename or source} cannot be read: {error.strerror or error}") from None
    if not found:
        raise UsageError(f"{source} has no file in it")
    return found


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in folders:
            if Path(place, name).is_symlink():
                raise UsageError(f"{Path(place, name)} is a link to a folder: name that folder by itself")
        for name in sorted(names):
            path = Path(place, name)
            _refuse_what_is_no_file(path)
            yield path.relative_to(folder).as_posix(), path


def _raise(error: OSError) -> None:
    raise error


def _refuse_what_is_no_file(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(f"{path} is neither a file nor a folder")
