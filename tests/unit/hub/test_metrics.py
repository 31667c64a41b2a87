from worker_manager.hub.metrics import WAITS_EVERY_S, Metrics


def test_costly_figures_take_at_most_a_twentieth_of_the_time() -> None:
    metrics = Metrics()
    assert metrics.takes_waits(100.0)
    assert not metrics.takes_waits(100.1), "somebody else is at it"
    metrics.waits_took(0.01, 100.2)
    assert not metrics.takes_waits(100.1 + WAITS_EVERY_S)
    assert metrics.takes_waits(100.2 + WAITS_EVERY_S)
    metrics.waits_took(3.0, 110.0)
    assert not metrics.takes_waits(169.0)
    assert metrics.takes_waits(170.0)


def test_commits_are_counted_with_their_size() -> None:
    metrics = Metrics()
    metrics.committed(3, 0.002)
    metrics.committed(40, 0.02)
    text = metrics.text().decode()
    assert "wm_hub_commit_batch_sum 43.0" in text
    assert 'wm_hub_commit_seconds_bucket{le="0.003"} 1.0' in text
