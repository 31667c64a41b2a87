"""A job with files: what it asks for, how far it is, and how it may end beside as its process did."""

from typing import Any, List, Mapping, Optional, Sequence, Tuple

from worker.keeper.filling import ALWAYS, NEVER, ON_SUCCESS
from worker.protocol import Assignment, Outcome, Result
from worker.runner import Key

STAGING, HANDED, COLLECTING = "staging", "handed", "collecting"


MOST = 10_000  # inputs, or outputs, of one job
LONGEST = 4096


def are_inputs(told: Any) -> bool:
    """As an assignment says it. Nothing in it may lead out of the job's directory."""
    return _is_list(told) and all(
        _stays_inside(each.get("to"))
        and _is_word(each.get("source"))
        and isinstance(each.get("sha256", ""), str)
        and (each.get("size") is None or (isinstance(each["size"], int) and each["size"] >= 0))
        and all(isinstance(each.get(name, False), bool) for name in ("unpack", "copy", "run"))
        for each in told
    )


def are_outputs(told: Any) -> bool:
    return _is_list(told) and all(
        _stays_inside(each.get("glob"))
        and _is_word(each.get("to"))
        and all(isinstance(each.get(name, False), bool) for name in ("required", "always"))
        for each in told
    )


def _is_list(told: Any) -> bool:
    return isinstance(told, list) and len(told) <= MOST and all(isinstance(each, dict) for each in told)


def _is_word(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= LONGEST and text.isprintable()


def _stays_inside(path: Any) -> bool:
    """Relative, and neither `..` nor nothing in it: as it stands it is a path below the directory. A folder may end in
    a slash."""
    if not isinstance(path, str) or not 0 < len(path) <= LONGEST or "\0" in path:
        return False
    parts = (path[:-1] if path.endswith("/") else path).split("/")
    return all(part not in ("", ".", "..") for part in parts)


def has_files(assignment: Mapping[str, Any]) -> bool:
    work = assignment.get("work")
    return work is not None and ("inputs" in work or "outputs" in work)


class FileJob:
    __slots__ = ("assignment", "inputs", "kept", "outputs", "phase", "result", "told", "until", "visible")

    def __init__(self, assignment: Assignment) -> None:
        """Handed to the keeper, until it is staged or collected."""
        work = assignment.get("work") or {}
        self.assignment = assignment
        self.inputs: List[Any] = work.get("inputs") or []
        self.outputs: List[Any] = work.get("outputs") or []
        self.phase = HANDED
        self.visible: Tuple[str, ...] = ()
        self.result: Optional[Result] = None  # of its process, while its outputs are collected
        self.kept = ""
        self.told: Optional[Tuple[str, str, str]] = None  # to end: outcome, reason, text
        self.until = 0  # then what it has to keep may be sent no longer

    @property
    def key(self) -> Key:
        return self.assignment["job"], self.assignment["epoch"]


def when_kept(outputs: Sequence[Mapping[str, Any]]) -> int:
    """When the keeper sets its directory aside."""
    if not outputs:
        return NEVER
    return ALWAYS if any(each.get("always") for each in outputs) else ON_SUCCESS


def succeeded(result: Result) -> bool:
    return result["outcome"] == Outcome.SUCCEEDED


def changed(result: Result, outcome: str, reason: str, text: str) -> Result:
    """It has run, but that is not how it ends."""
    return Result(**{**result, "outcome": outcome, "reason": reason, "text": text})


def with_files(result: Result, files: Sequence[Mapping[str, Any]]) -> Result:
    return Result(**{**result, "files": [dict(each) for each in files]})


def unstarted(job: FileJob, outcome: str, reason: str, text: str) -> Result:
    """As of one that waited in the keeper's queue."""
    name, epoch = job.key
    return Result(
        job=name,
        epoch=epoch,
        outcome=outcome,
        exit_code=None,
        signal=None,
        reason=reason,
        text=text,
        started_ms=0,
        run_ms=0,
        cpu_ms=None,
        max_rss=None,
        output=0,
    )
