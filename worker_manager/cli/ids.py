"""What people type for an id → what the hub calls it: `7` is `j7`, `job/j7` and `J7` are as well."""

import re
from collections.abc import Sequence

from worker_manager.errors import UsageError

_JOB = re.compile(r"(?:jobs?/)?j?(\d+(?:-\d+)?)", re.IGNORECASE | re.ASCII)


def job_id(word: str) -> str:
    """What is no job's id at all stays as it is: the hub says that there is none."""
    found = _JOB.fullmatch(word)
    return f"j{found.group(1)}" if found else word


def looks_like_job(word: str) -> bool:
    return _JOB.fullmatch(word) is not None


def kind_and_name(words: Sequence[str], kinds: Sequence[str], otherwise: str) -> tuple[str, str]:
    """`job j7`, `job/j7` or `j7`. A name alone is a job's if it looks like one, else that of an `otherwise`."""
    if len(words) == 1:
        kind, sign, name = words[0].partition("/")
        if not sign:
            kind, name = "job" if looks_like_job(words[0]) else otherwise, words[0]
    elif len(words) == 2:
        kind, name = words
    else:
        kind, name = "", ""
    kind = kind.removesuffix("s")
    if kind not in kinds or not name or name in kinds:
        raise UsageError(f"name one thing: {' or '.join(f'{kind} ID' for kind in kinds)}")
    return kind, job_id(name) if kind == "job" else name


def without_kind(words: Sequence[str], kind: str) -> tuple[str, ...]:
    """`pool gpu` and `gpu` alike."""
    named = tuple(words[1:] if words and words[0] in (kind, f"{kind}s") else words)
    if not named:
        raise UsageError(f"name a {kind}")
    return tuple(name.removeprefix(f"{kind}/") for name in named)
