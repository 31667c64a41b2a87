"""What a VM size has, as far as its name tells; the service has no call for it.

https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions: the number in a name is the vCPUs. Memory is
known where the family's GiB for each vCPU are the same in all its sizes, GPUs where the name says which they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    cpus: int  # milli-CPUs
    memory: int | None  # bytes; None is not known
    gpus: int


_NAME = re.compile(r"(?:standard_)?([a-z]+?)(\d+)([a-z]*)(?:_([a-z]+\d+))?_(v\d+)", re.IGNORECASE)
_GIB_PER_CPU = {"D": 4, "E": 8}
_FIRST_SURE = 3  # earlier generations count otherwise
_LARGEST_EVEN = 48  # larger ones of the E family have less for each vCPU

# (family, accelerator) → vCPUs → GPUs. https://learn.microsoft.com/azure/virtual-machines/sizes/overview#gpu-accelerated
_GPUS: Mapping[tuple[str, str], Mapping[int, int]] = {
    ("NC", "T4"): {4: 1, 8: 1, 16: 1, 64: 4},
    ("NC", "A100"): {24: 1, 48: 2, 96: 4},
    ("NC", "H100"): {40: 1, 80: 2},
    ("NC", ""): {6: 1, 12: 2, 24: 4},  # v3: V100
    ("ND", "A100"): {96: 8},
    ("ND", "H100"): {96: 8},
    ("ND", "H200"): {96: 8},
    ("NV", "A10"): {36: 1, 72: 2},  # smaller ones have a part of one
}


def size_of(name: str) -> Size | None:
    """None where the name tells too little to refuse anything by."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    family, cpus, additions = found[1].upper(), int(found[2]), found[3].lower()
    accelerator, version = (found[4] or "").upper(), int(found[5][1:])
    if family in _GIB_PER_CPU and version >= _FIRST_SURE and "l" not in additions and not accelerator:
        even = family == "D" or cpus <= _LARGEST_EVEN
        return Size(cpus * 1000, cpus * _GIB_PER_CPU[family] * 2**30 if even else None, 0)
    gpus = _GPUS.get((family, accelerator), {}).get(cpus)
    return None if gpus is None else Size(cpus * 1000, None, gpus)
