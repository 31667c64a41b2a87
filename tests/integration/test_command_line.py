"""The command line from end to end: real manager, hub, workers and jobs in a state directory of their own."""

import json
import os
import signal

from tests.place import DEADLINE_S, Place, until
from worker_manager.hub import discovery

POOLS = """\
version: 1
pools:
  - name: a
    backend: local
    max-workers: {max}
    shape: {{cpus: 1, memory: 256MiB}}
    limits: {{idle: 1s, stabilise: 0s}}
"""


def pools(place: Place, most: int | str = 2) -> str:
    return place.pools(POOLS.format(max=most))


def test_up_runs_what_is_submitted_and_takes_everything_with_it(place: Place) -> None:
    up = place.start("--worker-idle-seconds", "60", "up", "--cpus", "1", "--memory", "256MiB")
    until(place.hub, "the hub")
    (array,) = place.run("submit", "--wait", "--array", "4", "--", "sh", "-c", "echo $WM_ARRAY_INDEX").split()
    failed = place.run("submit", "--wait", "--shell", "echo out; exit 3", code=3).split()[0]
    (never,) = place.run("submit", "--memory", "1PiB", "--", "true").split()
    assert [place.run("logs", f"{array}-{task}") for task in range(4)] == ["0\n", "1\n", "2\n", "3\n"]
    assert place.job(failed)["exit_code"] == 3
    until(lambda: "no pool can ever run it: memory: job asks 1 PiB" in place.run("explain", "job", never), "a verdict")
    assert json.loads(place.run("get", "workers", "-o", "json"))["items"]
    up.send_signal(signal.SIGINT)
    assert up.wait(DEADLINE_S) == 0
    place.empty()


def test_a_second_signal_hands_the_jobs_back(place: Place) -> None:
    up = place.start("up", "--cpus", "1", "--memory", "256MiB")
    until(place.hub, "the hub")
    (job,) = place.run("submit", "--", "sleep", "600").split()
    until(lambda: place.job(job)["state"] == "running", "the job to run")
    up.send_signal(signal.SIGTERM)
    until(lambda: "the workers finish what they run" in place.log.read_text(), "the first signal to be heard")
    assert up.poll() is None
    up.send_signal(signal.SIGTERM)
    assert up.wait(DEADLINE_S) == 143
    place.empty()
    place.run("hub", "start")
    assert place.job(job)["state"] == "queued"
    place.run("down")


def test_down_ends_what_up_began(place: Place) -> None:
    up = place.start("up", "--cpus", "1", "--memory", "256MiB")
    until(place.hub, "the hub")
    (job,) = place.run("submit", "--", "sleep", "600").split()
    until(lambda: place.job(job)["state"] == "running", "the job to run")
    place.run("down", "--now")
    assert up.wait(DEADLINE_S) == 143
    place.empty()


def test_a_manager_that_stops_leaves_its_workers_and_the_next_one_adopts_them(place: Place) -> None:
    first = place.start("run", "-c", pools(place))
    until(place.leads, "the first manager to lead")
    (job,) = place.run("submit", "--shell", "while [ ! -e done ]; do sleep 0.1; done", "--name", "waits").split()
    worker = until(lambda: place.job(job)["state"] == "running" and place.job(job)["worker"], "the job to run")
    assert "is led by" in place.run("--once", "run", "-c", pools(place), code=75)
    first.send_signal(signal.SIGTERM)
    assert first.wait(DEADLINE_S) == 143
    assert place.job(job)["state"] == "running"
    place.log.write_text("")
    second = place.start("run", "-c", pools(place))
    until(place.leads, "the second manager to lead")
    until(lambda: [w["id"] for w in place.items("workers")] == [worker], "the worker to be known")
    place.run("cancel", job)
    until(lambda: place.job(job)["state"] == "cancelled", "the job to be cancelled")
    until(lambda: not [w for w in place.items("workers") if w["state"] != "gone"], "the idle worker to go")
    second.send_signal(signal.SIGTERM)
    second.wait(DEADLINE_S)
    place.run("down")
    place.empty()


def test_a_wrong_configuration_does_not_replace_a_good_one(place: Place) -> None:
    manager = place.start("run", "-c", pools(place))
    until(place.leads, "the manager to lead")
    pools(place, "many")
    manager.send_signal(signal.SIGHUP)
    until(lambda: "write a whole number, not 'many'" in place.log.read_text(), "the complaint")
    assert manager.poll() is None
    pools(place, 7)
    manager.send_signal(signal.SIGHUP)
    until(lambda: [pool["max_workers"] for pool in place.items("pools")] == [7], "the new maximum")


def test_a_hub_that_died_comes_back_where_it_was_and_the_job_goes_on(place: Place) -> None:
    place.start("run", "-c", pools(place))
    until(place.leads, "the manager to lead")
    (job,) = place.run("submit", "--shell", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.4; done").split()
    until(lambda: place.job(job)["state"] == "running", "the job to run")
    before = discovery.find(place.state_dir)
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    after = until(place.hub, "the hub to come back")
    assert after.url == before.url
    assert after.pid != before.pid
    until(lambda: place.job(job)["state"] == "succeeded", "the job to succeed")
    assert place.job(job)["attempt"] == 1
    assert place.run("logs", job).split() == list("12345678")


def test_a_dry_run_says_what_it_would_do_and_does_nothing(place: Place) -> None:
    place.run("hub", "start")
    place.run("submit", "--", "true")
    told = place.call("--dry-run", "--detailed-exitcode", "run", "-c", pools(place))
    assert told.returncode == 3, told
    plan = json.loads(told.stdout)
    assert (plan["kind"], [action["action"] for action in plan["actions"]]) == ("Plan", ["launch"])
    assert "launch 1 in a: 1 job waits" in told.stderr
    assert place.items("workers") == []
    assert place.items("jobs")[0]["state"] == "queued"


def test_one_pass_launches_and_ends(place: Place) -> None:
    place.run("hub", "start")
    place.run("submit", "--", "true")
    told = place.call("--once", "--min-workers", "0", "--max-workers", "1", "local", "--memory-mb", "256")
    assert (told.returncode, "1 job waits: 1 more worker" in told.stderr) == (0, True), told
    until(lambda: place.items("jobs")[0]["state"] == "succeeded", "the job")
