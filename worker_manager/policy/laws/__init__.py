"""The scaling laws: how many workers a pool should have for the jobs that wait. One file and one line here for each."""

from collections.abc import Mapping
from types import MappingProxyType

from worker_manager.policy.laws import backlog, idle, pack, step
from worker_manager.policy.laws.base import Law, Look, Wish

LAWS: Mapping[str, Law] = MappingProxyType(
    {
        "backlog": backlog.backlog,  # so many jobs a worker
        "idle": idle.idle,  # so many workers idle at all times
        "pack": pack.pack,  # as many as hold what waits
        "step": step.step,  # one at a time
    }
)
# What a law may be told, with what holds where it is not: whole numbers, at least 1.
OPTIONS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {"backlog": backlog.OPTIONS, "idle": idle.OPTIONS, "pack": {}, "step": {}}
)
DEFAULT = "pack"

__all__ = ["DEFAULT", "LAWS", "OPTIONS", "Law", "Look", "Wish"]
