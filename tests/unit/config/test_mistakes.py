"""Every mistake is told at once, each with its place and with what to write instead."""

from typing import Any

import pytest

from tests.unit.config.catalogue import settings_of
from worker_manager.config.layers import SinglePool
from worker_manager.errors import ConfigError

GOOD = "version: 1\npools:\n  - {name: a, backend: local}\n"


def told(text: str | None = None, **more: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        settings_of(text, **more)
    assert caught.value.exit_code == 2
    return caught.value.problems


def pool(*lines: str) -> str:
    return "version: 1\npools:\n  - name: a\n" + "".join(f"    {line}\n" for line in ("backend: local", *lines))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pools: []\n", "pools.yaml:1: version: is missing: write version: 1"),
        ("version: 1\n", "pools.yaml:1: pools: is missing: write a list of pools, each with name and backend"),
        (
            "version: 2\npools: [{name: a, backend: local}]\n",
            "pools.yaml:1: version: write 1, not 2: this program knows no other",
        ),
        ("- a\n", "pools.yaml:1: write version: 1, then pools: with a list of pools"),
        ("version: 1\npools:\n  - backend: local\n", "pools.yaml:3: pools[0].name: is missing: write name: …"),
        ("version: 1\npools:\n  - name: a\n", "pools.yaml:3: pools[0].backend: is missing: write backend: …"),
        ("version: 1\npools:\n  - 7\n", "pools.yaml:3: pools[0]: write keys and values under it, not 7"),
        ("version: 1\npools: local\n", "pools.yaml:2: pools: write a list, not 'local'"),
        (GOOD + "  - {name: a, backend: local}\n", "pools.yaml:4: pools[1].name: a is the name of pools[0] already"),
        (
            GOOD + "  - {name: B_1, backend: local}\n",
            "pools.yaml:4: pools[1].name: write at most 20 lowercase letters, digits and dashes, beginning with a "
            "letter, for example gpu-a",
        ),
        (
            GOOD.replace("local", "lokal"),
            "pools.yaml:3: pools[0].backend: there is no backend 'lokal'; did you mean local?",
        ),
        (
            GOOD.replace("local", "x"),
            "pools.yaml:3: pools[0].backend: there is no backend 'x'; known here: cloud, local",
        ),
        (pool("max_workers: 3"), "pools.yaml:5: pools[0].max_workers: unknown key; did you mean max-workers?"),
        (
            pool("min-workers: 3", "max-workers: 2"),
            "pools.yaml:5: pools[0].min-workers: min-workers is 3 and max-workers is 2: "
            "write a min-workers of at most 2, or a max-workers of at least 3",
        ),
        (pool("min-workers: -1"), "pools.yaml:5: pools[0].min-workers: write a number of at least 0, not -1"),
        (pool("min-workers: yes"), "pools.yaml:5: pools[0].min-workers: write a whole number, not true"),
        (pool("max-workers: many"), "pools.yaml:5: pools[0].max-workers: write a whole number, not 'many'"),
        (
            pool("max-workers: 2000000"),
            "pools.yaml:5: pools[0].max-workers: write a number of at most 1000000, not 2000000",
        ),
        (
            pool("shape: {memory: 64G}"),
            "pools.yaml:5: pools[0].shape.memory: '64G' is not a size: write a number and one of B, kB, KB, MB, GB, "
            "TB, PB, KiB, MiB, GiB, TiB, PiB (64GiB is a power of two, 64GB of ten) (for example 64GiB)",
        ),
        (
            pool("shape: {cpus: two}"),
            "pools.yaml:5: pools[0].shape.cpus: 'two' is not a number of cpus: write 2, 0.5 or 500m (for example 2)",
        ),
        (pool("shape: 3"), "pools.yaml:5: pools[0].shape: write keys and values under it, not 3"),
        (pool("shape: {exclusive: 3}"), "pools.yaml:5: pools[0].shape.exclusive: write true or false, not 3"),
        (
            pool("limits: {idle: 5 minutes}"),
            "pools.yaml:5: pools[0].limits.idle: '5 minutes' is not a duration: write 90s, 10m, 1h30m or 2d "
            "(for example 10m)",
        ),
        (
            pool("limits:", "  backoff: 1h"),
            "pools.yaml:6: pools[0].limits.backoff: limits.backoff is 1h and limits.backoff-cap is 30m: "
            "write a limits.backoff of at most 30m, or a limits.backoff-cap of at least 1h",
        ),
        (pool("law: packk"), "pools.yaml:5: pools[0].law: there is no law 'packk'; did you mean pack?"),
        (
            pool("law: idle", "law-options: {idle_workers: 3}"),
            "pools.yaml:6: pools[0].law-options.idle_workers: the law idle has no such option; "
            "did you mean idle-workers?",
        ),
        (
            pool("law: idle", "law-options: {idle-workers: many}"),
            "pools.yaml:6: pools[0].law-options.idle-workers: write a whole number of at least 1, not 'many'",
        ),
        (
            pool("law-options: {idle-workers: 3}"),
            "pools.yaml:5: pools[0].law-options.idle-workers: the law pack has no such option; it has none at all",
        ),
        (pool("worker: {max-runs: 0}"), "pools.yaml:5: pools[0].worker.max-runs: write a number of at least 1, not 0"),
        (
            pool("options: {pyton: x}"),
            "pools.yaml:5: pools[0].options.pyton: is not an option of this backend. Did you mean python?",
        ),
        (
            "version: 1\nhub: {database: 'postgresql://ada:pw@db/x'}\npools: [{name: a, backend: local}]\n",
            "pools.yaml:2: hub.database: is a secret: write env:NAME or file:PATH, so that it stands in no "
            "command line or file",
        ),
        (
            "version: 1\nhubb: {}\npools: [{name: a, backend: local}]\n",
            "pools.yaml:2: hubb: unknown key; did you mean hub?",
        ),
        (
            "version: 1\nmanager: {tik: 3}\npools: [{name: a, backend: local}]\n",
            "pools.yaml:2: manager.tik: unknown key; did you mean tick?",
        ),
    ],
)
def test_one_mistake(text: str, problem: str) -> None:
    assert problem in told(text)


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = """\
version: 1
defaults:
  limits: {idle: soon}
pools:
  - name: a
    backend: lokal
    min-workers: 3
    max-workers: 2
  - name: b
    backend: local
    shape: {cpus: two}
    law: random
"""
    lines = [int(problem.split(":")[1]) for problem in told(text)]
    assert lines == [3, 6, 7, 11, 12]


def test_a_mistake_in_the_defaults_is_told_once_however_many_pools_there_are() -> None:
    pools = "".join(f"  - {{name: p{n}, backend: local}}\n" for n in range(5))
    (problem,) = told(f"version: 1\ndefaults:\n  shape: {{memory: 4G}}\npools:\n{pools}")
    assert problem.startswith("pools.yaml:3: defaults.shape.memory: '4G' is not a size")


def test_a_secret_in_the_file_is_refused_and_not_repeated() -> None:
    text = "version: 1\npools:\n  - {name: a, backend: cloud, options: {queue-name: q, auth-token: hunter2}}\n"
    (problem,) = told(text)
    assert problem.startswith("pools.yaml:3: pools[0].options.auth-token: is a secret")
    assert "hunter2" not in problem


def test_a_flag_is_blamed_by_its_name() -> None:
    single = SinglePool("local", "local", {"cpus": "x"})
    assert told(single=single) == ("--cpus: 'x' is not a number of cpus: write 2, 0.5 or 500m (for example 2)",)


def test_a_variable_is_blamed_by_its_name() -> None:
    found = told(GOOD, environment={"WORKER_MANAGER_MAX_WORKERS": "some"})
    assert found == ("WORKER_MANAGER_MAX_WORKERS: write a whole number, not 'some'",)


def test_a_default_is_never_blamed() -> None:
    form = {("pool", "min-workers"): 1}
    found = told(flags={"max_workers": 0}, single=SinglePool("local", "local"), form=form)
    assert [line.partition(": ")[0] for line in found] == ["--max-workers"]


def test_a_required_option_that_is_missing_is_named() -> None:
    (problem,) = told(single=SinglePool("cloud", "cloud"))
    assert "options.queue-name: is required (the queue)" in problem
