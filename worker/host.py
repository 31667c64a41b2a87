"""Facts about the machine, for people: nothing is decided by them."""

import os
import sys
from typing import Any, Dict, Mapping

VERSION = "0.1.0"


def facts(env: Mapping[str, str]) -> Dict[str, Any]:
    name = os.uname()
    told: Dict[str, Any] = {
        "hostname": name.nodename,
        "pid": os.getpid(),
        "agent": VERSION,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "kernel": name.release,
        "machine": name.machine,
        "cpus": os.cpu_count(),
        "uid": os.getuid(),
    }
    for key, variable in (("slurm_job", "SLURM_JOB_ID"), ("batch_job", "AWS_BATCH_JOB_ID"), ("pod", "HOSTNAME")):
        if env.get(variable) and (key != "pod" or "KUBERNETES_SERVICE_HOST" in env):
            told[key] = env[variable][:200]
    return told


def memory_in_use() -> int:
    """Bytes of this process that are in memory; 0 when the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
