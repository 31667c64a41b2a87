"""How a pool's agents are started, and that the agent understands it."""

from worker.options import parse
from worker.protocol import Shape
from worker_manager.config.agent import agent_command
from worker_manager.config.settings import PoolConfig, WorkerSettings
from worker_manager.policy.model import Limits


def test_a_workers_command_carries_no_secret_and_all_of_its_slice() -> None:

    shape = Shape(cpus=1500, memory=1 << 30, gpus=2, gpu_type="a100", tags=("x",), custom=(("lic", 2),), exclusive=True)
    pool = PoolConfig("gpu", "local", shape, Limits(idle_ms=60_000), worker=WorkerSettings(("wm-worker",), "/s", 5))
    words = " ".join(agent_command(pool, "https://h:1", "ab12"))
    assert words == (
        "wm-worker --server https://h:1 --ca-fingerprint sha256:ab12 --worker-id {worker} --pool gpu "
        f"--config {pool.launch_digest()} --work-dir /s --idle-seconds 60000ms --exit-after-num-runs 5 "
        "--cpus 1.5 --memory 1073741824 --gpus 2 --gpu-type a100 --tag=x --custom=lic=2 --tag-exclusive"
    )


def test_the_agent_understands_that_command() -> None:

    shape = Shape(
        cpus=333, memory=1 << 30, disk=5, walltime=1500, tags=("x", "y"), custom=(("lic", 2),), exclusive=True
    )
    worker = WorkerSettings(
        work_dir="/s",
        max_runs=5,
        delete_work_dir=True,
        max_work_dir_size=7,
        pass_down_termination=True,
        exit_on_exception=True,
        checkin_ms=2500,
        dead_man_ms=9000,
        cache_dir="/nfs/cache",
        cache_size=1 << 30,
        no_cache=True,
        input_path=("/data", "/more"),
        transfers=9,
        share="auto",
    )
    pool = PoolConfig("gpu", "local", shape, Limits(), worker=worker)
    command = [word.replace("{worker}", "w-1") for word in agent_command(pool, "http://127.0.0.1:1", None)]
    options = parse(command[3:], {"WM_JOIN_TOKEN": "t" * 20})
    assert options.wishes.cpus == 333
    assert options.wishes.walltime == 1500
    assert options.wishes.tags == ("x", "y")
    assert (options.terms.max_runs, options.terms.dead_man_ms, options.terms.idle_exit_ms) == (5, 9000, 600_000)
    assert (options.heartbeat_ms, options.delete_work_dir, options.exit_on_exception) == (2500, True, True)
    assert (options.cache_dir, options.cache_size, options.cache) == ("/nfs/cache", 1 << 30, False)
    assert (options.input_paths, options.transfers) == (("/data", "/more"), 9)
    assert options.share == "auto"


def test_peoples_own_lines_reach_the_agent_as_they_are() -> None:
    worker = WorkerSettings(
        hook_start="-x; echo 'a b'",
        hook_before_job="check {gpu}",
        hook_after_job='log "$WM_JOB"',
        hook_stop="umount /scratch",
        hook_limit_ms=5000,
        wrap="nice -n 10",
        checkpoint_keep_ms=60_000,
        notices="off",
        black_hole_jobs=7,
    )
    pool = PoolConfig("gpu", "local", Shape(cpus=1000), Limits(), worker=worker)
    command = [word.replace("{worker}", "w-1") for word in agent_command(pool, "http://127.0.0.1:1", None)]
    options = parse(command[3:], {"WM_JOIN_TOKEN": "t" * 20})
    hooks = options.hooks
    assert (hooks.start, hooks.before, hooks.after) == ("-x; echo 'a b'", "check {gpu}", 'log "$WM_JOB"')
    assert (hooks.stop, hooks.limit_ms, options.wrap) == ("umount /scratch", 5000, ("nice", "-n", "10"))
    assert options.checkpoint_keep_ms == 60_000
    assert (options.notices, options.terms.black_hole) == ("off", 7)


def test_workers_without_a_token_share_one_command_that_names_none_of_them() -> None:
    pool = PoolConfig("gpu", "local", Shape(cpus=1000), Limits(), worker=WorkerSettings(("wm-worker",)))
    command = agent_command(pool, "http://127.0.0.1:1", None, identity="aws")
    assert "{worker}" not in " ".join(command)
    options = parse(command[1:], {})
    assert (options.identity, options.token, options.by_hand) == ("aws", "", False)
    assert options.worker, "until the hub tells its name it goes by its machine's"
