"""What a cloud says beforehand about the end of this machine. One file for each platform, with a class that has

    look(now_ms) -> Optional[Notice]     what stands at the moment; raises Unreachable

`watch.Watch` asks it again and again beside the agent's loop. A platform that is not asked for costs nothing.
"""

from typing import NamedTuple, Optional


class Notice(NamedTuple):
    """The machine goes, or may soon go."""

    reason: str  # a code: jobs that are handed back for it carry it
    text: str  # one sentence for people
    ends_ms: Optional[int]  # UTC; None: nobody knows when, if at all
