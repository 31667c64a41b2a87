"""What a worker was given, from the texts of the files that say so."""

from collections.abc import Mapping

import pytest

from worker.protocol import Shape
from worker.resources import (
    Wishes,
    cpus,
    gpus,
    memory,
    parse_cgroups,
    parse_cpu_max,
    parse_devices,
    parse_limit,
    parse_meminfo,
    parse_model,
    slurm_cpus,
    slurm_memory,
    walltime_left,
    wished,
)

GIB = 2**30
MEMINFO = "MemTotal:       24684080 kB\nMemFree: 1 kB\n"


def files(**more: str) -> Mapping[str, str]:
    return {"/proc/meminfo": MEMINFO, **more}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("200000 100000\n", 2000),
        ("max 100000\n", None),
        ("-1 100000", None),
        ("50000 100000", 500),
        ("", None),
        ("7", None),
    ],
)
def test_cpu_quotas(text: str, value: int | None) -> None:
    assert parse_cpu_max(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1073741824\n", GIB), ("max\n", None), (str(2**63 - 4096), None), ("", None)]
)
def test_memory_limits(text: str, value: int | None) -> None:
    assert parse_limit(text) == value


def test_meminfo() -> None:
    assert parse_meminfo(MEMINFO) == 24684080 * 1024
    assert parse_meminfo("nothing") is None


def test_cgroups_of_both_versions() -> None:
    assert parse_cgroups("3:cpu,cpuacct:/a\n0::/b:c\n") == {"cpu": "/a", "cpuacct": "/a", "": "/b:c"}


def test_the_smallest_limit_on_the_way_to_the_root_counts() -> None:
    there = files(
        **{
            "/proc/self/cgroup": "0::/slice/job\n",
            "/sys/fs/cgroup/slice/job/cpu.max": "max 100000",
            "/sys/fs/cgroup/slice/cpu.max": "150000 100000",
            "/sys/fs/cgroup/slice/job/memory.max": str(4 * GIB),
            "/sys/fs/cgroup/slice/memory.max": str(2 * GIB),
        }
    )
    assert cpus(8, {}, there.get) == 1500
    assert memory({}, there.get) == 2 * GIB


def test_version_1_and_a_container_whose_path_is_not_mounted() -> None:
    there = files(
        **{
            "/proc/self/cgroup": "4:memory:/docker/abc\n1:cpu:/docker/abc\n0::/\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
        }
    )
    assert cpus(8, {}, there.get) == 3000
    assert memory({}, there.get) == GIB


def test_without_limits_it_is_affinity_and_the_hosts_memory() -> None:
    assert cpus(3, {}, files().get) == 3000
    assert memory({}, files().get) == 24684080 * 1024
    assert memory({}, {}.get) == 0, "unknown memory is not offered"


def test_a_slurm_allocation() -> None:
    env = {"SLURM_JOB_ID": "1", "SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "1000"}
    assert slurm_cpus(env) == 4000
    assert slurm_memory(env) == 4000 * 2**20
    assert slurm_memory({**env, "SLURM_MEM_PER_NODE": "512"}) == 512 * 2**20
    assert slurm_memory({**env, "SLURM_MEM_PER_NODE": "0"}) == 4000 * 2**20
    by_gpu = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_GPU": "1000", "SLURM_GPUS_ON_NODE": "2"}
    assert slurm_memory(by_gpu) == 2000 * 2**20
    assert slurm_memory({**by_gpu, "SLURM_GPUS_ON_NODE": ""}) is None
    assert slurm_cpus({"SLURM_CPUS_ON_NODE": "4"}) is None, "left over from elsewhere"
    assert cpus(64, env, {}.get) == 4000
    assert walltime_left({"SLURM_JOB_END_TIME": "1000"}, 400_000) == 600_000
    assert walltime_left({}, 0) is None


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        (None, None),
        ("all", None),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("void", ()),
        ("none", ()),
        ("0,2", ("0", "2")),
        ("0,-1,2", ("0",)),
        ("GPU-8a, MIG-1", ("GPU-8a", "MIG-1")),
        ("1,1", ("1",)),
    ],
)
def test_visible_devices(text: str | None, devices: tuple[str, ...] | None) -> None:
    assert parse_devices(text) == devices


def test_gpus_by_environment_then_by_driver() -> None:
    driver = ["0000:01:00.0", "0000:02:00.0"]
    there = {f"/proc/driver/nvidia/gpus/{name}/information": "Model: \t\t NVIDIA H200\nIRQ: 1\n" for name in driver}
    assert gpus({}, driver, there.get) == (("0", "1"), "nvidia-h200")
    assert gpus({"CUDA_VISIBLE_DEVICES": "1"}, driver, there.get) == (("1",), "nvidia-h200")
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}, driver, there.get) == ((), "")
    assert gpus({"NVIDIA_VISIBLE_DEVICES": "3,5"}, driver, there.get)[0] == ("0", "1"), "a container numbers its own"
    assert gpus({}, [], there.get) == ((), "")
    assert parse_model("nothing") == ""


def test_flags_win() -> None:
    has = Shape(cpus=8000, memory=GIB, gpus=1, gpu_type="nvidia-h200", disk=100)
    given = wished(has, ["GPU-a"], Wishes(cpus=500, tags=("b", "a"), custom=(("licence", 2),), exclusive=True))
    assert (given.shape.cpus, given.shape.memory, given.shape.tags) == (500, GIB, ("a", "b"))
    assert given.gpus == ("GPU-a",)
    assert given.shape.exclusive and given.shape.custom == (("licence", 2),)


def test_flags_for_gpus_and_disk() -> None:
    has = Shape(gpus=2, gpu_type="x", disk=100)
    assert wished(has, ["4", "7"], Wishes(gpus=1)).gpus == ("4",)
    assert wished(has, ["4", "7"], Wishes(gpus=3)).gpus == ("0", "1", "2"), "more than were seen are numbered"
    none = wished(has, ["4", "7"], Wishes(gpus=0))
    assert (none.gpus, none.shape.gpu_type) == ((), "")
    assert wished(has, [], Wishes(max_work_dir_size=50)).shape.disk == 50
    assert wished(has, [], Wishes(max_work_dir_size=500)).shape.disk == 100


def test_the_sooner_of_two_walltimes_counts_for_one_may_be_cut_short() -> None:
    shape = Shape(cpus=1000, memory=0, walltime=600_000)
    assert wished(shape, (), Wishes(walltime=3_600_000)).shape.walltime == 600_000
    assert wished(shape, (), Wishes(walltime=60_000)).shape.walltime == 60_000
    assert wished(Shape(cpus=1000, memory=0), (), Wishes(walltime=60_000)).shape.walltime == 60_000
