"""What a worker was started with that its decisions depend on, and the times that we chose for it."""

import zlib
from typing import NamedTuple, Optional

SETTLE_MS = 300  # after the hub heard of a drain of ours: time for what it assigned before to arrive
SAME_SIGNAL_MS = 100  # a signal to a whole group, and one that is passed on, come twice and mean one thing
KILL_GRACE_MS = 10_000  # the longest grace of a job when its worker must go
FAREWELL_MS = 10_000  # how long a worker that was stopped tries to hand back its jobs
DEAD_MAN_MS = 3_600_000
LAST_STRETCH_MS = 60_000  # before its walltime ends a worker takes no more
LAST_MARGIN_MS = 30_000  # and then ends what still runs, so that it goes back and is not lost
NOTICE_MS = 60_000  # how long before its end USR2 comes, where nothing else is said
EARLY_PART, EARLIEST_MS = 10, 300_000  # a worker retires up to a tenth of its walltime early, five minutes at the most
SHAPE_MS = 60_000  # how often the hub hears how much walltime is left


def early(worker: str, walltime_ms: int) -> int:
    """How much earlier than it must this worker takes its last job: always the same for one id."""
    return zlib.crc32(worker.encode()) % (min(walltime_ms // EARLY_PART, EARLIEST_MS) + 1)


class Terms(NamedTuple):
    idle_exit_ms: Optional[int] = None
    asks_to_leave: bool = False  # started by hand: it says itself when it was idle; else the hub grants it
    max_runs: Optional[int] = None
    dead_man_ms: Optional[int] = None  # None: idle_exit_ms + lease, or an hour
    pass_down: bool = False  # the first signal ends the jobs
    ends_at: Optional[int] = None  # when the machine is taken away, by our own clock
    notice_ms: int = NOTICE_MS
    black_hole: int = 0  # so many different jobs that fail at once in a row are too many; 0: any number is fine
    early_ms: int = 0  # before the last stretch: so that those who began together do not go together

    def gives_up_after(self, lease_ms: int) -> int:
        """The dead man's switch: how long the hub may be silent to a worker without jobs."""
        after = self.dead_man_ms
        if after is None:
            after = DEAD_MAN_MS if self.idle_exit_ms is None else self.idle_exit_ms + lease_ms
        return max(after, lease_ms)
