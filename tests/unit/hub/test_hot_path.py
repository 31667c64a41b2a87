"""What a worker reports is checked before anything of it is kept."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from worker_manager.hub.logs import Place
from worker_manager.hub.outputlimits import OutputLimits
from worker_manager.hub.problems import Problem
from worker_manager.hub.routes.agents import _check_result, _is_plain, keep_output, read_chunks
from worker_manager.hub.wirecheck import Fields


class Kept:
    """Takes output, or cannot."""

    def __init__(self, error: OSError | None = None) -> None:
        self.pieces: list[bytes] = []
        self._error = error

    async def append(self, pieces: list[bytes]) -> list[Place]:
        if self._error is not None:
            raise self._error
        self.pieces += pieces
        return [Place("00000001", 100 * n, len(piece)) for n, piece in enumerate(pieces)]


def keep(kept: Kept, *chunks: Any) -> list[Any]:
    hub: Any = SimpleNamespace(logs=kept, output_limits=OutputLimits())
    return asyncio.run(keep_output(hub, read_chunks(list(chunks))))


def test_text_and_base64_become_bytes_with_a_place() -> None:
    kept = Kept()
    one = {"job": "j1", "epoch": 1, "offset": 0, "text": "ä"}
    two = {"job": "j2-7", "epoch": 3, "offset": 9, "b64": "/w=="}
    nothing = {"job": "j3", "epoch": 1, "offset": 0, "text": ""}
    pieces = keep(kept, one, nothing, two)
    assert kept.pieces == ["ä".encode(), b"\xff"]
    assert [(p.job, p.epoch, p.offset, p.length, p.segment_offset) for p in pieces] == [
        ("j1", 1, 0, 2, 0),
        ("j2-7", 3, 9, 1, 100),
    ]


@pytest.mark.parametrize(
    ("chunk", "where"),
    [
        (1, "logs[1]"),
        ({"epoch": 1, "offset": 0, "text": "x"}, "logs[1].job"),
        ({"job": "j1", "epoch": -1, "offset": 0, "text": "x"}, "logs[1].epoch"),
        ({"job": "j1", "epoch": 1, "offset": 2**63, "text": "x"}, "logs[1].offset"),
        ({"job": "j1", "epoch": 1, "offset": 0, "text": 5}, "logs[1].text"),
        ({"job": "j1", "epoch": 1, "offset": 0, "b64": "%%"}, "logs[1].b64"),
        ({"job": "j\0", "epoch": 1, "offset": 0, "text": "x"}, "logs[1].job"),
    ],
)
def test_one_bad_chunk_refuses_the_report_before_anything_is_written(chunk: Any, where: str) -> None:
    kept = Kept()
    with pytest.raises(Problem) as refused:
        keep(kept, {"job": "j1", "epoch": 1, "offset": 0, "text": "good"}, chunk)
    assert refused.value.status == 422
    assert refused.value.errors[0]["where"] == where
    assert kept.pieces == []


def test_output_that_cannot_be_written_is_asked_for_again() -> None:
    with pytest.raises(Problem) as refused:
        keep(Kept(OSError(28, "No space left on device")), {"job": "j1", "epoch": 1, "offset": 0, "text": "x"})
    assert (refused.value.status, refused.value.code) == (503, "logs-unwritable")
    assert "Retry-After" in refused.value.headers


PLAIN = {"job": "j1-2", "epoch": 1, "outcome": "succeeded", "exit_code": 0, "signal": None, "reason": "", "text": ""}


def looked_at_closely(result: Any) -> tuple[list[Any], Any]:
    """What is refused of it, and what becomes of it."""
    result = dict(result) if isinstance(result, dict) else result
    fields = Fields({})
    _check_result(fields, 0, result)
    return fields.mistakes, result


def test_an_ordinary_result_needs_no_closer_look() -> None:
    whole = {**PLAIN, "started_ms": 5, "run_ms": 1, "cpu_ms": 0, "max_rss": 2**20, "output": 0}
    for result in (PLAIN, whole, {**whole, "exit_code": None, "signal": 9}, {**PLAIN, "exit_code": -1}):
        assert _is_plain(result)
        assert looked_at_closely(result) == ([], result)


@pytest.mark.parametrize(
    "odd",
    [
        {"job": "j" * 65},
        {"job": 7},
        {"job": "j\0"},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 2**63},
        {"outcome": "won"},
        {"outcome": ["succeeded"]},
        {"exit_code": "0"},
        {"exit_code": 2**63},
        {"signal": -9},
        {"run_ms": 1.5},
        {"max_rss": True},
        {"reason": None},
        {"reason": "time-limit"},
        {"text": "\0"},
        {"text": "x" * 5000},
    ],
)
def test_what_is_refused_or_mended_is_looked_at_closely(odd: dict[str, Any]) -> None:
    assert not _is_plain({**PLAIN, **odd})


def test_what_lacks_a_field_or_is_no_object_is_looked_at_closely() -> None:
    for name in ("job", "epoch", "outcome", "reason", "text"):
        assert not _is_plain({key: value for key, value in PLAIN.items() if key != name})
    assert not _is_plain([PLAIN])
