"""flag > environment > file > default, and the origin of each."""

from pathlib import Path

import pytest

from tests.unit.config.catalogue import settings_of
from worker.protocol import ANYTHING, Shape
from worker_manager.config import schema
from worker_manager.config.layers import SinglePool
from worker_manager.config.settings import PoolConfig, Settings

FILE = """\
version: 1
manager: {id: north, tick: 2s}
defaults:
  max-workers: 7
  limits: {idle: 5m}
pools:
  - name: a
    backend: local
    max-workers: 5
    shape: {cpus: 2, memory: 64GiB, tags: [b, a, b]}
  - name: b
    backend: cloud-batch
    limits: {stabilise: 0s}
    options: {queue-name: q, zones: [x, y]}
"""


def origin(settings: Settings, *path: str | int) -> str:
    return str(settings.origins[path])


def test_a_file_becomes_frozen_settings() -> None:
    settings = settings_of(FILE)
    a, b = settings.pools
    assert settings.manager.id == "north"
    assert settings.manager.tick_ms == 2000
    assert a.shape == Shape(cpus=2000, memory=64 << 30, tags=("a", "b"), can=(ANYTHING,))
    assert (a.limits.max_workers, b.limits.max_workers) == (5, 7)
    assert (a.limits.idle_ms, b.limits.idle_ms) == (300_000, 300_000)
    assert b.limits.stabilise_ms == 0
    assert b.backend == "cloud"
    assert b.options["zones"] == ("x", "y")


def test_units_are_read_as_they_are_written() -> None:
    shape = "shape: {{memory: {}}}"
    sizes = [
        settings_of(f"version: 1\npools:\n  - {{name: a, backend: local, {shape.format(size)}}}\n")
        .pools[0]
        .shape.memory
        for size in ("64 GB", "64GiB", "1000")
    ]
    assert sizes == [64 * 10**9, 64 * 2**30, 1000]


@pytest.mark.parametrize(
    ("flags", "environment", "text", "expected", "where"),
    [
        ({"max_workers": 3}, {"WORKER_MANAGER_MAX_WORKERS": "4"}, FILE, 3, "--max-workers"),
        ({}, {"WORKER_MANAGER_MAX_WORKERS": "4"}, FILE, 4, "WORKER_MANAGER_MAX_WORKERS"),
        ({}, {"WORKER_MANAGER_MAX_WORKERS": ""}, FILE, 5, "pools.yaml:9"),
        ({}, {}, FILE.replace("    max-workers: 5\n", ""), 7, "pools.yaml:4"),
        ({}, {}, FILE.replace("    max-workers: 5\n", "").replace("  max-workers: 7\n", ""), 10, "default"),
    ],
)
def test_the_stronger_wins_and_says_where_it_stands(
    flags: dict[str, int], environment: dict[str, str], text: str, expected: int, where: str
) -> None:
    settings = settings_of(text, flags, environment)
    assert settings.pools[0].limits.max_workers == expected
    assert origin(settings, "pools", 0, "max-workers") == where


def test_a_backends_own_variables_reach_its_pools_only() -> None:
    environment = {"WORKER_MANAGER_LOCAL_CPUS": "3", "WORKER_MANAGER_CLOUD_QUEUE_NAME": "other"}
    a, b = settings_of(FILE, environment=environment).pools
    assert (a.shape.cpus, b.shape.cpus) == (3000, 1000)
    assert b.options["queue-name"] == "other"


def test_a_flag_after_the_backend_wins_over_its_variable() -> None:
    single = SinglePool("local", "local", {"cpus": "4", "memory_mb": 512})
    (pool,) = settings_of(environment={"WORKER_MANAGER_LOCAL_CPUS": "2"}, single=single).pools
    assert (pool.shape.cpus, pool.shape.memory) == (4000, 512 << 20)


def test_a_single_pool_takes_the_files_defaults_and_leaves_its_pools() -> None:
    settings = settings_of(FILE, single=SinglePool("local", "local"), form={("pool", "max-workers"): 10})
    (pool,) = settings.pools
    assert pool.name == "local"
    assert pool.limits.max_workers == 7
    assert settings.manager.id == "north"


def test_the_form_of_the_command_gives_the_weakest_values() -> None:
    settings = settings_of(single=SinglePool("local", "local"), form={("pool", "limits", "cooldown-up"): "60"})
    assert settings.pools[0].limits.cooldown_up_ms == 60_000
    assert origin(settings, "pools", 0, "limits", "cooldown-up") == "default (single pool)"


def test_the_state_directory_follows_the_environment_it_is_given() -> None:
    assert settings_of().manager.state_dir == Path("/home/ada/.local/state/worker-manager")
    assert settings_of(environment={"XDG_STATE_HOME": "/s"}).manager.state_dir == Path("/s/worker-manager")
    assert settings_of(environment={"WORKER_MANAGER_STATE_DIR": "/x"}).manager.state_dir == Path("/x")
    assert settings_of(
        flags={"state_dir": "/y"}, environment={"WORKER_MANAGER_STATE_DIR": "/x"}
    ).manager.state_dir == Path("/y")


def test_codalabs_sizes_are_powers_of_two() -> None:
    single = SinglePool("local", "local")
    (pool,) = settings_of(flags={"worker_max_work_dir_size": "10g"}, single=single).pools
    assert pool.worker.max_work_dir_size == 10 << 30


def test_a_secret_is_read_from_its_reference_and_shown_as_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hunter2\n")
    text = (
        f"version: 1\npools:\n  - {{name: a, backend: cloud, options: {{queue-name: q, auth-token: 'file:{file}'}}}}\n"
    )
    settings = settings_of(text)
    assert settings.pools[0].options["auth-token"] == "hunter2"
    assert "hunter2" not in repr(settings)
    assert settings.values["pools", 0, "options", "auth-token"] == f"file:{file}"


def digest(text: str) -> str:
    return settings_of(f"version: 1\npools:\n  - {{name: a, backend: local, {text}}}\n").pools[0].launch_digest()


def test_the_digest_changes_with_what_a_launch_would_do_and_with_nothing_else() -> None:
    plain = digest("max-workers: 3")
    assert digest("max-workers: 4, limits: {idle: 1m}, law: step") == plain
    assert (
        len({plain, digest("shape: {cpus: 2}"), digest("worker: {max-runs: 1}"), digest("options: {python: x}")}) == 4
    )


def test_settings_are_frozen() -> None:
    pool: PoolConfig = settings_of(FILE).pools[0]
    with pytest.raises(AttributeError):
        pool.name = "other"  # type: ignore[misc]


def test_a_default_is_shown_as_it_may_be_written() -> None:
    """A bare 5000 in a file would be seconds."""
    part = schema.PoolPart(name="a", backend="local")
    shown = part.model_dump(by_alias=True, mode="json")
    assert shown["limits"]["idle"] == "10m"
    assert shown["shape"]["memory"] == "2GiB"
    assert schema.PoolPart.model_validate(shown) == part
