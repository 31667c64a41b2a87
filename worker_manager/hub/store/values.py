"""Between wire values and columns: ids, shapes, JSON."""

import json
import re
from functools import lru_cache
from typing import Any

from worker.protocol import Shape
from worker_manager.hub.match import Serves
from worker_manager.hub.refusals import NotFound
from worker_manager.hub.store.tables import WHOLE

_JOB_ID = re.compile(r"j([1-9][0-9]{0,17})(?:-(0|[1-9][0-9]{0,8}))?", re.ASCII)


def job_id(number: int, idx: int = WHOLE) -> str:
    return f"j{number}" if idx == WHOLE else f"j{number}-{idx}"


def parse_job_id(text: str) -> tuple[int, int]:
    """(number, idx). Raises NotFound: a name that is no id names no job."""
    match = _JOB_ID.fullmatch(text)
    if not match:
        raise NotFound(f"there is no job {text[:64]!r}: a job's id is j<number>, a task's j<number>-<index>")
    return int(match.group(1)), WHOLE if match.group(2) is None else int(match.group(2))


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@lru_cache(maxsize=65_536)
def shape_of(text: str) -> Shape:
    return Shape.from_wire(json.loads(text))


@lru_cache(maxsize=65_536)
def shape_text(shape: Shape) -> str:
    return json.dumps(shape.to_wire(), separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=4096)
def serves_of(text: str) -> Serves:
    wire = json.loads(text)
    return Serves(tuple(wire.get("owners", ())), tuple(wire.get("queues", ())))


def serves_text(serves: Serves) -> str:
    return json.dumps({"owners": sorted(serves.owners), "queues": sorted(serves.queues)}, separators=(",", ":"))
