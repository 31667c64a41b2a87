"""What becomes of jobs, as the person sees it who submits them: one manager, its hub and its workers for all tests."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.place import ROOT, Place, a_place, alive, until

MANAGER = ["--min-workers", "0", "--max-workers", "2", "--min-seconds-between-workers", "0", "--sleep-time", "600"]
LOCAL = ["local", "--cpus", "2", "--memory-mb", "256"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    for made in a_place(tmp_path_factory.mktemp("jobs")):
        made.manage(*MANAGER, *LOCAL)
        yield made


def said_of(place: Place, job: str) -> str:
    """The line of `get jobs -o wide` about it."""
    lines = place.run("get", "jobs", "-o", "wide").splitlines()
    return next(line for line in lines if line.split()[0] == job)


def test_output_is_followed_while_the_job_runs(place: Place, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = place.submit("--shell", f"echo first; while [ ! -e {go} ]; do sleep 0.05; done; echo last >&2")
    with subprocess.Popen(place.command("logs", "-f", job), stdout=subprocess.PIPE, cwd=ROOT) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"first\n"
        assert follower.poll() is None
        go.touch()
        assert follower.stdout.read() == b"last\n"
        assert follower.wait(30) == 0
    assert place.run("logs", job) == "first\nlast\n"
    assert place.run("logs", "--tail", "1", job) == "last\n"


def test_a_cancelled_job_is_told_then_killed_and_says_so(place: Place, tmp_path: Path) -> None:
    polite = place.submit(
        "--shell", f"trap 'echo told; exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    )
    until((tmp_path / "ready").exists, "the job to run")
    blocked = place.submit("--after", polite, "--", "true")
    assert place.run("cancel", polite).split() == [polite]
    ended = place.reaches(polite, "cancelled", "succeeded", "failed")
    assert ended["state"] == "cancelled"
    assert place.run("logs", polite).endswith("told\n")  # the shell may say before that its sleep was ended
    shown = place.reaches(blocked, "cancelled")
    assert shown["reason"] == "dependency-failed"
    assert polite in shown["text"]
    assert place.run("cancel", polite).split() == [polite], "again is no error"
    assert "j999999" in place.run("cancel", "j999999", code=1)


def test_an_array_tells_which_of_its_tasks_failed(place: Place) -> None:
    line = "echo task $WM_ARRAY_INDEX; exit $((WM_ARRAY_INDEX % 2))"
    done = place.run("submit", "--wait", "--array", "6", "--shell", line, code=1)
    array = done.split()[0]
    whole = place.job(array)
    assert (whole["state"], whole["array"]["succeeded"], whole["array"]["failed"]) == ("failed", 3, 3)
    tasks = json.loads(place.run("get", "jobs", "--array", array, "-o", "json"))["items"]
    assert {task["id"]: task["exit_code"] for task in tasks} == {f"{array}-{n}": n % 2 for n in range(6)}
    assert place.run("logs", f"{array}-5") == "task 5\n"
    assert "failed 6/6" in said_of(place, array)


def test_jobs_wait_for_what_they_depend_on(place: Place, tmp_path: Path) -> None:
    first = place.submit("--shell", f"sleep 0.3; echo 1 >> {tmp_path}/order")
    second = place.submit("--after", first, "--shell", f"echo 2 >> {tmp_path}/order; exit 4")
    third = place.submit("--after", second, "--after", first, "--", "true")
    fourth = place.submit("--after", f"{second}:end", "--shell", f"echo 4 >> {tmp_path}/order")
    fifth = place.submit("--after", f"{third}:end", "--shell", f"echo 5 >> {tmp_path}/order")
    assert place.reaches(fourth, "succeeded")
    assert place.reaches(fifth, "succeeded")
    assert place.job(second)["exit_code"] == 4
    assert place.job(third)["state"] == "cancelled"
    assert second in place.run("describe", "job", third)
    order = (tmp_path / "order").read_text().split()
    assert (order[:2], sorted(order[2:])) == (["1", "2"], ["4", "5"])


def test_a_file_of_jobs_that_name_each_other(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "jobs:\n"
        "  - {name: make, command: [sh, -c, 'echo made'], resources: {cpus: 0.5}}\n"
        "  - {name: use, command: [sh, -c, 'echo $WHAT'], env: {WHAT: used}, depends_on: [{job: '#0'}]}\n"
    )
    made, used = place.run("submit", "--wait", "-f", str(file)).split()
    assert (place.run("logs", made), place.run("logs", used)) == ("made\n", "used\n")
    assert place.job(made)["ended_ms"] <= place.job(used)["started_ms"]


def test_a_job_is_tried_again_as_often_as_it_may(place: Place, tmp_path: Path) -> None:
    line = f"echo x >> {tmp_path}/tries; n=$(wc -l < {tmp_path}/tries); echo try $n; [ $n -gt 2 ]"
    job = place.run("submit", "--wait", "--retries", "2", "--shell", line).split()[0]
    shown = place.job(job)
    assert (shown["attempt"], [one["outcome"] for one in shown["attempts"]]) == (3, ["failed", "failed", "succeeded"])
    assert [place.run("logs", "--attempt", str(n), job) for n in (1, 2, 3)] == [f"try {n}\n" for n in (1, 2, 3)]
    assert place.run("logs", job) == "try 3\n"
    hopeless = place.run("submit", "--wait", "--retries", "1", "--", "false", code=1).split()[0]
    assert (place.job(hopeless)["state"], place.job(hopeless)["attempt"]) == ("failed", 2)


def test_a_job_that_runs_too_long_is_ended_with_all_it_started(place: Place, tmp_path: Path) -> None:
    line = f"setsid sleep 600 & echo $! > {tmp_path}/pid; exec sleep 600"
    job = place.run("submit", "--wait", "--time-limit", "1s", "--shell", line, code=143).split()[0]
    shown = place.job(job)
    assert (shown["state"], shown["reason"]) == ("failed", "time-limit")
    assert "time limit of 1s" in shown["text"]
    assert 1000 <= shown["run_ms"] < 30_000
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_job_that_cannot_start_says_why(place: Place) -> None:
    job = place.run("submit", "--wait", "--", "no-such-program", code=127).split()[0]
    assert "no-such-program" in place.job(job)["text"]
    assert "no-such-program" in said_of(place, job)


def test_a_job_bigger_than_any_pool_says_so_at_the_next_tick(place: Place) -> None:
    """The tick that the submission itself causes: the next one by time would come in ten minutes."""
    job = place.submit("--cpus", "64", "--memory", "1PiB", "--", "true")
    until(lambda: place.job(job).get("unservable"), "a verdict", 30)
    told = said_of(place, job)
    assert "no pool can serve it" in told and "job asks" in told
    explained = place.run("explain", "job", job)
    assert "no pool can ever run it" in explained
    assert "memory: job asks 1 PiB, worker has 256 MiB" in explained
    assert "cpus: job asks 64, worker has 2" in explained
    assert place.job(job)["state"] == "queued", "a pool for it may come"
    place.run("cancel", job)


def test_lists_come_in_every_form(place: Place) -> None:
    job = place.run("submit", "--wait", "--name", "found-by-name", "--", "true").split()[0]
    wanted = ("get", "jobs", "--name", "found-by-name", "-o")
    assert place.run(*wanted, "name") == f"{job}\n"
    assert [item["id"] for item in json.loads(place.run(*wanted, "json"))["items"]] == [job]
    assert f"id: {job}" in place.run(*wanted, "yaml")
    assert "found-by-name" in place.run(*wanted, "wide")
    assert place.items("pools")[0]["pool"] in place.run("get", "pools")
    assert job in place.run("get", "events", "--limit", "100000")
