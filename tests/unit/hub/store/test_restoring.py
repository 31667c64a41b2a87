"""A hub that starts on a backup: what went on since then must not speak."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hub.store.house import House, job, sha
from worker_manager.hub.backup import backup
from worker_manager.hub.refusals import Gone, Unauthorized


@pytest.fixture
def restored(house: House, tmp_path: Path) -> Iterator[House]:
    """Two jobs run on a worker, one waits; then the backup is made, and things go on."""
    house.submit(job(), job(retries=1), job())
    house.worker("w")
    house.start("w", ("j1", 1))
    house.submit(job(array=3))
    backup(house.place, tmp_path / "copy")
    house.end("w", ("j1", 1), ("j2", 1))
    house.submit(job(), owner="bob")
    house.worker("later")
    made = House(tmp_path / "copy")
    yield made
    made.store.close()


def test_jobs_go_back_unpaid_and_every_worker_is_refused(restored: House) -> None:
    counts = restored.store.info()["jobs"]
    assert (counts["queued"], counts["assigned"], counts["running"]) == (6, 0, 0)
    for name in ("w", "later"):
        with pytest.raises(Gone):
            restored.poll(name)
        with pytest.raises(Gone):
            restored.end(name, ("j1", 1))
    for name in ("j1", "j2"):
        assert restored.store.get_job(name)["losses"] == 0
    restored.worker("new", cpus=1)
    assert restored.taken("new") == [("j1", 2)]


def test_a_new_generation_begins_once_and_passes_over_what_may_have_been_given_out(restored: House) -> None:
    assert restored.store.info()["generation"] == 2
    assert restored.submit(job()) == ["j1000005"]
    told = restored.store.list_events(kind="hub.restored")[0]
    assert [event["data"] for event in told] == [{"generation": 2, "requeued": 2}]
    assert told[0]["seq"] > 1_000_000
    restored.restart()
    assert restored.store.info()["generation"] == 2
    assert restored.submit(job()) == ["j1000006"]


def test_the_original_goes_on_as_it_was(house: House, restored: House) -> None:
    assert house.store.info()["generation"] == 1
    house.restart()
    assert house.store.info()["generation"] == 1
    assert house.store.get_worker("w")["state"] == "ready"


def test_tokens_made_since_are_unknown(house: House, restored: House) -> None:
    house.claim("s")
    with pytest.raises(Unauthorized):
        restored.store.register(
            {"worker": "s-0", "nonce": "n", "credential_sha256": sha("s-0"), "shape": {}}, sha("join-s-0")
        ).result()
