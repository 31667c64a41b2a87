"""A command line of CodaLab's worker manager goes on working: same names, same defaults, same meaning."""

from typing import Any

import click
import pytest

from tests.unit.cli.house import House
from worker_manager.cli.main import cli, spread_words
from worker_manager.cli.run import codalab_form
from worker_manager.cli.world import Invocation, World
from worker_manager.config.flags import UNUSED
from worker_manager.config.layers import SinglePool
from worker_manager.config.settings import PoolConfig

WHOLE = (
    *("--server", "http://127.0.0.1:1", "--temp-session", "--min-workers", "2", "--max-workers", "20"),
    *("--search", "state=staged", ".mine", "--verbose", "--sleep-time", "7", "--restart-after-seconds", "60"),
    *("--no-prefilter", "--once", "--min-seconds-between-workers", "30", "--worker-tag", "gpu", "--worker-group", "g"),
    *("--worker-work-dir-prefix", "/scratch", "--worker-max-work-dir-size", "10g", "--worker-delete-work-dir-on-exit"),
    *("--worker-pass-down-termination", "--worker-exit-on-exception", "--worker-tag-exclusive", "--worker-preemptible"),
    *("--worker-idle-seconds", "300", "--worker-download-dependencies-max-retries", "5"),
    *("--worker-checkin-frequency-seconds", "20", "--worker-exit-after-num-runs", "4"),
    *("--worker-shared-memory-size-gb", "1", "--worker-executable", "wm-worker"),
)


def pool_of(flags: dict[str, Any], given: dict[str, Any] | None = None, **environment: str) -> PoolConfig:
    inv = Invocation(World(environment={"HOME": "/nowhere", **environment}), flags)
    return inv.settings(single=SinglePool("local", "local", given or {}), form=codalab_form()).pools[0]


def test_the_whole_command_line_is_accepted_and_says_what_has_no_effect() -> None:
    result = House().run(*WHOLE, "render", "local", "--cpus", "2", "--gpus", "1", "--memory-mb", "4096", "--help")
    assert result.code == 0, result
    notes = {line.split()[1] for line in result.stderr.splitlines()}
    assert notes == {f"--{flag.name}" for flag in UNUSED}


def test_the_defaults_are_codalabs() -> None:
    pool = pool_of({})
    limits = pool.limits
    assert (limits.min_workers, limits.max_workers) == (1, 10)
    assert (limits.cooldown_up_ms, limits.idle_ms) == (60_000, 600_000)
    assert (pool.shape.cpus, pool.shape.gpus, pool.shape.memory) == (1000, 0, 2048 << 20)


def test_the_meanings_are_codalabs() -> None:
    pool = pool_of(
        {
            "min_workers": 2,
            "max_workers": 20,
            "min_seconds_between_workers": 30.0,
            "worker_tag": ["gpu"],
            "worker_tag_exclusive": True,
            "worker_work_dir_prefix": "/scratch",
            "worker_idle_seconds": 300.0,
            "worker_exit_after_num_runs": 4,
            "worker_executable": "nice wm-worker",
            "worker_delete_work_dir_on_exit": True,
            "worker_pass_down_termination": True,
            "worker_exit_on_exception": True,
            "worker_checkin_frequency_seconds": 20.0,
            "worker_max_work_dir_size": "10g",
        },
        {"cpus": "2", "gpus": 1, "memory_mb": 4096},
    )
    assert (pool.limits.min_workers, pool.limits.max_workers) == (2, 20)
    assert (pool.limits.cooldown_up_ms, pool.limits.idle_ms) == (30_000, 300_000)
    assert (pool.shape.cpus, pool.shape.gpus, pool.shape.memory) == (2000, 1, 4096 << 20)
    assert (pool.shape.tags, pool.shape.exclusive) == (("gpu",), True)
    worker = pool.worker
    assert (worker.work_dir, worker.max_runs, worker.executable) == ("/scratch", 4, ("nice", "wm-worker"))
    assert (worker.delete_work_dir, worker.pass_down_termination, worker.exit_on_exception) == (True, True, True)
    assert (worker.checkin_ms, worker.max_work_dir_size) == (20_000, 10 << 30)


def test_codalabs_executable_is_our_agent() -> None:
    assert pool_of({"worker_executable": "cl-worker"}).worker.executable == ()


def test_environment_variables_stand_in_for_flags() -> None:
    pool = pool_of({}, WORKER_MANAGER_MAX_WORKERS="3", WORKER_MANAGER_LOCAL_CPUS="2")
    assert (pool.limits.max_workers, pool.shape.cpus) == (3, 2000)


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        (["--search", "a", "b", "local"], ["--search", "a", "--search", "b", "local"]),
        (["--search", "a", "--once", "local"], ["--search", "a", "--once", "local"]),
        (["--search", "--once", "local"], ["--once", "local"]),
        (["--max-workers", "3", "local"], ["--max-workers", "3", "local"]),
        (["submit", "--", "x", "--search", "y"], ["submit", "--", "x", "--search", "y"]),
    ],
)
def test_search_takes_all_words_up_to_the_next_option_or_command(words: list[str], spread: list[str]) -> None:
    assert spread_words(words, {"local": None, "submit": None}) == spread


def test_max_below_min_is_an_error_as_it_was() -> None:
    told = House().refused("--min-workers", "5", "--max-workers", "2", "local")
    assert told == (
        "worker-manager: --min-workers: min-workers is 5 and max-workers is 2: "
        "write a min-workers of at most 2, or a max-workers of at least 5\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "aws-batch --region eu-west-1 --job-definition-name n --user root --job-queue q --job-filter ^x --cpus 4",
        "azure-batch --account-name a --account-key env:KEY --service-url https://a.example --log-container-url "
        "https://l.example/logs --job-id j --user root --memory-mb 4096",
        "kubernetes --cluster-host https://c.example --auth-token env:TOKEN --cert-path /etc/ca --cert env:TOKEN "
        "--bundle-runtime kubernetes --nfs-volume-name nfs --gpus 1",
        "slurm-batch --partition p --job-name n --nodelist a --exclude b --gpu-type t --constraint c --time 10-0 "
        "--user u --password-file f --slurm-work-dir scratch --exit-after-num-failed 3 --account a --dry-run",
    ],
)
def test_every_option_of_codalabs_subcommands_is_an_option_here(line: str) -> None:
    """Whether all of them together make sense is for the backend to say."""
    name, *words = line.split()
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, words, click.Context(cli, obj=World(environment={})))


def test_what_means_nothing_for_a_backend_is_said() -> None:
    done = House().run("render", "slurm-batch", "--partition", "p", "--user", "u", "--exit-after-num-failed", "3")
    assert done.code == 0, done
    assert "--user has no effect here: the token is read from --token-file" in done.stderr
    assert "--exit-after-num-failed has no effect here: after ten failed starts" in done.stderr
    assert "--user" not in done.stdout
