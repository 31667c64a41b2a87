"""A real agent on which nothing can be started."""

from typing import Any


def test_it_reports_itself_and_takes_no_more(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent("--black-hole-jobs", "4")
    for number in range(4):
        fake_hub.assign(fake_hub.job(f"j{number}", "no-such-program"))
        assert fake_hub.result(f"j{number}")["outcome"] == "failed"
    assert fake_hub.left() == "black-hole"
    assert agent.exit_code() == 0
    why = next(report["why"] for report in fake_hub.reports if report.get("why"))
    assert why["code"] == "black-hole"
    assert "4 different jobs" in why["text"]


def test_nobody_is_suspected_who_was_not_asked_to_look(fake_hub: Any, start_agent: Any) -> None:
    agent = start_agent()
    fake_hub.assign(*(fake_hub.job(f"j{number}", "no-such-program") for number in range(30)))
    for number in range(30):
        assert fake_hub.result(f"j{number}")["outcome"] == "failed"
    fake_hub.assign(fake_hub.job("last", "true"))
    assert fake_hub.result("last")["outcome"] == "succeeded"
    assert not agent.said("draining")
