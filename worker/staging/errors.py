"""What can go wrong with a transfer, and what that makes of the job's attempt."""

import errno
from typing import NamedTuple

FULL = (errno.ENOSPC, errno.EDQUOT)


class StagingError(Exception):
    """The message is for people. `again`: another try, here or on another worker, may do better."""

    again = False
    kind = "refused"  # with `input-` or `output-` before it: the reason, where it is no use to try again


class Refused(StagingError):
    """It will never work: not there, not allowed, not what it should be."""


class Forbidden(Refused):
    """Not with this address: it may have been signed too long ago."""


class Corrupt(Refused):
    """It is not what its digest or size says."""

    kind = "corrupt"


class Unsafe(StagingError):
    """An archive or a listing that means harm, or might."""

    kind = "unsafe"


class Missing(StagingError):
    """An output that must be there is not."""

    kind = "missing"


class Changing(StagingError):
    """A file was written to while it was read, again and again."""

    kind = "changed"


class BrokeOff(StagingError):
    """The line, or the other side, failed."""

    again = True

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s  # the other side asked for that much time


class Moved(BrokeOff):
    """It is another version than the one that was looked at."""


class Distrusted(StagingError):
    """Who answers is not the hub that was pinned. Nothing was said to it."""

    again = True


class Stopped(Exception):
    """Nobody waits for it any more."""


class Verdict(NamedTuple):
    outcome: str
    reason: str
    text: str


def verdict(error: BaseException, side: str) -> Verdict:
    """`side`: input or output."""
    if isinstance(error, StagingError):
        if error.again:
            return Verdict("returned", "staging-failed", str(error))
        return Verdict("failed", "%s-%s" % (side, error.kind), str(error))
    if isinstance(error, OSError):
        reason = "disk-full" if error.errno in FULL else "staging-failed"
        return Verdict("returned", reason, "the worker's disk: %s" % (error.strerror or type(error).__name__))
    return Verdict("returned", "staging-failed", "the stager made a mistake: %s" % type(error).__name__)
