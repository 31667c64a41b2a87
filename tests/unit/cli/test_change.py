import pytest

from tests.unit.cli.house import NOW, Asked, FakeHub, House
from worker_manager.errors import HubError


def test_cancel_names_what_it_cancelled() -> None:
    house = House(FakeHub({("POST", "/v1/jobs/j1/cancel"): {}, ("POST", "/v1/jobs/j2/cancel"): {}}))
    assert house.ok("cancel", "j1", "j2") == "j1\nj2\n"


def test_one_that_is_refused_does_not_stop_the_others() -> None:
    hub = FakeHub(
        {
            ("POST", "/v1/jobs/j1/cancel"): HubError(404, "job-unknown", "there is no job j1"),
            ("POST", "/v1/jobs/j2/cancel"): {},
        }
    )
    result = House(hub).run("cancel", "j1", "j2")
    assert (result.code, result.stdout) == (1, "j2\n")
    assert result.stderr == "worker-manager: there is no job j1\n"


@pytest.mark.parametrize("word", ["7", "j7", "J7", "job/j7"])
def test_a_job_may_be_named_by_its_bare_number(word: str) -> None:
    assert House(FakeHub({("POST", "/v1/jobs/j7/cancel"): {}})).ok("cancel", word) == "j7\n"


def test_cancelling_what_has_ended_says_so_and_is_no_failure() -> None:
    house = House(FakeHub({("POST", "/v1/jobs/j1/cancel"): {"state": "failed"}}))
    result = house.run("cancel", "j1")
    assert (result.code, result.stdout) == (0, "")
    assert result.stderr == "worker-manager: j1: it had ended before: failed\n"


def test_many_are_told_at_once_and_shown_in_order() -> None:
    names = [f"j{number}" for number in range(100)]
    house = House(FakeHub({("POST", f"/v1/workers/{name}/drain"): {} for name in names}))
    assert house.ok("drain", *names).split() == names


def test_many_are_cancelled_in_few_requests() -> None:
    names = [f"j{number}" for number in range(100)]
    answers = [{"id": name, "state": "cancelled"} for name in names]
    answers[3] = {"id": "j3", "state": "failed"}
    answers[5] = {"id": "j5", "code": "forbidden", "detail": "j5 belongs to another owner"}
    house = House(FakeHub({("POST", "/v1/jobs/cancel"): {"jobs": answers}}))
    result = house.run("cancel", *names)
    assert result.code == 1
    assert result.stdout.split() == [name for name in names if name not in ("j3", "j5")]
    assert "j3: it had ended before: failed" in result.stderr
    assert "j5 belongs to another owner" in result.stderr
    assert house.hub.asked == [Asked("POST", "/v1/jobs/cancel", {"jobs": names})]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("freeze", "gpu"), ("POST", "/v1/pools/gpu/freeze")),
        (("freeze", "pool/gpu"), ("POST", "/v1/pools/gpu/freeze")),
        (("unfreeze", "gpu"), ("POST", "/v1/pools/gpu/unfreeze")),
        (("delete", "w1"), ("DELETE", "/v1/workers/w1")),
        (("drain", "worker", "w1"), ("POST", "/v1/workers/w1/drain")),
        (("cancel", "job", "j1"), ("POST", "/v1/jobs/j1/cancel")),
    ],
)
def test_the_kind_may_be_left_out_or_said(words: tuple[str, ...], asked: tuple[str, str]) -> None:
    house = House(FakeHub({asked: {}}))
    house.ok(*words)
    assert [(one.method, one.path) for one in house.hub.asked] == [asked]


@pytest.mark.parametrize("words", [("freeze", "pool"), ("delete", "worker"), ("drain", "worker")])
def test_a_kind_alone_names_nothing(words: tuple[str, ...]) -> None:
    assert f"name a {words[1]}" in House().refused(*words)


def all_queued() -> FakeHub:
    return FakeHub(
        {("GET", "/v1/jobs"): {"jobs": [{"id": "j1"}, {"id": "j2"}], "next": None}}
        | {("POST", f"/v1/jobs/{id}/cancel"): {} for id in ("j1", "j2")}
    )


def test_cancelling_all_needs_a_yes_where_nobody_can_be_asked() -> None:
    house = House(all_queued())
    assert "Cancel 2 jobs? Nobody can be asked here: say --yes" in house.refused("cancel", "--all", "--state", "queued")
    assert [asked.method for asked in house.hub.asked] == ["GET"]


def test_cancelling_all_of_a_state() -> None:
    house = House(all_queued())
    assert house.ok("cancel", "--all", "--state", "queued", "--yes") == "j1\nj2\n"
    assert house.hub.asked[0].params["state"] == "queued"


@pytest.mark.parametrize("words", [(), ("j1", "--all"), ("j1", "--state", "queued")])
def test_cancel_wants_names_or_all(words: tuple[str, ...]) -> None:
    assert "name jobs, or say --all" in House().refused("cancel", *words)


def test_drain_with_a_deadline() -> None:
    house = House(FakeHub({("POST", "/v1/workers/w1/drain"): {}}))
    house.ok("drain", "w1", "--within", "30m", "--reason", "new kernel")
    assert house.hub.asked == [
        Asked("POST", "/v1/workers/w1/drain", {"reason": "new kernel", "deadline_ms": NOW + 1_800_000})
    ]


def test_delete_worker() -> None:
    house = House(FakeHub({("DELETE", "/v1/workers/w1"): {"command": "c1"}}))
    assert house.ok("delete", "worker", "w1", "--force", "--grace-period", "30s") == "w1\n"
    assert house.hub.asked == [Asked("DELETE", "/v1/workers/w1", None, {"force": "true", "grace_ms": 30_000})]


def test_a_busy_worker_is_refused_without_force() -> None:
    house = House(FakeHub({("DELETE", "/v1/workers/w1"): HubError(409, "worker-busy", "w1 runs 2 jobs: say --force")}))
    assert house.refused("delete", "worker", "w1") == "worker-manager: w1 runs 2 jobs: say --force\n"


def test_a_freeze_always_ends() -> None:
    house = House(FakeHub({("POST", "/v1/pools/gpu/freeze"): {}, ("POST", "/v1/pools/gpu/unfreeze"): {}}))
    house.ok("freeze", "pool", "gpu")
    house.ok("freeze", "pool", "gpu", "--for", "2h", "--text", "maintenance", "--manager", "m")
    house.ok("unfreeze", "pool", "gpu")
    assert [asked.body for asked in house.hub.asked] == [
        {"for_ms": 1_800_000, "text": ""},
        {"for_ms": 7_200_000, "text": "maintenance", "manager": "m"},
        {},
    ]


def test_a_time_that_is_none_is_refused() -> None:
    assert "--for: 'long' is not a duration" in House().refused("freeze", "pool", "gpu", "--for", "long")


def test_a_name_cannot_leave_its_path() -> None:
    house = House(FakeHub({("POST", "/v1/jobs/..%2Fworkers/cancel"): {}}))
    house.ok("cancel", "../workers")
