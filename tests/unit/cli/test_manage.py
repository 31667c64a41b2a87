"""A manager in the foreground: what a dry run tells, and how a configuration is read again."""

import json
from dataclasses import replace
from typing import Any

import pytest

from worker_manager.cli.log import redact
from worker_manager.cli.manage import once, reload, sentence, show_plan
from worker_manager.errors import ConfigError, UsageError
from worker_manager.policy.model import Drain, Launch, Plan, PoolPlan
from worker_manager.policy.reasons import because

LAUNCH = Launch("gpu", 3, because("backlog", jobs=12, workers=3))


class Managed:
    """Stands where the assembled house does."""

    def __init__(self, *actions: Any, pools: tuple[PoolPlan, ...] = ()) -> None:
        self.manager = self
        self.actions = actions
        self.pools = pools
        self.taken: list[Any] = []
        self.settings = type("Settings", (), {"pools": ()})()

    def preview(self) -> Plan:
        return Plan(now=1, backlog_version=2, actions=self.actions, pools=self.pools, verdicts=(), notes=())

    once = preview

    def last_decision(self) -> int:
        return 0

    def decisions(self, after: int) -> tuple[Any, ...]:
        return ()

    def take(self, settings: Any) -> None:
        if isinstance(settings, Exception):
            raise settings
        self.taken.append(settings)


@pytest.mark.parametrize(("actions", "detailed", "code"), [((LAUNCH,), True, 3), ((LAUNCH,), False, 0), ((), True, 0)])
def test_a_dry_run_tells_by_its_exit_code_whether_it_would_act(
    actions: tuple[Any, ...], detailed: bool, code: int
) -> None:
    assert show_plan(Managed(*actions), detailed) == code  # type: ignore[arg-type]


def unread(code: str) -> PoolPlan:
    return PoolPlan("gpu", 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, (because(code, text="no answer"),))


@pytest.mark.parametrize("code", ["backlog-unreadable", "backend-unreadable"])
def test_what_could_not_be_read_is_no_success(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither of a dry run, which would else say that there is nothing to do, nor of a pass for cron."""
    house: Any = Managed(pools=(unread(code),))
    for act in (lambda: show_plan(house, True), lambda: once(house)):
        assert act() == 1
        line = capsys.readouterr().err.strip()
        assert line.startswith("worker-manager: gpu: the back")
        assert line.endswith("cannot be read, so nothing is decided: no answer")
    well: Any = Managed(LAUNCH)
    assert once(well) == 0


def test_a_dry_run_prints_data_on_stdout_and_sentences_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(Managed(LAUNCH), False)  # type: ignore[arg-type]
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["apiVersion"], document["kind"]) == ("worker-manager/v1", "Plan")
    assert document["actions"][0]["reason"]["code"] == "backlog"
    assert told.err == "launch 3 in gpu: 12 jobs wait: 3 more workers of this shape would hold them\n"


def test_a_launch_that_a_limit_lowered_says_so_in_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    lowered = replace(LAUNCH, wanted=20, limited=(because("max-workers", have=3, max=3),))
    show_plan(Managed(lowered), False)  # type: ignore[arg-type]
    told = capsys.readouterr()
    action = json.loads(told.out)["actions"][0]
    assert (action["count"], action["wanted"]) == (3, 20)
    assert action["limited"] == [
        {"code": "max-workers", "numbers": {"have": 3, "max": 3}, "text": "max-workers: 3 of 3"}
    ]
    assert told.err.endswith("would hold them; max-workers: 3 of 3\n")


def test_each_action_is_one_sentence() -> None:
    drain = Drain("gpu", "w1", because("too-old", limit_ms=60_000), deadline=5)
    assert sentence(drain) == "drain w1 of gpu: older than 1m"


@pytest.mark.parametrize("error", [ConfigError(["a: wrong", "b: wrong"]), UsageError("no such file"), OSError("gone")])
def test_a_configuration_that_cannot_be_read_leaves_the_old_one(error: Exception) -> None:
    def read() -> Any:
        raise error

    house = Managed()
    assert reload(house, read) is False  # type: ignore[arg-type]
    assert house.taken == []


def test_one_that_cannot_be_used_leaves_the_old_one() -> None:
    house = Managed()
    assert reload(house, lambda: UsageError("manager: only read at the start")) is False  # type: ignore[arg-type,return-value]


def test_a_good_one_is_taken() -> None:
    house = Managed()
    settings: Any = object()
    assert reload(house, lambda: settings) is True  # type: ignore[arg-type]
    assert house.taken == [settings]


def test_secrets_do_not_reach_the_log() -> None:
    event = {
        "event": "joined with Bearer abcdefghijklmnop",
        "token": "hunter2",
        "nested": {"db_password": "hunter2", "list": ["Bearer abcdefghijklmnop"]},
        "pool": "gpu",
        "count": 3,
    }
    told = redact(None, "info", event)
    assert "hunter2" not in str(told)
    assert "abcdefghijklmnop" not in str(told)
    assert (told["pool"], told["count"]) == ("gpu", 3)
