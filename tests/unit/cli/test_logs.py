import pytest

from tests.unit.cli.house import FakeHub, House
from worker_manager.cli.logs import last_lines
from worker_manager.errors import SourceUnavailable

PATH = ("GET", "/v1/jobs/j1/logs")
JOB = ("GET", "/v1/jobs/j1")


def piece(body: bytes, following: int, complete: bool, attempt: int = 1) -> tuple[bytes, dict[str, str]]:
    headers = {"X-Next-Offset": str(following), "X-Complete": str(complete).lower(), "X-Attempt": str(attempt)}
    return body, headers


def job(state: str, attempt: int = 1, **more: object) -> dict[str, object]:
    return {"id": "j1", "state": state, "attempt": attempt, **more}


def reads(house: House) -> list[dict[str, object]]:
    return [dict(asked.params) for asked in house.hub.asked if asked.path.endswith("/logs")]


def test_all_pieces_are_printed_until_there_is_no_more() -> None:
    house = House(FakeHub({PATH: [piece(b"one\n", 4, False), piece(b"two\n", 8, False), piece(b"", 8, False)]}))
    assert house.ok("logs", "j1") == "one\ntwo\n"
    assert [asked["offset"] for asked in reads(house)] == [0, 4, 8]
    assert all("wait_ms" not in asked for asked in reads(house))


def test_following_waits_until_the_job_has_ended_and_over_a_hub_that_restarts() -> None:
    pieces = [piece(b"one\n", 4, False), piece(b"", 4, False), SourceUnavailable("away"), piece(b"two\n", 8, True)]
    house = House(FakeHub({PATH: pieces, JOB: job("succeeded")}))
    assert house.ok("logs", "-f", "j1") == "one\ntwo\n"
    assert [(asked["offset"], asked.get("wait_ms")) for asked in reads(house)] == [
        (0, None),
        (4, 20_000),
        (4, 20_000),
        (4, 20_000),
    ]
    assert house.slept == [1.0]


def test_following_goes_on_with_the_next_attempt_from_its_beginning() -> None:
    pieces = [piece(b"first\n", 6, True), piece(b"xx", 8, False, 2), piece(b"second\n", 7, True, 2)]
    house = House(FakeHub({PATH: pieces, JOB: [job("assigned", 2), job("succeeded", 2)]}))
    assert house.ok("logs", "-f", "j1") == "first\nsecond\n"


def test_without_following_an_absent_hub_is_an_error() -> None:
    assert "away" in House(FakeHub({PATH: SourceUnavailable("away")})).refused("logs", "j1")


def test_the_tail_goes_on_from_its_end() -> None:
    house = House(FakeHub({PATH: [piece(b"x\ny\nz\n", 100, False), piece(b"new\n", 104, True)], JOB: job("failed")}))
    assert house.ok("logs", "-f", "--tail", "2", "j1") == "y\nz\nnew\n"
    assert reads(house)[1]["offset"] == 100


def test_a_tail_is_read_once() -> None:
    house = House(FakeHub({PATH: piece(b"x\ny\n", 4, False)}))
    assert house.ok("logs", "--tail", "1", "1") == "y\n"
    assert len(reads(house)) == 1


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (job("queued", 0, waits={"pool": "p", "reason": {"text": "max-workers: 4 of 4"}}), "p: max-workers: 4 of 4"),
        (job("running"), "j1 is running and has written nothing yet"),
        (job("succeeded"), "j1 has succeeded and wrote nothing"),
        (job("cancelled"), "j1 was cancelled"),
    ],
)
def test_where_there_is_no_output_it_says_why(found: dict[str, object], told: str) -> None:
    result = House(FakeHub({PATH: piece(b"", 0, False), JOB: found})).run("logs", "j1")
    assert (result.code, result.stdout) == (0, "")
    assert told in result.stderr


def test_an_array_has_no_output_of_its_own() -> None:
    house = House(FakeHub({PATH: piece(b"", 0, True), JOB: job("failed", array={"count": 12})}))
    assert "j1 is an array: name one of its tasks, j1-0 to j1-11" in house.refused("logs", "1")


def test_an_attempt_that_was_never_made() -> None:
    house = House(FakeHub({PATH: piece(b"", 0, True), JOB: job("failed", 2)}))
    assert "j1 has had 2 attempts, so there is no attempt 4" in house.refused("logs", "--attempt", "4", "j1")


@pytest.mark.parametrize(("count", "kept"), [(0, b""), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")])
def test_last_lines(count: int, kept: bytes) -> None:
    assert last_lines(b"a\nb\nc", count) == kept


# ---------------------------------------------------------------- of workers

ASK = ("POST", "/v1/workers/main-1-0/logs")
COMMAND = ("GET", "/v1/commands/c1")
GIVEN = {"command": "c1"}


def answered(state: str, text: str = "") -> dict[str, object]:
    result = None if state == "pending" else {"ok": state == "done", "text": text}
    return {"id": "c1", "manager": "main", "state": state, "result": result}


@pytest.mark.parametrize("words", [("worker", "main-1-0"), ("worker/main-1-0",), ("main-1-0",)])
def test_what_a_worker_wrote_is_read_by_its_manager(words: tuple[str, ...]) -> None:
    house = House(FakeHub({ASK: GIVEN, COMMAND: [answered("pending"), answered("done", "one\ntwo\n")]}))
    assert house.ok("logs", *words) == "one\ntwo\n"
    assert house.slept == [0.2]


def test_only_its_last_lines() -> None:
    there = House(FakeHub({ASK: GIVEN, COMMAND: answered("done", "one\ntwo\nthree\n")}))
    assert there.ok("logs", "worker", "main-1-0", "--tail", "2") == "two\nthree\n"


def test_one_that_wrote_nothing_is_no_failure() -> None:
    done = House(FakeHub({ASK: GIVEN, COMMAND: answered("done")})).run("logs", "worker", "main-1-0")
    assert (done.code, done.stdout) == (0, "")
    assert "main-1-0 has written nothing, or its backend has it no more" in done.stderr


def test_a_manager_that_does_not_answer_is_told() -> None:
    house = House(FakeHub({ASK: GIVEN, COMMAND: answered("pending")}))
    assert "the manager main of main-1-0 has not answered within 60 s" in house.refused("logs", "worker", "main-1-0")
    failed = House(FakeHub({ASK: GIVEN, COMMAND: answered("failed", "this manager has no pool 'p'")}))
    assert "cannot be read: this manager has no pool 'p'" in failed.refused("logs", "worker", "main-1-0")


def test_a_worker_is_not_followed() -> None:
    assert "are for the output of jobs" in House().refused("logs", "-f", "worker", "main-1-0")
