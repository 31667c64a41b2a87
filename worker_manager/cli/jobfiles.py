"""Files of jobs: YAML, JSON, or a job in each line."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker_manager.cli.inputs import from_folder
from worker_manager.errors import UsageError

MAX_FILE = 256 << 20


def jobs_from(file: str) -> list[dict[str, Any]]:
    """The jobs of a file. Amounts in it are as people write them: `cpus: 2` is two CPUs."""
    name = "stdin" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > MAX_FILE:
        raise UsageError(f"{name} is larger than {MAX_FILE >> 20} MiB")
    if file.endswith((".yaml", ".yml")):
        from worker_manager.config.yaml_file import read

        jobs = _list_of_jobs(read(text, name, MAX_FILE).value, name)
    elif file.endswith(".json"):
        jobs = _list_of_jobs(_json(text, name), name)
    else:
        jobs = [(f"{name}:{number}", _json(line, f"{name}:{number}")) for number, line in _lines(text)]
    if not jobs:
        raise UsageError(f"{name} holds no job")
    folder = Path.cwd() if file == "-" else Path(file).absolute().parent
    return [from_folder(_job(where, job), folder) for where, job in jobs]


def _list_of_jobs(value: Any, name: str) -> list[tuple[str, Any]]:
    listed = value.get("jobs") if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise UsageError(f"{name}: write jobs: and a list of jobs under it")
    return [(f"{name}: jobs[{number}]", job) for number, job in enumerate(listed)]


def _lines(text: str) -> Iterable[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise UsageError(f"{where}: nested too deep") from None
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is set a second time")
        found[name] = value
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number there")


def _job(where: str, job: Any) -> dict[str, Any]:
    if not isinstance(job, dict):
        raise UsageError(f"{where}: a job is an object with a command, not {type(job).__name__}")
    spec = dict(job)
    if isinstance(spec.get("command"), str):
        raise UsageError(f"{where}: command is a list of words; for a line of shell write [/bin/sh, -c, '…']")
    resources = spec.get("resources")
    if isinstance(resources, dict) and isinstance(resources.get("cpus"), int | float):
        spec["resources"] = {**resources, "cpus": str(resources["cpus"])}
    if isinstance(spec.get("time_limit"), int | float):
        spec["time_limit"] = str(spec["time_limit"])
    return spec
