"""GPUs by their UUIDs, so that a job's `CUDA_VISIBLE_DEVICES` means the same devices whoever counts them. MIG slices
count as devices.

The list comes from NVML where pynvml is installed, else from `nvidia-smi -L`; it is only asked on a machine whose
driver shows GPUs. What is not listed keeps its number.
"""

import re
from typing import List, Mapping, Optional, Sequence, Tuple

from worker.gpu.device import Gpu

_GPU = re.compile(r"GPU (\d+): (.*) \(UUID: (GPU-[0-9a-fA-F-]+)\)")
_SLICE = re.compile(r"\s+MIG (\S+)\s.*\(UUID: (MIG-[^)]+)\)")
LIST_TIMEOUT_S = 10


def listed() -> List[Gpu]:
    """What this process may see; [] when nobody tells."""
    from worker.gpu import nvml

    found = nvml.gpus(nvml.library())
    return parse_list(_nvidia_smi()) if found is None else found


def _nvidia_smi() -> str:
    import subprocess

    try:
        asked = ["nvidia-smi", "-L"]
        return subprocess.run(asked, capture_output=True, timeout=LIST_TIMEOUT_S, check=False).stdout.decode(
            "utf-8", "replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""


def parse_list(text: str) -> List[Gpu]:
    """Of `nvidia-smi -L`."""
    found: List[Gpu] = []
    for line in text.splitlines():
        gpu, part = _GPU.match(line), _SLICE.match(line)
        if gpu:
            found.append(Gpu(gpu.group(3), gpu.group(2).strip()))
        elif part and found:
            found[-1] = found[-1]._replace(slices=(*found[-1].slices, (part.group(2), part.group(1))))
    return found


def identified(
    ids: Sequence[str], model: str, there: Sequence[Gpu], env: Mapping[str, str]
) -> Tuple[Tuple[str, ...], str]:
    """(device ids, type) for what was found by number. `ids` that are UUIDs already stay."""
    if not there or not all(each.isdigit() for each in ids) or any(int(each) >= len(there) for each in ids):
        return tuple(ids), model
    one_order = len({gpu.model for gpu in there}) == 1 or env.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not one_order:  # CUDA puts the fastest first, the driver counts by the bus: a number may mean either
        return tuple(ids), model
    mine = [there[int(each)] for each in ids]
    found: List[str] = []
    for gpu in mine:
        found += [each for each, _ in gpu.slices] or [gpu.id]
    return tuple(found), _kind(mine) or model


def _kind(mine: Sequence[Gpu]) -> str:
    """`nvidia-h200`, or `nvidia-a100-mig-1g.5gb` where all slices are alike."""
    if not mine:
        return ""
    name = "-".join(mine[0].model.lower().split())
    profiles = {profile for gpu in mine for _, profile in gpu.slices}
    return "%s-mig-%s" % (name, profiles.pop()) if len(profiles) == 1 else name


def uuid_of(information: str) -> Optional[str]:
    """From the driver's own file, where it is written."""
    for line in information.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "GPU UUID" and value.strip().startswith("GPU-") and "?" not in value:
            return value.strip()
    return None
