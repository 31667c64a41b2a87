"""A submission → where its workers go and what each host is asked: values in, values out."""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backends.base import AgentFile, Submission
from backends.sound import NAME
from backends.start import Site, script

MASK = "***"
_HANDLE = re.compile(rf"({NAME.pattern})-(0|[1-9]\d{{0,5}})@(.*)", re.DOTALL)


def spread(indexes: Iterable[int], free: Mapping[str, int]) -> dict[str, list[int]]:
    """Each worker to the host with the most free slots; those for which there is none are left out."""
    left = dict(free)
    placed: dict[str, list[int]] = {}
    for index in indexes:
        host = max(left, key=lambda name: left[name], default="")
        if not host or left[host] <= 0:
            break
        left[host] -= 1
        placed.setdefault(host, []).append(index)
    return placed


def place(base: str, host: str, manager: str, pool: str) -> dict[str, str]:
    """The folder of this manager and pool on that host, whatever their names are made of."""
    name = f"{quote(manager, safe='')}@{quote(pool, safe='')}"
    if len(name) > 200:
        name = f"{name[:100]}@{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return {"base": base, "host": host, "pool": name}


def handle(submission: str, index: int, host: str) -> str:
    return f"{submission}-{index}@{host}"


def parse_handle(text: str) -> tuple[str, int, str] | None:
    """Submission, index and the host's key; None when it names nothing that could be ours."""
    match = _HANDLE.fullmatch(text)
    return (match[1], int(match[2]), match[3]) if match else None


def launch_request(
    submission: Submission, indexes: Sequence[int], slots: int, python: Sequence[str], copies: bool
) -> dict[str, Any]:
    """Without the agent's bytes, which are sent only where they are missing."""
    tokens = {str(index): submission.join_tokens[index] for index in indexes} if submission.join_tokens else {}
    request = {
        "call": "launch",
        "submission": submission.id,
        "indexes": list(indexes),
        "slots": slots,
        "tokens": tokens,
        "setup": bool(submission.setup),
        "script": start_script(submission, python, copies),
    }
    return request | ({"agent": {"sha256": submission.agent.sha256}} if submission.agent and copies else {})


def start_script(submission: Submission, python: Sequence[str], copies: bool) -> str:
    """The same for every worker: its number comes from the far side."""
    token = ('export WM_JOIN_TOKEN_FILE="$WM_WORKER_DIR/join-token"',) if submission.join_tokens else ()
    agent = '"$WM_AGENT"' if submission.agent and copies else ""
    return script(submission, Site(index='"$WM_INDEX"', token=token, python=tuple(python), agent=agent))


def carried(agent: AgentFile) -> dict[str, str]:
    """The agent as it travels in a request. Raises OSError when our copy cannot be read."""
    return {"sha256": agent.sha256, "data": base64.b64encode(Path(agent.path).read_bytes()).decode()}


def rendered(argv: Sequence[str], request: Mapping[str, Any]) -> str:
    """For people: what is run here and what it is given, with the secrets masked."""
    shown = {**request, "tokens": dict.fromkeys(request["tokens"], MASK), "script": "(below)"}
    return f"{shlex.join(argv)}\n\n{json.dumps(shown, indent=2)}\n\n# start.sh\n{request['script']}"
