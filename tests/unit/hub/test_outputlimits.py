"""More output than a job may have is not kept, whatever the agent sends."""

from worker_manager.hub.outputlimits import SLACK, OutputLimits


def limits_with(limit: int, at_most: int = 10) -> OutputLimits:
    limits = OutputLimits(at_most)
    limits.learn([{"job": "j1", "epoch": 2, "output_limit": limit}])
    return limits


def test_output_is_kept_up_to_the_limit_and_the_agent_s_last_words() -> None:
    limits = limits_with(100)
    assert limits.cut("j1", 2, 0, b"x" * (100 + SLACK)) == b"x" * (100 + SLACK)
    assert limits.cut("j1", 2, SLACK, b"x" * 101) == b"x" * 100
    assert limits.cut("j1", 2, SLACK + 100, b"x") == b""
    assert limits.cut("j1", 2, SLACK + 1000, b"x") == b""


def test_of_an_attempt_from_before_the_start_the_agent_s_word_counts() -> None:
    assert limits_with(0).cut("j1", 1, SLACK + 5, b"x") == b"x"


def test_what_is_remembered_is_bounded() -> None:
    limits = limits_with(0, at_most=2)
    limits.learn([{"job": f"j{n}", "epoch": 1, "output_limit": 0} for n in (5, 6)])
    assert limits.cut("j1", 2, SLACK, b"x") == b"x"
    assert limits.cut("j6", 1, SLACK, b"x") == b""
