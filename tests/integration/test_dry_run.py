"""A dry run leaves no trace, and never takes an unknown backlog for an empty one."""

import json
from pathlib import Path

from tests.place import Place, until

ONE = ("--dry-run", "--detailed-exitcode", "--min-workers", "1", "local", "--memory", "256MiB")


def traces(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_where_nothing_is_yet_the_plan_is_for_an_empty_backlog_and_nothing_is_made(place: Place) -> None:
    done = place.call(*ONE)
    assert done.returncode == 3, done
    assert json.loads(done.stdout)["actions"][0]["reason"]["code"] == "min-workers"
    assert done.stderr.splitlines()[0] == "no hub has run here yet: this is the plan for an empty backlog"
    assert traces(place.state_dir.parent) == []


def test_a_hub_that_was_stopped_has_a_backlog_that_nobody_knows(place: Place) -> None:
    place.run("hub", "start")
    place.run("hub", "stop")
    before = traces(place.state_dir)
    done = place.call(*ONE)
    assert done.returncode == 1
    assert "its backlog is unknown: start it with `worker-manager hub start`" in done.stderr
    assert traces(place.state_dir) == before


def test_beside_a_hub_without_a_manager_it_counts_the_jobs_and_makes_neither_ledger_nor_pool(place: Place) -> None:
    place.run("hub", "start")
    place.submit("--", "true")
    before = traces(place.state_dir)
    done = place.call("--dry-run", "--min-workers", "0", "local", "--memory", "256MiB")
    assert done.returncode == 0, done
    assert "launch 1 in local: 1 job waits" in done.stderr
    assert traces(place.state_dir) == before
    place.run("hub", "stop")


def test_beside_a_manager_it_sees_what_that_has_launched(place: Place) -> None:
    place.manage("--min-workers", "1", "local", "--memory", "256MiB")
    until(lambda: place.workers("ready"), "a worker")
    done = place.call("--dry-run", "--min-workers", "1", "local", "--memory", "256MiB")
    assert json.loads(done.stdout)["actions"] == [], done
    assert "nothing to do" in done.stderr
    place.started[0].terminate()
    place.started[0].wait()
    place.run("down", "--now")
