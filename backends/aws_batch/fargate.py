"""Which sizes a Fargate task may have. Everything else is refused by AWS when the job definition is registered.

https://docs.aws.amazon.com/batch/latest/APIReference/API_ResourceRequirement.html
"""

from collections.abc import Mapping, Sequence

SMALLEST_DISK_GIB, LARGEST_DISK_GIB = 21, 200  # 20 GiB are there without asking

# milli-vCPUs → the memory, in MiB, that may go with them.
SIZES: Mapping[int, Sequence[int]] = {
    250: (512, 1024, 2048),
    500: (1024, 2048, 3072, 4096),
    1000: range(2048, 8192 + 1, 1024),
    2000: range(4096, 16384 + 1, 1024),
    4000: range(8192, 30720 + 1, 1024),
    8000: range(16384, 61440 + 1, 4096),
    16000: range(32768, 122880 + 1, 8192),
    32000: (61440, 122880, 249856),
}


def smallest(milli_cpus: int, mib: int) -> tuple[int, int] | None:
    """The smallest size that holds both, as (milli-vCPUs, MiB); None when there is none."""
    fitting = (
        (cpus, memory) for cpus, memories in SIZES.items() if cpus >= milli_cpus for memory in memories if memory >= mib
    )
    return min(fitting, default=None)
