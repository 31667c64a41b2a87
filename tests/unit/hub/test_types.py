"""What clients may send: amounts with units, and errors that say where and what."""

from typing import Any

import pytest
from pydantic import ValidationError

from worker_manager.hub.problems import from_validation
from worker_manager.hub.types import DrainWorker, Launches, LogsQuery, Submit

GIB = 2**30


def submit(**spec: Any) -> Any:
    return Submit.model_validate({"jobs": [{"command": ["true"], **spec}]}).jobs[0]


def mistakes(model: Any, body: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(body)
    problem = from_validation(refused.value)
    assert problem.status == 422
    return [(each["where"], each["what"]) for each in problem.errors]


def test_amounts_are_integers_or_text_with_a_unit() -> None:
    job = submit(
        resources={"cpus": "0.5", "memory": "4GiB", "disk": 10, "custom": {"licence": 2}},
        time_limit="1h30m",
        grace="5s",
        output_limit="1MiB",
        tags=["b", "a", "b"],
    )
    shape = job.asks
    assert (shape.cpus, shape.memory, shape.disk, shape.custom) == (500, 4 * GIB, 10, (("licence", 2),))
    assert (shape.walltime, shape.tags) == (5_400_000, ("a", "b"))
    assert (job.term_grace, job.output_limit) == (5000, 2**20)


def test_limits_ask_for_a_worker_that_knows_them() -> None:
    saves = submit(checkpoint={"signal": "USR1", "grace": "2m"})
    assert saves.work == {"checkpoint": {"signal": "USR1", "grace_ms": 120_000}}
    assert saves.asks.can == ("checkpoint",)
    assert submit(checkpoint={}, isolation="sandbox").asks.can == ("checkpoint", "sandbox")
    assert submit(checkpoint={}, isolation="docker", image="a:1").asks.can == ("checkpoint", "docker")
    with pytest.raises(ValidationError, match="apptainer"):
        submit(checkpoint={}, isolation="apptainer", image="a.sif")
    job = submit(max_processes=20, max_files=64, cpu_affinity=True)
    assert job.work == {"max_processes": 20, "max_files": 64, "cpu_affinity": True}
    assert job.asks.can == ("cpu-affinity", "max-files", "max-processes")
    assert (submit().work, submit().asks.can) == ({}, ())


def test_isolation_asks_for_a_worker_that_has_it() -> None:
    job = submit(isolation="sandbox", network=False, max_files=64)
    assert job.work == {"isolation": "sandbox", "network": False, "max_files": 64}
    assert job.asks.can == ("max-files", "sandbox")
    job = submit(isolation="docker", image="registry:5000/a/b@sha256:0f")
    assert job.work == {"isolation": "docker", "image": "registry:5000/a/b@sha256:0f"}
    assert job.asks.can == ("docker",)
    assert submit(isolation="process").work == {}


def test_what_is_not_said_is_the_documented_default() -> None:
    job = submit()
    assert (job.queue, job.priority, job.retries, job.limit, job.term_grace) == ("default", 0, 0, None, 10_000)
    assert (job.output_limit, job.asks.cpus, job.asks.memory) == (64 * 2**20, 1000, 0)


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"command": []}, "jobs[0].command"),
        ({"command": "true"}, "jobs[0].command"),
        ({"command": ["a\0b"]}, "jobs[0].command[0]"),
        ({"command": [""]}, "jobs[0]"),
        ({"command": [1]}, "jobs[0].command[0]"),
        ({"comand": ["true"]}, "jobs[0].comand"),
        ({"max_processes": 0}, "jobs[0].max_processes"),
        ({"max_files": 3}, "jobs[0].max_files"),
        ({"cpu_affinity": "yes"}, "jobs[0].cpu_affinity"),
        ({"cpu_affinity": True, "resources": {"cpus": "1.5"}}, "jobs[0]"),
        ({"isolation": "jail"}, "jobs[0].isolation"),
        ({"isolation": "docker"}, "jobs[0]"),
        ({"isolation": "docker", "image": "-v/:/x"}, "jobs[0].image"),
        ({"isolation": "sandbox", "image": "a:1"}, "jobs[0]"),
        ({"isolation": "docker", "image": "a:1", "cpu_affinity": True}, "jobs[0]"),
        ({"network": False}, "jobs[0]"),
        ({"isolation": "sandbox", "network": "no"}, "jobs[0].network"),
        ({"resources": {"memory": "4 GiBs"}}, "jobs[0].resources.memory"),
        ({"resources": {"memory": 1.5}}, "jobs[0].resources.memory"),
        ({"resources": {"memory": -1}}, "jobs[0].resources.memory"),
        ({"resources": {"memory": True}}, "jobs[0].resources.memory"),
        ({"resources": {"memory": 2**63}}, "jobs[0].resources.memory"),
        ({"resources": {"cpu": 1}}, "jobs[0].resources.cpu"),
        ({"resources": {"custom": {"x": "many"}}}, "jobs[0].resources.custom.x"),
        ({"env": {"1A": "x"}}, "jobs[0].env.1A.[key]"),
        ({"env": {"A": None}}, "jobs[0].env.A"),
        ({"tags": ["a b"]}, "jobs[0].tags[0]"),
        ({"queue": "../etc"}, "jobs[0].queue"),
        ({"priority": 101}, "jobs[0].priority"),
        ({"priority": "high"}, "jobs[0].priority"),
        ({"retries": -1}, "jobs[0].retries"),
        ({"time_limit": "soon"}, "jobs[0].time_limit"),
        ({"time_limit": "1h", "time_limit_ms": 5}, "jobs[0]"),
        ({"depends_on": [{"job": "x"}]}, "jobs[0].depends_on[0].job"),
        ({"depends_on": [{"job": "j1", "needs": "luck"}]}, "jobs[0].depends_on[0].needs"),
        ({"array": {"count": 0}}, "jobs[0].array.count"),
        ({"array": {"count": 1_000_001}}, "jobs[0].array.count"),
        ({"name": "a\nb"}, "jobs[0].name"),
        ({"command": ["x" * 100_000] * 11}, "jobs[0]"),
    ],
)
def test_a_mistake_is_named_with_its_place(spec: dict[str, Any], where: str) -> None:
    found = mistakes(Submit, {"jobs": [{"command": ["true"], **spec}]})
    assert [place for place, _ in found] == [where]
    assert found[0][1]


def test_every_mistake_is_named_at_once_and_no_value_is_repeated() -> None:
    found = mistakes(Submit, {"jobs": [{"command": ["true"], "env": {"A": 1}, "hunter2": 1}, {"comand": ["s3cret"]}]})
    assert len(found) == 4
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("body", [{}, {"jobs": []}, {"jobs": [{"command": ["a"]}] * 10_001}, {"jobs": {}}])
def test_one_to_ten_thousand_jobs(body: dict[str, Any]) -> None:
    assert mistakes(Submit, body)[0][0] == "jobs"


def test_tokens_and_workers_of_a_launch_go_in_pairs() -> None:
    claim = {
        "submission": "m-1",
        "pool": "p",
        "workers": ["m-1-0"],
        "token_hashes": ["0" * 64],
        "call_deadline": 5,
        "covers": [["g", 3]],
    }
    assert Launches.model_validate(claim).covers == [("g", 3)]
    assert mistakes(Launches, {**claim, "token_hashes": ["0" * 64] * 2})
    assert mistakes(Launches, {**claim, "token_hashes": ["secret"]})[0][0] == "token_hashes[0]"
    assert "of its own" in mistakes(Launches, {**claim, "workers": ["a", "b"], "token_hashes": ["0" * 64] * 2})[0][1]
    assert mistakes(Launches, {**claim, "covers": [["g", 10**9 + 1]]})


def test_queries_read_numbers_from_text() -> None:
    assert LogsQuery.model_validate({"offset": "5", "tail": "7"}).tail == 7
    assert mistakes(LogsQuery, {"offset": "-5"})[0][0] == "offset"
    assert mistakes(LogsQuery, {"ofset": "5"}) == [("ofset", "there is no such field")]


def test_unknown_is_null_and_not_zero() -> None:
    assert DrainWorker.model_validate({}).deadline_ms is None


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"name": "x" * 201}, ("jobs[0].name", "at most 200 characters in one line")),
        ({"queue": "a b"}, ("jobs[0].queue", "at most 63 letters, digits and . _ @ + -, beginning with")),
        ({"tags": ["a,b"]}, ("jobs[0].tags[0]", "1 to 64 characters without spaces and commas")),
        ({"env": {"A B": "1"}}, ("jobs[0].env.A B.[key]", "a variable begins with a letter or _")),
        ({"depends_on": [{"job": "seven"}]}, ("jobs[0].depends_on[0].job", "an id of a job is j and a number")),
        ({"resources": {"gpu_type": "a\nb"}}, ("jobs[0].resources.gpu_type", "at most 64 characters in one line")),
    ],
)
def test_a_name_that_does_not_fit_is_told_in_words(spec: dict[str, Any], told: tuple[str, str]) -> None:
    [(where, what)] = mistakes(Submit, {"jobs": [{"command": ["true"], **spec}]})
    assert where == told[0]
    assert what.startswith(told[1])
