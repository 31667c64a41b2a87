"""`delete worker --force` on one that does not answer, or does but is stuck: who did it is written down, its job goes
back once and is done elsewhere, and nothing of the worker stays."""

import signal

import pytest

from tests.faults.witness import Witness, agent_of, all_dead, keeper_of, pools, send, shell_of
from tests.place import Place, until


@pytest.mark.parametrize("grace", ["", "1s"])
@pytest.mark.parametrize("reachable", [True, False], ids=["reachable", "unreachable"])
def test_a_stuck_worker_is_deleted_and_its_job_done_elsewhere(place: Place, reachable: bool, grace: str) -> None:
    place.manage("run", "-c", pools(place))
    witness = Witness.submitted(place)
    pids = witness.pids(1)
    worker = witness.shown()["worker"]
    agent = agent_of(place, worker)
    everything = [*pids, agent, keeper_of(agent), shell_of(agent)]
    if not reachable:
        send(signal.SIGSTOP, agent, keeper_of(agent), *pids)
    assert worker in place.run("delete", "worker", worker, code=1), "without force it is refused, because it is busy"
    place.run("delete", "worker", worker, "--force", *(["--grace-period", grace] if grace else []))
    shown = witness.succeeds(attempt=2)
    assert shown["worker"] != worker
    all_dead(everything)
    assert witness.outcomes() == ["lost", "succeeded"]
    (deleted,) = place.events("worker.deleted", worker)
    assert deleted["data"]["force"] is True
    assert deleted["data"]["by"], "it is written down who did it"
    (gone,) = place.events("worker.gone", worker)
    assert gone["data"]["jobs"] == 1 and deleted["data"]["by"] in gone["data"]["reason"]
    (command,) = [event for event in place.events("command.asked") if event["data"]["target"] == worker]
    until(lambda: place.ask(f"/v1/commands/{command['subject']}")["state"] == "done", "the manager to have done it")
    assert place.run("delete", "worker", worker, "--force").split() == [worker], "again is no error, and does nothing"
    assert len(place.events("worker.gone", worker)) == 1
    place.run("delete", "worker", "no-such-worker", "--force", code=1)
