import json
from typing import Any

import pytest

from tests.unit.cli.house import FakeHub, House
from worker_manager.errors import HubError, SourceUnavailable


def hub(*ids: str, **more: Any) -> FakeHub:
    return FakeHub({("POST", "/v1/jobs"): {"jobs": [{"id": id, "count": 1} for id in ids or ("j1",)]}, **more})


def sent(house: House) -> list[dict[str, Any]]:
    return [job for asked in house.hub.asked if asked.method == "POST" for job in asked.body["jobs"]]


def test_a_command_is_a_job_and_its_id_is_the_output() -> None:
    house = House(hub("j7"))
    assert house.ok("submit", "--", "python", "train.py", "--lr", "0.1") == "j7\n"
    assert sent(house) == [{"command": ["python", "train.py", "--lr", "0.1"]}]


def test_everything_that_may_be_said_of_a_job() -> None:
    house = House(hub())
    house.ok(
        *("submit", "--name", "n", "--cpus", "0.5", "--memory", "4GiB", "--gpus", "1", "--gpu-type", "a100"),
        *("--disk", "1GB", "--time-limit", "10m", "--tag", "b", "--tag", "a", "--queue", "q", "--priority", "-5"),
        *("--custom", "licences=2", "--custom", "fpga=1"),
        *(
            "--retries",
            "2",
            "--after",
            "j1",
            "--after",
            "j2:end",
            "--array",
            "3",
            "--env",
            "A=1",
            "--env",
            "B=x=y",
            "--",
            "true",
        ),
    )
    assert sent(house) == [
        {
            "command": ["true"],
            "name": "n",
            "resources": {"cpus": 500, "memory": 4 << 30, "disk": 10**9, "gpus": 1, "gpu_type": "a100"}
            | {"custom": {"licences": 2, "fpga": 1}},
            "time_limit_ms": 600_000,
            "tags": ["a", "b"],
            "queue": "q",
            "priority": -5,
            "retries": 2,
            "depends_on": [{"job": "j1", "needs": "success"}, {"job": "j2", "needs": "end"}],
            "array": {"count": 3},
            "env": {"A": "1", "B": "x=y"},
        }
    ]


def test_a_line_of_shell() -> None:
    house = House(hub())
    house.ok("submit", "--shell", "sort < a | uniq")
    assert sent(house)[0]["command"] == ["/bin/sh", "-c", "sort < a | uniq"]


def test_quiet_prints_nothing() -> None:
    assert House(hub()).ok("submit", "-q", "--", "true") == ""


def test_every_request_can_be_repeated_without_harm() -> None:
    house = House(hub())
    house.ok("submit", "--", "true")
    house.ok("submit", "--", "true")
    house.ok("submit", "--idempotency-key", "mine", "--", "true")
    keys = [asked.headers["Idempotency-Key"] for asked in house.hub.asked]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "give one of: a command after --, --shell 'a line', or -f FILE"),
        (("--shell", "x", "--", "true"), "give one of: a command after --, --shell 'a line', or -f FILE"),
        (("--memory", "4G", "--", "true"), "--memory: '4G' is not a size"),
        (("--cpus", "two", "--", "true"), "--cpus: 'two' is not a number of cpus"),
        (("--time-limit", "soon", "--", "true"), "--time-limit: 'soon' is not a duration"),
        (("--env", "A", "--", "true"), "--env: write NAME=VALUE, not 'A'"),
        (("--custom", "a=x", "--", "true"), "--custom: write NAME=NUMBER, not 'a=x'"),
        (("--after", "j1:never", "--", "true"), "--after: write j1 or j1:end, not 'j1:never'"),
        (("-f", "/not/there.yaml"), "/not/there.yaml cannot be read: No such file or directory"),
        (("--array", "0", "--", "true"), "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(words: tuple[str, ...], problem: str) -> None:
    house = House(hub())
    assert problem in house.refused("submit", *words)
    assert not house.hub.asked


def test_a_file_of_lines_from_stdin_with_flags_as_defaults() -> None:
    house = House(hub("j1", "j2"))
    text = '{"command": ["a"], "resources": {"cpus": 2}}\n\n{"command": ["b"], "queue": "mine", "time_limit": 5}\n'
    assert house.ok("submit", "-f", "-", "--queue", "q", "--memory", "1GiB", stdin=text) == "j1\nj2\n"
    assert sent(house) == [
        {"command": ["a"], "queue": "q", "resources": {"memory": 1 << 30, "cpus": "2"}},
        {"command": ["b"], "queue": "mine", "resources": {"memory": 1 << 30}, "time_limit": "5"},
    ]


def test_a_file_of_json(tmp_path: Any) -> None:
    file = tmp_path / "jobs.json"
    file.write_text('{"jobs": [\n {"command": ["a"]}\n]}')
    house = House(hub())
    house.ok("submit", "-f", str(file))
    assert sent(house) == [{"command": ["a"]}]


def test_a_bare_number_names_the_job_to_wait_for() -> None:
    house = House(hub())
    house.ok("submit", "--after", "7:end", "--", "true")
    assert sent(house)[0]["depends_on"] == [{"job": "j7", "needs": "end"}]


def test_a_file_of_yaml(tmp_path: Any) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "jobs:\n  - {command: [a], resources: {cpus: 0.5, memory: 4GiB}}\n"
        "  - {command: [b], depends_on: [{job: '#0'}]}\n"
    )
    house = House(hub())
    house.ok("submit", "-f", str(file))
    assert sent(house) == [
        {"command": ["a"], "resources": {"cpus": "0.5", "memory": "4GiB"}},
        {"command": ["b"], "depends_on": [{"job": "#0"}]},
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"command": ["a"]}\n{oops\n', "stdin:2: not JSON: "),
        ("[1]\n", "stdin:1: a job is an object with a command, not list"),
        ('{"command": "a b"}\n', "stdin:1: command is a list of words; for a line of shell write [/bin/sh, -c, '…']"),
        ("\n", "stdin holds no job"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_sent(text: str, problem: str) -> None:
    house = House(hub())
    assert problem in house.refused("submit", "-f", "-", stdin=text)
    assert not house.hub.asked


def test_many_jobs_go_in_several_requests_with_keys_of_their_own() -> None:
    house = House(hub())
    house.ok("submit", "-q", "-f", "-", "--idempotency-key", "k", stdin='{"command": ["a"]}\n' * 10_001)
    assert [len(asked.body["jobs"]) for asked in house.hub.asked] == [10_000, 1]
    assert [asked.headers["Idempotency-Key"] for asked in house.hub.asked] == ["k", "k-1"]


def test_a_neighbour_cannot_be_named_across_requests() -> None:
    house = House(hub())
    job = json.dumps({"command": ["a"], "depends_on": [{"job": "#0"}]})
    assert "'#n' cannot name" in house.refused("submit", "-f", "-", stdin=f"{job}\n" * 10_001)


def test_wait_ends_when_all_have_ended() -> None:
    states = [{"state": "queued"}, SourceUnavailable("away"), {"state": "running"}, {"state": "succeeded"}]
    house = House(hub())
    house.hub.answers["GET", "/v1/jobs/j1"] = states
    assert house.ok("submit", "--wait", "--", "true") == "j1\n"
    assert house.slept == [0.1, pytest.approx(0.15), pytest.approx(0.225)]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({"state": "failed", "exit_code": 3}, 3),
        ({"state": "failed", "signal": 9}, 137),
        ({"state": "failed"}, 1),
        ({"state": "cancelled"}, 1),
    ],
)
def test_waiting_for_one_job_ends_as_it_did(ended: dict[str, Any], code: int) -> None:
    house = House(hub())
    house.hub.answers["GET", "/v1/jobs/j1"] = [{**ended, "text": "because"}]
    result = house.run("submit", "--wait", "--", "false")
    assert (result.code, result.stdout) == (code, "j1\n")
    assert f"j1 {ended['state']}: because; see worker-manager describe j1" in result.stderr


def test_waiting_for_several_fails_when_one_does() -> None:
    house = House(hub("j1", "j2"))
    house.hub.answers["GET", "/v1/jobs/j1"] = [{"state": "failed", "exit_code": 3}]
    house.hub.answers["GET", "/v1/jobs/j2"] = [{"state": "running", "worker": "w1"}, {"state": "succeeded"}]
    result = house.run("submit", "--wait", "-f", "-", stdin='{"command": ["a"]}\n' * 2)
    assert result.code == 1
    assert "j2 is running on w1 (1 of 2 have ended)" in result.stderr


def test_waiting_tells_each_change_once_where_nobody_watches() -> None:
    waits = {"state": "queued", "waits": {"pool": "p", "reason": {"text": "max-workers: 4 of 4"}}}
    house = House(hub())
    house.hub.answers["GET", "/v1/jobs/j1"] = [waits, waits, {"state": "running"}, {"state": "succeeded"}]
    told = house.run("submit", "--wait", "--", "true").stderr
    assert told.splitlines() == ["j1 is queued: p: max-workers: 4 of 4", "j1 is running"]


def test_who_breaks_off_leaves_the_job_to_go_on() -> None:
    house = House(hub())
    house.hub.answers["GET", "/v1/jobs/j1"] = [KeyboardInterrupt()]
    result = house.run("submit", "--wait", "--", "true")
    assert result.code == 130
    assert "j1 will go on" in result.stderr


def test_a_hub_that_refuses_is_quoted() -> None:
    house = House(FakeHub({("POST", "/v1/jobs"): HubError(422, "invalid", "jobs[0].queue: write a word")}))
    assert house.refused("submit", "--", "true") == "worker-manager: jobs[0].queue: write a word\n"
