"""The words in which the conformance suite is written: launch, run, wait for, find."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from backends.base import (
    LONGEST_TEXT,
    Accepted,
    Backend,
    Listing,
    Seen,
    Submission,
    WorkerPhase,
)
from tests.conformance.adopter import Adopter, Fault, NotHere

LIVE = (WorkerPhase.PENDING, WorkerPhase.STARTING, WorkerPhase.RUNNING)


def order(adopter: Adopter, fault: Fault) -> None:
    if fault not in adopter.faults:
        pytest.skip(f"{fault} cannot be ordered here")
    adopter.inject(fault)


def seen_by(look):  # type: ignore[no-untyped-def]
    """What the adopter can see; where it cannot, the test is skipped."""
    try:
        return look()
    except NotHere as reason:
        pytest.skip(str(reason))


def environment_of(adopter: Adopter, handle: str, name: str) -> Mapping[str, str]:
    """The worker's, with this variable. A process that becomes another program shows none for a moment."""
    found: dict[str, str] = {}

    def there() -> bool:
        found.clear()
        found.update(seen_by(lambda: adopter.environment(handle)))
        return name in found

    adopter.until(there, f"{name} in the environment of {handle}")
    return found


def need_shell(adopter: Adopter) -> None:
    if not adopter.has_shell:
        pytest.skip("no shell starts the workers here")


def exposed(adopter: Adopter, seen: Seen) -> str:
    try:
        return adopter.exposed(seen.handle)
    except NotHere:
        return ""


def batch(adopter: Adopter) -> int:
    if adopter.capabilities.max_batch == 1:
        pytest.skip("the platform takes one worker at a time")
    return min(4, adopter.capabilities.max_batch)


def launch(backend: Backend, submission: Submission) -> Accepted:
    outcome = backend.launch(submission)
    assert isinstance(outcome, Accepted), outcome
    return outcome


def run(adopter: Adopter, backend: Backend, submission: Submission) -> Seen:
    launch(backend, submission)
    return wait_for(adopter, backend, submission, 0, WorkerPhase.RUNNING)


def find(backend: Backend, submission: Submission, index: int) -> Seen | None:
    listing = backend.list()
    assert isinstance(listing, Listing)
    found = [seen for seen in listing.seen if (seen.submission, seen.index) == (submission.id, index)]
    assert len(found) <= 1, f"{submission.worker_id(index)} is listed {len(found)} times"
    assert all(len(seen.detail) <= LONGEST_TEXT for seen in listing.seen)
    return found[0] if found else None


def indexes(backend: Backend, submission: Submission) -> list[int]:
    return sorted(seen.index for seen in backend.list().seen if seen.submission == submission.id)


def wait_for(adopter: Adopter, backend: Backend, submission: Submission, index: int, *phases: WorkerPhase) -> Seen:
    last: list[Seen | None] = [None]

    def there() -> bool:
        last[0] = find(backend, submission, index)
        return last[0] is not None and last[0].phase in phases

    adopter.until(there, f"{submission.worker_id(index)} {' or '.join(phases)}")
    assert last[0] is not None
    return last[0]


def wait_until_gone(adopter: Adopter, backend: Backend, submission: Submission, index: int) -> Seen | None:
    """Ended, or no longer shown where the platform shows nothing of what is over."""

    def gone() -> bool:
        seen = find(backend, submission, index)
        return seen is None or seen.phase is WorkerPhase.ENDED

    adopter.until(gone, f"the end of {submission.worker_id(index)}")
    return find(backend, submission, index)


def assert_empty(adopter: Adopter, backend: Backend) -> None:
    """Now, and after whatever the list may lag."""
    for _ in range(3):
        assert backend.list() == Listing(())
        adopter.pause()


def replace_tokens(submission: Submission, tokens: tuple[str, ...]) -> Submission:
    return replace(submission, join_tokens=tokens)
