"""Every cell of the life-cycles."""

import pytest

from worker.protocol import JobState, Outcome, WorkerState
from worker_manager.hub.states import (
    JOB,
    OUTCOME_EVENTS,
    WORKER,
    ArrayCounts,
    Budgets,
    Impossible,
    JobEvent,
    WorkerEvent,
    array_state,
    event_of,
    job_step,
    worker_step,
)

FRESH = Budgets(retries=0, tries=0, losses=0, lost_cap=5)
ALL = JobState.ALL
X, SAME = "impossible", "same"

# What becomes of a job without retries, without losses, whose end nobody asked for.
CELLS = {
    #                     blocked      queued       assigned     running      final
    "unblock":           ("queued",    X,           X,           X,           X),
    "dependency-failed": ("cancelled", X,           X,           X,           SAME),
    "assign":            (X,           "assigned",  X,           X,           X),
    "start":             (X,           X,           "running",   SAME,        SAME),
    "succeed":           (X,           X,           "succeeded", "succeeded", SAME),
    "fail":              (X,           X,           "failed",    "failed",    SAME),
    "stopped":           (X,           X,           "cancelled", "cancelled", SAME),
    "return":            (X,           X,           "queued",    "queued",    SAME),
    "spoil":             (X,           X,           "queued",    "queued",    SAME),
    "lose":              (X,           X,           "queued",    "queued",    SAME),
    "cancel":            ("cancelled", "cancelled", "assigned",  "running",   SAME),
}  # fmt: skip


def test_the_cells_are_complete() -> None:
    assert set(CELLS) == set(JobEvent)
    assert set(JOB) == set(JobState.ALL)
    assert set(OUTCOME_EVENTS) == set(Outcome.ALL)


@pytest.mark.parametrize("event", list(JobEvent))
@pytest.mark.parametrize("state", JobState.ALL)
def test_each_cell(state: str, event: JobEvent) -> None:
    column = min(ALL.index(state), 4)
    expected = CELLS[event][column]
    if expected == X:
        with pytest.raises(Impossible):
            job_step(state, event, FRESH)
        return
    change = job_step(state, event, FRESH)
    assert (SAME if change is None else change.to) == expected


@pytest.mark.parametrize("state", ["assigned", "running"])
@pytest.mark.parametrize(
    ("event", "to"), [("fail", "cancelled"), ("return", "cancelled"), ("lose", "cancelled"), ("succeed", "succeeded")]
)
def test_a_job_whose_end_was_asked_for_never_goes_back_to_the_queue(state: str, event: str, to: str) -> None:
    plenty = Budgets(retries=9, tries=0, losses=0, lost_cap=5)
    change = job_step(state, JobEvent(event), plenty, cancelling=True)
    assert change is not None
    assert change.to == to


@pytest.mark.parametrize("state", ["assigned", "running"])
def test_failures_spend_retries_and_nothing_else_does(state: str) -> None:
    two = Budgets(retries=2, tries=1, losses=0, lost_cap=5)
    again = job_step(state, JobEvent.FAIL, two)
    assert again is not None
    assert (again.to, again.tries, again.losses) == ("queued", 2, 0)
    spent = job_step(state, JobEvent.FAIL, Budgets(retries=2, tries=2, losses=0, lost_cap=5))
    assert spent is not None
    assert (spent.to, spent.tries) == ("failed", 2)
    lost = job_step(state, JobEvent.LOSE, two)
    assert lost is not None
    assert (lost.to, lost.tries, lost.losses) == ("queued", 1, 1)


@pytest.mark.parametrize("event", [JobEvent.LOSE, JobEvent.RETURN])
def test_a_running_job_that_loses_its_worker_too_often_fails(event: JobEvent) -> None:
    losses = [job_step("running", event, Budgets(0, 0, spent, 5)) for spent in range(5)]
    assert [change.to for change in losses if change] == ["queued"] * 4 + ["failed"]
    assert losses[4] is not None
    assert losses[4].reason == "lost-too-often"


def test_a_job_that_never_started_may_be_handed_back_without_end() -> None:
    change = job_step("assigned", JobEvent.RETURN, Budgets(0, 0, 99, 5))
    assert change is not None
    assert (change.to, change.losses) == ("queued", 99)


@pytest.mark.parametrize("state", ["assigned", "running"])
def test_a_job_whose_files_cannot_be_moved_does_not_come_back_for_ever(state: str) -> None:
    changes = [job_step(state, JobEvent.SPOIL, Budgets(0, 0, spent, 5)) for spent in range(5)]
    assert [change.to for change in changes if change] == ["queued"] * 4 + ["failed"]


def test_only_what_could_not_be_moved_is_counted_before_a_job_has_started() -> None:
    assert event_of("returned", "staging-failed") is event_of("returned", "disk-full") is JobEvent.SPOIL
    assert event_of("returned", "recalled") is event_of("returned", "stager-died") is JobEvent.RETURN
    assert event_of("failed", "disk-full") is JobEvent.FAIL


def test_only_a_job_on_a_worker_needs_the_workers_answer_to_a_cancel() -> None:
    asked = {state: job_step(state, JobEvent.CANCEL, FRESH) for state in JobState.ALL}
    assert {state for state, change in asked.items() if change and change.asks_worker} == {"assigned", "running"}


WORKER_CELLS = {
    #            ready       draining    lost     gone
    "seen":     ("ready",    "draining", "ready", "gone"),
    "silent":   ("lost",     "lost",     "lost",  "gone"),
    "cordon":   ("draining", "draining", "lost",  "gone"),
    "uncordon": ("ready",    "ready",    "lost",  "gone"),
    "leave":    ("gone",     "gone",     "gone",  "gone"),
    "die":      ("gone",     "gone",     "gone",  "gone"),
}  # fmt: skip
WORKER_STATES = (WorkerState.READY, WorkerState.DRAINING, WorkerState.LOST, WorkerState.GONE)


def test_the_workers_cells_are_complete() -> None:
    assert set(WORKER_CELLS) == set(WorkerEvent)
    assert set(WORKER) == set(WORKER_STATES)


@pytest.mark.parametrize("event", list(WorkerEvent))
@pytest.mark.parametrize("state", WORKER_STATES)
def test_each_workers_cell(state: str, event: WorkerEvent) -> None:
    assert worker_step(state, event) == WORKER_CELLS[event][WORKER_STATES.index(state)]


def test_a_lost_worker_that_was_cordoned_comes_back_draining() -> None:
    assert worker_step("lost", WorkerEvent.SEEN, cordoned=True) == "draining"


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        (ArrayCounts(blocked=3), "blocked"),
        (ArrayCounts(queued=3), "queued"),
        (ArrayCounts(queued=2, assigned=1), "assigned"),
        (ArrayCounts(queued=2, running=1), "running"),
        (ArrayCounts(queued=2, succeeded=1), "running"),
        (ArrayCounts(assigned=2, failed=1), "running"),
        (ArrayCounts(succeeded=3), "succeeded"),
        (ArrayCounts(succeeded=2, failed=1), "failed"),
        (ArrayCounts(succeeded=2, cancelled=1), "cancelled"),
        (ArrayCounts(failed=1, cancelled=1), "failed"),
    ],
)
def test_an_arrays_state_follows_from_its_tasks(counts: ArrayCounts, state: str) -> None:
    assert array_state(counts) == state
