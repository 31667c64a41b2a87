"""Workers of one machine that share it: how a pool says so, and where it makes no sense."""

from pathlib import Path

import pytest

from backends import registry
from backends.base import Backend, BackendUnusable, Severity
from tests.unit.config.catalogue import settings_of
from worker.protocol import Shape
from worker_manager.assemble import create_backend
from worker_manager.clock import ManualClock
from worker_manager.config.layers import SinglePool
from worker_manager.config.settings import HubConfig, ManagerSettings, PoolConfig, Settings, WorkerSettings
from worker_manager.errors import ConfigError
from worker_manager.policy.model import Limits

FILE = "version: 1\npools:\n  - name: a\n    backend: local\n    worker: {share: %s}\n"


@pytest.mark.parametrize(("text", "share"), [("true", "auto"), ("false", ""), ("auto", "auto"), ("/srv/x", "/srv/x")])
def test_a_pool_says_so_in_a_file(text: str, share: str) -> None:
    assert settings_of(FILE % text).pools[0].worker.share == share


def test_and_by_a_flag() -> None:
    settings = settings_of(flags={"worker_share": True}, single=SinglePool("a", "local"))
    assert settings.pools[0].worker.share == "auto"


@pytest.mark.parametrize("text", ["machine", "7", "[a]"])
def test_what_is_no_folder_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(FILE % text)
    (problem,) = caught.value.problems
    assert "pools.yaml:5: pools[0].worker.share: " in problem
    assert "write true, or a folder" in problem


def backend(tmp_path: Path, kind: str) -> Backend:
    options = {option.name: option.default for option in registry.load(kind).options}
    shape, limits = Shape(cpus=1), Limits(max_workers=10**9)
    pool = PoolConfig("a", kind, shape, limits, worker=WorkerSettings(share="auto"), options=options)
    settings = Settings(ManagerSettings("m", tmp_path, 1000), HubConfig(), (pool,))
    return create_backend(settings, pool, ManualClock())


def test_where_each_worker_has_its_machine_for_itself_it_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match="pool a: each worker of memory has its part"):
        backend(tmp_path, "memory")


def test_together_they_need_no_more_than_one(tmp_path: Path) -> None:
    (slice_,) = [one for one in backend(tmp_path, "local").check() if one.subject == "slice"]
    assert slice_.severity is Severity.OK
