"""A database that is damaged, somebody else's, or of a newer program: refused with exit code 74 and what to do, and not
a byte of it is changed."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.faults.hubs import MortalHub
from tests.faults.sites import CALL, Crowd, Site
from tests.place import Place, until
from worker_manager.hub import discovery
from worker_manager.hub.settings import HubSettings

UNUSABLE = 74
Spoil = Callable[[Path], None]


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def overwritten(path: Path) -> None:
    """By something that is no database at all."""
    path.write_bytes(b"This is a letter to my landlord.\n" * 1000)


def header_lost(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


def schema_torn(path: Path) -> None:
    """The first page's end is gone: what the tables are cannot be read."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(3900))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def somebody_elses(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE addresses (name TEXT, street TEXT)", "INSERT INTO addresses VALUES ('a', 'b')")


def newer_hub(path: Path) -> None:
    change(path, "UPDATE alembic_version SET version_num = '9999'")


def newer_ledger(path: Path) -> None:
    change(path, "PRAGMA user_version = 999")


SPOILT: dict[str, Spoil] = {
    "overwritten": overwritten,
    "header lost": header_lost,
    "schema torn": schema_torn,
    "cut short": cut_short,
    "somebody else's": somebody_elses,
}
ADVICE = (
    "restore",
    "move it away",
    "name another place",
    "choose another state directory",
    "use that version",
    "move the file away",
)


def contents(folder: Path, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(f"{name}*")}


def test_a_hub_leaves_what_it_cannot_use_as_it_is(tmp_path: Path) -> None:
    """Each kind of it in turn; put back, it serves again."""
    hub = MortalHub(tmp_path / "hub")
    database = hub.state_dir / "hub.sqlite"
    hub.start()
    job = hub.submit("true")
    hub.process.terminate()
    hub.ended()
    good = database.read_bytes()
    for kind, spoil in {**SPOILT, "newer": newer_hub}.items():
        database.write_bytes(good)
        spoil(database)
        before = contents(hub.state_dir, database.name)
        hub.begin()
        assert hub.ended() == UNUSABLE, hub.said()
        last = hub.said().splitlines()[-1]
        assert last.startswith("worker-manager hub: ") and str(database) in last
        assert any(words in last for words in ADVICE), last
        assert contents(hub.state_dir, database.name) == before, kind
        assert not (hub.state_dir / discovery.FILE).exists()
    assert "Traceback" not in hub.said()

    database.write_bytes(good)
    hub.start()
    assert [one["id"] for one in hub.jobs()] == [job]
    hub.close()


def test_a_manager_leaves_what_it_cannot_use_as_it_is_and_finds_its_workers_without_it(place: Place) -> None:
    """The ledger: each kind of it in turn. It is moved away then, as the message says, and the next manager adopts."""
    discovery.start(HubSettings(place.state_dir))
    site = Site(place, "spoilt", idle="10m")
    ledger = site.home / "ledger-spoilt.db"
    crowd = Crowd(place, [site])
    site.manage(*CALL)
    job = site.submit()
    crowd.until_all_run()
    place.end(site.manager)
    good = ledger.read_bytes()
    for kind, spoil in {**SPOILT, "newer": newer_ledger}.items():
        ledger.write_bytes(good)
        spoil(ledger)
        before = contents(site.home, ledger.name)
        site.manage(*CALL)
        assert site.manager.wait(60) == UNUSABLE, kind
        last = site.lines()[-1]
        assert last.startswith("mortal manager: ") and str(ledger) in last
        assert any(words in last for words in ADVICE), last
        assert contents(site.home, ledger.name) == before, kind
        assert set(crowd.running().values()) == {site.workers}, "its workers go on"

    ledger.rename(ledger.with_suffix(".spoilt"))
    site.manage(*CALL)
    adopted = [("open intent", worker, "submitted") for worker in sorted(site.ready_events())]
    until(lambda: sorted(site.unresolved()) == adopted, lambda: f"its workers to be adopted: {site.unresolved()}")
    site.gate.touch()
    place.reaches(job, "succeeded")
    assert len(site.ready_events()) == site.workers


def test_the_command_line_says_it_too(place: Place) -> None:
    """Whoever would start a hub: the exit code is the hub's, and its words are shown."""
    discovery.start(HubSettings(place.state_dir))
    discovery.stop(place.state_dir)
    newer_hub(place.state_dir / "hub.sqlite")
    config = str(Site(place, "starts").write_config())
    for words in (("hub", "start"), ("run", "-c", config)):
        told = place.run(*words, code=UNUSABLE)
        assert "was written by a newer version" in told
        assert "use that version, or restore a backup" in told
