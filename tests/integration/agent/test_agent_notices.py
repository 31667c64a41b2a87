"""A real agent on a machine whose cloud says that it is going."""

import json
import signal
import time
from typing import Any

import pytest

from tests.stand_ins import clouds
from worker.notices.aws import ACTION, REBALANCE
from worker.notices.gcp import PREEMPTED


def test_a_spot_interruption_hands_the_jobs_back_before_the_end(
    fake_hub: Any, start_agent: Any, eventually: Any
) -> None:
    with clouds.ec2() as cloud:
        agent = start_agent("--notices", "aws", env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url})
        jobs = [fake_hub.job(name, "sleep", "1000", shape={"cpus": 2000}) for name in ("j1", "j2")]
        fake_hub.assign(*jobs)
        eventually(lambda: ("j1", 1) in fake_hub.started, "the start")
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 32))
        cloud.answers[ACTION] = json.dumps({"action": "terminate", "time": end})
        assert agent.exit_code(40) == 0
    for name in ("j1", "j2"):
        assert fake_hub.result(name)["outcome"] == "returned"
    assert fake_hub.result("j1")["reason"] == "spot-interruption"
    assert fake_hub.left() == "spot-interruption"
    (notice,) = agent.said("notice")
    assert 0 < notice["ends_in_ms"] <= 32_000
    why = [report["why"] for report in fake_hub.reports if report.get("why")]
    assert why[0]["code"] == "spot-interruption"


def test_a_mere_risk_lets_what_runs_finish(fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Any) -> None:
    go = tmp_path / "go"
    with clouds.ec2() as cloud:
        agent = start_agent("--notices", "aws", env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url})
        fake_hub.assign(fake_hub.job("j1", "sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done"))
        eventually(lambda: ("j1", 1) in fake_hub.started, "the start")
        cloud.answers[REBALANCE] = json.dumps({"noticeTime": "2026-11-20T08:20:00Z"})
        eventually(lambda: agent.said("draining"), "the drain")
        fake_hub.assign(fake_hub.job("j2", "true"))
        assert fake_hub.result("j2")["outcome"] == "returned"
        assert not fake_hub.results["j1", 1]
        go.touch()
        assert fake_hub.result("j1")["outcome"] == "succeeded"
        assert agent.exit_code() == 0


def test_a_preemption_ends_the_jobs_at_once(fake_hub: Any, start_agent: Any, eventually: Any) -> None:
    with clouds.compute_engine() as cloud:
        agent = start_agent("--notices", "gcp", env={"GCE_METADATA_HOST": cloud.address})
        fake_hub.assign(fake_hub.job("j1", "sleep", "1000"))
        eventually(lambda: ("j1", 1) in fake_hub.started, "the start")
        cloud.answers[PREEMPTED] = "TRUE"
        assert fake_hub.result("j1")["outcome"] == "returned"
        assert agent.exit_code() == 0


@pytest.mark.parametrize("answers", [{}, {ACTION: (500, "")}], ids=["nothing", "broken"])
def test_a_cloud_that_says_nothing_or_is_broken_disturbs_nobody(
    answers: Any, fake_hub: Any, start_agent: Any, eventually: Any
) -> None:
    with clouds.ec2() as cloud:
        cloud.answers.update(answers)
        agent = start_agent("--notices", "aws", env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url})
        eventually(lambda: cloud.asked, "it to ask")
        fake_hub.assign(fake_hub.job("j1", "true"))
        assert fake_hub.result("j1")["outcome"] == "succeeded"
        if answers:
            eventually(lambda: agent.said("notices-unreadable"), "it to be said")
        assert not agent.said("draining")
        agent.process.send_signal(signal.SIGTERM)
        assert agent.exit_code() == 0
