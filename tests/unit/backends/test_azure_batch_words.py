"""What Azure Batch says, translated: every state, refusal and trouble of tasks, pools and nodes."""

from typing import Any

import pytest
from azure.batch import models

from backends.azure_batch import errors, results, seen, states
from backends.azure_batch.errors import Trouble
from backends.azure_batch.sizes import size_of
from backends.base import RefusalKind, Refused, Unknown, WorkerPhase

MANAGER, POOL = "m", "p"
LABEL = '{"worker":{"manager":"m","pool":"p","submission":"m-7","index":3}}'


def task(state: str, **more: Any) -> dict[str, Any]:
    return {"id": "m-7-3", "displayName": LABEL, "state": state, "stateTransitionTime": "2026-11-20T14:00:00Z", **more}


def worker(state: str, view: seen.PoolView = seen.NOTHING, **more: Any) -> Any:
    return seen.worker(task(state, **more), MANAGER, POOL, view)


def failed(code: str, words: str = "words", **info: Any) -> dict[str, Any]:
    return {"executionInfo": {"failureInfo": {"category": "usererror", "code": code, "message": words}, **info}}


# ---------------------------------------------------------------- tables


def test_the_tables_know_every_state_that_the_client_knows() -> None:
    assert {state.value for state in models.BatchTaskState} == set(states.TASKS)
    assert {state.value for state in models.BatchNodeState} == set(states.NODES)
    assert set(seen.BROKEN) < set(states.NODES)


@pytest.mark.parametrize("state", states.TASKS)
def test_each_state_is_shown_as_the_table_says(state: str) -> None:
    one = worker(state)
    assert (one.submission, one.index, one.handle) == ("m-7", 3, "m-7-3")
    assert one.phase is states.TASKS[state]
    assert worker(state.upper()).phase is one.phase


def test_a_task_that_is_queued_is_not_running() -> None:
    """A task that Azure took back to the queue keeps the time of its last try."""
    info = {"executionInfo": {"startTime": "2026-11-20T14:00:00.1234567Z", "requeueCount": 1}}
    one = worker("active", **info)
    assert one.phase is WorkerPhase.PENDING
    assert one.started_at is None
    assert "started again by Azure (1 times)" in one.detail
    assert worker("running", **info).started_at == 1_795_183_200_123


@pytest.mark.parametrize("state", ["hibernating", "", "Zzz"])
def test_a_state_that_nobody_knows_is_unknown_and_named(state: str) -> None:
    assert worker(state).phase is WorkerPhase.UNKNOWN
    assert repr(state) in worker(state).detail


@pytest.mark.parametrize("code", states.FAILURES)
def test_why_a_task_failed_is_typed(code: str) -> None:
    one = worker("completed", **failed(code))
    assert one.refusal is states.FAILURES[code]
    assert one.detail == f"{code}: words"


def test_a_program_that_left_with_a_status_is_no_refusal() -> None:
    one = worker("completed", **failed("FailureExitCode", exitCode=7))
    assert (one.exit_code, one.refusal) == (7, None)
    assert worker("completed", executionInfo={"exitCode": 0}).exit_code == 0
    assert worker("running", executionInfo={"exitCode": 0}).exit_code is None
    assert worker("completed", **failed("TaskEnded")).detail == "ended on request"


def test_a_task_of_somebody_else_is_not_shown() -> None:
    for other in ("a name", None, LABEL.replace('"m"', '"n"'), LABEL.replace('"p"', '"q"')):
        assert seen.worker(task("active") | {"displayName": other}, MANAGER, POOL) is None


@pytest.mark.parametrize("spoilt", [{"executionInfo": {"startTime": "yesterday"}}, {"executionInfo": "x"}, {"id": 7}])
def test_a_task_that_makes_no_sense_is_an_error(spoilt: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        worker("running", **spoilt)


# ---------------------------------------------------------------- the pool

POOL_1 = {"id": "pool-1", "state": "active", "enableAutoScale": True}


def view(counts: dict[str, int] | None = None, bad: tuple[dict[str, Any], ...] = (), **pool: Any) -> seen.PoolView:
    return seen.pool_view({**POOL_1, **pool}, {"running": 2} if counts is None else counts, bad)


@pytest.mark.parametrize("code", states.RESIZES)
def test_each_resize_error_is_typed(code: str) -> None:
    found = view(resizeErrors=[{"code": code, "message": "words", "values": [{"name": "Cores", "value": "20"}]}])
    assert found.refusal is states.RESIZES[code]
    assert found.detail.startswith(f"pool pool-1 cannot grow: {code}: words; Cores: 20")


def test_resize_errors_as_the_service_writes_them() -> None:
    assert states.resize("AccountCoreQuotaReached") is RefusalKind.QUOTA
    assert states.resize("AllocationTimedout") is RefusalKind.CAPACITY
    assert states.resize("AllocationFailed") is RefusalKind.CAPACITY
    assert states.resize("SomeNewCoreQuotaReached") is RefusalKind.QUOTA
    assert states.resize("SomethingNew") is None


def test_why_workers_wait_reaches_those_that_wait_and_no_others() -> None:
    found = view(resizeErrors=[{"code": "AccountCoreQuotaReached", "message": "no cores"}])
    assert worker("active", found).refusal is RefusalKind.QUOTA
    assert "AccountCoreQuotaReached" in worker("active", found).detail
    assert worker("running", found).refusal is None
    assert worker("running", found).detail == ""


def test_a_pool_that_is_well_says_how_it_stands() -> None:
    assert view({"running": 2, "creating": 1}).detail == "waits for a node: 3 nodes (1 creating, 2 running)"
    assert view({}).detail == "waits for a node: the pool has none yet"
    assert view().refusal is None


@pytest.mark.parametrize("state", seen.BROKEN)
def test_nodes_that_cannot_be_used_are_told(state: str) -> None:
    node = {
        "id": "tvm-9",
        "state": state,
        "errors": [{"code": "AgentFailed", "message": "no disk", "errorDetails": []}],
    }
    all_bad = view({state: 1}, (node,))
    assert all_bad.refusal is RefusalKind.CONFIG
    assert "none of the pool's nodes can be used" in all_bad.detail
    assert f"node tvm-9 is {state}: {states.NODES[state]}; AgentFailed: no disk" in all_bad.detail
    some_bad = view({state: 1, "running": 3}, (node,))
    assert some_bad.refusal is None
    assert "tvm-9" in some_bad.detail
    running = worker("running", some_bad, nodeInfo={"nodeId": "tvm-9"})
    assert f"on node tvm-9, which is {state}" in running.detail
    assert worker("running", some_bad, nodeInfo={"nodeId": "tvm-1"}).detail == "on node tvm-1"


def test_a_start_task_that_failed_is_quoted() -> None:
    info = {"exitCode": 3, "failureInfo": {"code": "FailureExitCode", "message": "apt-get failed"}}
    text = seen.node_words({"id": "n", "state": "starttaskfailed", "startTaskInfo": info})
    assert text.endswith("start task (status 3): FailureExitCode: apt-get failed")


def test_other_ways_for_a_pool_to_have_no_nodes() -> None:
    assert view({}, enableAutoScale=False, targetDedicatedNodes=0).refusal is RefusalKind.CONFIG
    assert view({}, enableAutoScale=False, targetDedicatedNodes=2).refusal is None
    assert view(state="deleting").refusal is RefusalKind.CONFIG
    broken = view(autoScaleRun={"error": {"code": "AutoScalingFormulaEvaluationError", "message": "x is not known"}})
    assert broken.refusal is RefusalKind.CONFIG
    assert "x is not known" in broken.detail


def test_nodes_are_counted_dedicated_and_spot_together() -> None:
    answer = [
        {"poolId": "other", "dedicated": {"idle": 9, "total": 9}},
        {"poolId": "p", "dedicated": {"idle": 1, "startTaskFailed": 0, "total": 1}, "lowPriority": {"unusable": 2}},
    ]
    assert seen.counted(answer, "p") == {"idle": 1, "unusable": 2}


def test_the_filter_asks_for_one_managers_tasks_and_no_old_ends() -> None:
    filter = seen.wanted_tasks("Lab A", 1_795_183_200_000)
    since = "stateTransitionTime ge DateTime'2026-11-20T14:00:00Z'"
    assert filter == f"startswith(id,'lab-a-') and (state ne 'completed' or {since})"


# ---------------------------------------------------------------- requests


def body(code: str, words: str = "words") -> str:
    return f'{{"code":"{code}","message":{{"lang":"en-US","value":"{words}\\nRequestId:1\\nTime:2"}},"values":[]}}'


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidPropertyValue", RefusalKind.CONFIG),
        (401, "AuthenticationFailed", RefusalKind.AUTH),
        (403, "InsufficientAccountPermissions", RefusalKind.AUTH),
        (403, "AccountCoreQuotaReached", RefusalKind.QUOTA),
        (404, "JobNotFound", RefusalKind.CONFIG),
        (409, "JobDisabled", RefusalKind.CONFIG),
        (409, "ActiveJobAndScheduleQuotaReached", RefusalKind.QUOTA),
        (409, "PoolQuotaReached", RefusalKind.QUOTA),
        (413, "RequestBodyTooLarge", RefusalKind.CONFIG),
        (429, "TooManyRequests", RefusalKind.THROTTLED),
        (503, "ServerBusy", RefusalKind.THROTTLED),
    ],
)
def test_a_refusal_is_typed_by_code_and_status(status: int, code: str, kind: RefusalKind) -> None:
    outcome = errors.outcome(errors.from_answer(status, body(code), {"Retry-After": "7"}, 0))
    assert outcome == Refused(kind, f"Azure Batch answered {status}: {code}: words", 7.0)


@pytest.mark.parametrize(
    "trouble",
    [
        errors.from_answer(500, body("InternalError"), {}, 0),
        errors.from_answer(500, body("OperationTimedOut"), {}, 0),
        errors.from_answer(503, "<html>a proxy's</html>", {}, 0),
        errors.from_answer(408, "", {}, 0),
        errors.from_answer(502, "", {}, 0),
        Trouble("no answer"),
        Trouble("nonsense", 201),
    ],
    ids=str,
)
def test_what_may_have_happened_is_unknown(trouble: Trouble) -> None:
    assert isinstance(errors.outcome(trouble), Unknown)


def test_who_could_not_say_who_he_is_was_refused() -> None:
    outcome = errors.outcome(Trouble("no credential", before=True))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "2000", "retry-after": "9"}, 2.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:05 GMT"}, None),
    ],
)
def test_how_long_to_wait_however_it_is_written(headers: dict[str, str], seconds: float | None) -> None:
    assert errors.retry_after(headers, 10.0) == seconds


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '{"code":7}', '{"message":"x"}', "<html>", '{"code"'])
def test_an_error_that_is_no_envelope_is_quoted_as_it_is(text: str) -> None:
    assert errors.envelope(text) == ("", text)


def test_a_long_refusal_is_one_page() -> None:
    outcome = errors.outcome(errors.from_answer(409, body("JobDisabled", "x" * 10**7), {}, 0))
    assert isinstance(outcome, Refused)
    assert len(outcome.text) <= 2000


# ---------------------------------------------------------------- results of one call

ASKED = ["a", "b", "c"]


def said(id: str, status: str = "success", code: str = "") -> dict[str, Any]:
    error = {"error": {"code": code, "message": {"value": "words"}}} if code else {}
    return {"taskId": id, "status": status, **error}


def test_all_were_taken() -> None:
    assert results.read([said("c"), said("a"), said("b")], ASKED).whole
    again = results.read([said("a"), said("b", "clienterror", "TaskExists"), said("c")], ASKED)
    assert again.whole
    assert again.existing == ("b",)


def test_what_was_refused_and_what_is_unclear() -> None:
    result = results.read(
        [said("a"), said("b", "clienterror", "InvalidPropertyValue"), said("c", "servererror")], ASKED
    )
    assert not result.whole
    assert result.added == ("a",)
    assert result.refused == {"b": ("InvalidPropertyValue", "words")}
    assert list(result.unclear) == ["c"]
    assert result.words.startswith("2 of 3 workers were not taken: b: InvalidPropertyValue: words")
    assert result.refusal().kind is RefusalKind.CONFIG
    quota = results.read([said(id, "clienterror", "JobTaskQuotaReached") for id in ASKED], ASKED)
    assert quota.refusal().kind is RefusalKind.QUOTA


def test_a_task_of_which_nothing_was_said_is_unclear() -> None:
    assert list(results.read([said("a")], ASKED).unclear) == ["b", "c"]
    assert list(results.read([{"taskId": None}, {}], ASKED).unclear) == ASKED


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "cpus", "gib", "gpus"),
    [
        ("STANDARD_D4S_V3", 4, 16, 0),
        ("Standard_D96as_v5", 96, 384, 0),
        ("standard_e8ds_v5", 8, 64, 0),
        ("Standard_E96s_v5", 96, None, 0),
        ("Standard_NC16as_T4_v3", 16, None, 1),
        ("Standard_NC24ads_A100_v4", 24, None, 1),
        ("Standard_NC24s_v3", 24, None, 4),
        ("Standard_NC80adis_H100_v5", 80, None, 2),
        ("Standard_ND96isr_H100_v5", 96, None, 8),
    ],
)
def test_what_a_size_has_by_its_name(name: str, cpus: int, gib: int | None, gpus: int) -> None:
    size = size_of(name)
    assert size is not None
    assert (size.cpus, size.memory, size.gpus) == (cpus * 1000, gib and gib * 2**30, gpus)


@pytest.mark.parametrize("name", ["", "Standard_D3_v2", "Standard_DC4s_v3", "Standard_E4-2s_v5", "Standard_NC6", "x"])
def test_a_name_that_tells_too_little_refuses_nothing(name: str) -> None:
    assert size_of(name) is None
