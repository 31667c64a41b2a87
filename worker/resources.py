"""What this worker was given, not what its host has: affinity, cgroup limits, a Slurm allocation, visible GPUs, disk.

Readers are handed in (`read(path)` gives a file's text or None), so every rule is a pure function. What cannot be
learned stays None until flags or the host's totals fill it; a limit that cannot be parsed limits nothing.
"""

import os
from dataclasses import replace
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from worker.protocol import Shape, join_tags

Read = Callable[[str], Optional[str]]

CGROUPS = "/sys/fs/cgroup"
NVIDIA = "/proc/driver/nvidia/gpus"
MIG = "/proc/driver/nvidia/capabilities/gpu%d/mig"
UNLIMITED = 2**60  # cgroup v1 writes "no limit" as a number near 2^63
MIB = 2**20


class Wishes(NamedTuple):
    """What the flags say; None: find out."""

    cpus: Optional[int] = None
    memory: Optional[int] = None
    gpus: Optional[int] = None
    gpu_type: Optional[str] = None
    disk: Optional[int] = None
    walltime: Optional[int] = None
    tags: Tuple[str, ...] = ()
    custom: Tuple[Tuple[str, int], ...] = ()
    exclusive: bool = False
    max_work_dir_size: Optional[int] = None


class Given(NamedTuple):
    shape: Shape
    gpus: Tuple[str, ...]  # device ids behind shape.gpus, as CUDA_VISIBLE_DEVICES takes them
    there: Shape = Shape(cpus=0)  # what was found, whatever the flags say
    all_gpus: Tuple[str, ...] = ()  # and all device ids, more of them than shape.gpus where the flags say less

    def able(self, ways: Sequence[str]) -> "Given":
        """It knows these ways to run a job, too."""
        return self._replace(shape=replace(self.shape, can=join_tags((*self.shape.can, *ways))))


def read_file(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def found(work_dir: str, wishes: Wishes, env: Mapping[str, str], now_ms: int) -> Given:
    """What there is on this machine for this process, with the flags on top."""
    driver = sorted(_names(NVIDIA))
    devices, model = gpus(env, driver, read_file)
    if driver and any(each.isdigit() for each in devices):
        from worker.gpu.found import identified, listed  # only where there are GPUs: they may take a moment to tell

        devices, model = identified(devices, model, listed(), env)
    status = os.statvfs(work_dir)
    shape = Shape(
        cpus=cpus(len(os.sched_getaffinity(0)), env, read_file),
        memory=memory(env, read_file),
        gpus=len(devices),
        gpu_type=model,
        disk=status.f_bavail * status.f_frsize,
        walltime=walltime_left(env, now_ms),
    )
    given = wished(shape, devices, wishes)
    return given._replace(there=shape, all_gpus=max(given.gpus, devices, key=len))


def wished(shape: Shape, devices: Sequence[str], wishes: Wishes) -> Given:
    """Flags win, but for the time: the sooner end counts, because it comes whatever was asked for. More GPUs than were
    seen are numbered; a work dir with a limit is a disk of that size."""
    if wishes.walltime is not None and shape.walltime is not None:
        wishes = wishes._replace(walltime=min(wishes.walltime, shape.walltime))
    amounts = {name: getattr(wishes, name) for name in ("cpus", "memory", "gpus", "gpu_type", "disk", "walltime")}
    shape = replace(shape, **{name: value for name, value in amounts.items() if value is not None})
    if wishes.max_work_dir_size is not None:
        shape = replace(shape, disk=min(shape.disk, wishes.max_work_dir_size))
    shape = replace(shape, tags=join_tags(wishes.tags), custom=wishes.custom, exclusive=wishes.exclusive)
    if shape.gpus > len(devices):
        devices = [str(number) for number in range(shape.gpus)]
    return Given(replace(shape, gpu_type=shape.gpu_type if shape.gpus else ""), tuple(devices[: shape.gpus]))


# ---------------------------------------------------------------- cpus


def cpus(affinity: int, env: Mapping[str, str], read: Read) -> int:
    """Milli-CPUs: the smallest of affinity, cgroup quotas up to the root, and the Slurm allocation."""
    limits = [affinity * 1000, *_cpu_quotas(read)]
    slurm = slurm_cpus(env)
    if slurm is not None:
        limits.append(slurm)
    return max(1, min(limits))


def _cpu_quotas(read: Read) -> List[int]:
    quotas = [parse_cpu_max(text) for text in _cgroup_files("", "cpu.max", read)]
    for folder in _cgroup_folders("cpu", read):
        quota, period = read(folder + "/cpu.cfs_quota_us"), read(folder + "/cpu.cfs_period_us")
        quotas.append(parse_cpu_max("%s %s" % (quota, period)) if quota and period else None)
    return [quota for quota in quotas if quota is not None]


def parse_cpu_max(text: str) -> Optional[int]:
    """`200000 100000` is two CPUs; `max 100000`, and -1 in version 1, is no limit."""
    quota, _, period = " ".join(text.split()).partition(" ")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) * 1000 // int(period)


def slurm_cpus(env: Mapping[str, str]) -> Optional[int]:
    if "SLURM_JOB_ID" not in env:
        return None
    number = _number(env.get("SLURM_CPUS_ON_NODE"))
    per_task = _number(env.get("SLURM_CPUS_PER_TASK"))
    return 1000 * number if number else 1000 * per_task if per_task else None


# ---------------------------------------------------------------- memory


def memory(env: Mapping[str, str], read: Read) -> int:
    """Bytes: the smallest of the host's total, cgroup limits up to the root, and the Slurm allocation. 0 when nothing
    of it can be read, so that no job with a memory request lands on a guess."""
    limits = [parse_meminfo(read("/proc/meminfo") or "")]
    limits += [parse_limit(text) for text in _cgroup_files("", "memory.max", read)]
    limits += [parse_limit(text) for text in _cgroup_files("memory", "memory.limit_in_bytes", read)]
    limits.append(slurm_memory(env))
    return min([limit for limit in limits if limit is not None] or [0])


def parse_limit(text: str) -> Optional[int]:
    word = text.strip()
    return int(word) if word.isdigit() and int(word) < UNLIMITED else None


def parse_meminfo(text: str) -> Optional[int]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            number = _number(value.replace("kB", "").strip())
            return None if number is None else number * 1024
    return None


def slurm_memory(env: Mapping[str, str]) -> Optional[int]:
    """Slurm counts in MiB, for the node, for each CPU or for each GPU; 0 means all of it."""
    if "SLURM_JOB_ID" not in env:
        return None
    node = _number(env.get("SLURM_MEM_PER_NODE"))
    if node:
        return node * MIB
    each, cpus = _number(env.get("SLURM_MEM_PER_CPU")), slurm_cpus(env)
    if each and cpus:
        return each * MIB * cpus // 1000
    of_gpu, gpus = _number(env.get("SLURM_MEM_PER_GPU")), _number(env.get("SLURM_GPUS_ON_NODE"))
    return of_gpu * MIB * gpus if of_gpu and gpus else None


# ---------------------------------------------------------------- cgroups


def parse_cgroups(text: str) -> Dict[str, str]:
    """/proc/self/cgroup: controller → path; "" is version 2."""
    paths = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def _cgroup_folders(controller: str, read: Read) -> List[str]:
    """From our own group to the root: each of them limits us. In a container the path may be one of the host's, which
    is not mounted; then the root of the mount is ours."""
    path = parse_cgroups(read("/proc/self/cgroup") or "").get(controller)
    if path is None or "/.." in path:
        path = "/"
    root = CGROUPS + ("/" + controller if controller else "")
    parts = [part for part in path.split("/") if part]
    return ["/".join([root, *parts[:n]]) for n in range(len(parts), -1, -1)]


def _cgroup_files(controller: str, name: str, read: Read) -> List[str]:
    texts = (read(folder + "/" + name) for folder in _cgroup_folders(controller, read))
    return [text for text in texts if text]


# ---------------------------------------------------------------- GPUs, time


def _ids(information: Sequence[str]) -> Tuple[str, ...]:
    from worker.gpu.found import uuid_of  # only where there are GPUs

    return tuple(uuid_of(each) or str(number) for number, each in enumerate(information))


def gpus(
    env: Mapping[str, str], driver: Sequence[str], read: Read, names: Optional[Callable[[str], List[str]]] = None
) -> Tuple[Tuple[str, ...], str]:
    """(device ids, model). What the environment shows counts; else what the driver has."""
    names = names or _names
    information = [read("%s/%s/information" % (NVIDIA, name)) or "" for name in driver]
    everything = _ids(information) if information else ()
    if len({each.isdigit() for each in everything}) > 1 or _divided(driver, names):
        everything = tuple(str(number) for number in range(len(driver)))
    devices = parse_devices(env.get("CUDA_VISIBLE_DEVICES"))
    if devices is None:
        devices = parse_devices(env.get("NVIDIA_VISIBLE_DEVICES"))
        if devices:  # the container shows those, numbered anew
            devices = everything or devices
    if devices is None and "SLURM_JOB_ID" in env:
        devices = slurm_gpus(env, everything)
    if devices is None:
        devices = everything
    models = [parse_model(each) for each in information]
    return devices, models[0] if models and devices else ""


def slurm_gpus(env: Mapping[str, str], everything: Sequence[str]) -> Tuple[str, ...]:
    """Slurm names the GPUs of an allocation. Where it names none the job asked for none, whatever the node has."""
    numbers = parse_devices(env.get("SLURM_STEP_GPUS") or env.get("SLURM_JOB_GPUS"))
    if numbers is None:
        return ()
    if all(each.isdigit() and int(each) < len(everything) for each in numbers):
        return tuple(everything[int(each)] for each in numbers)
    return numbers


def _divided(driver: Sequence[str], names: Callable[[str], List[str]]) -> bool:
    """Into MIG slices, which only a list of them names."""
    return any(name.startswith("gi") for number in range(len(driver)) for name in names(MIG % number))


def parse_devices(text: Optional[str]) -> Optional[Tuple[str, ...]]:
    """None: not said, or all of them. CUDA stops at the first id that is none, such as -1."""
    if text is None or text.strip() == "all":
        return None
    devices: List[str] = []
    for word in text.split(","):
        word = word.strip()
        if not word.isdigit() and not word.startswith(("GPU-", "MIG-")):
            break
        if word not in devices:
            devices.append(word)
    return tuple(devices)


def parse_model(text: str) -> str:
    """`Model: NVIDIA H200` → `nvidia-h200`."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Model":
            return "-".join(value.lower().split())
    return ""


def walltime_left(env: Mapping[str, str], now_ms: int) -> Optional[int]:
    """Until Slurm ends the allocation."""
    end = _number(env.get("SLURM_JOB_END_TIME"))
    return max(0, end * 1000 - now_ms) if end else None


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _names(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
