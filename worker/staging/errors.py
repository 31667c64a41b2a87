"""What can go wrong with a transfer, for those who decide what becomes of the job."""


class StagingError(Exception):
    """The message is for people. `again`: another try, here or on another worker, may do better."""

    again = False


class Refused(StagingError):
    """It will never work: not there, not allowed, not what it should be."""


class BrokeOff(StagingError):
    """The line, or the other side, failed."""

    again = True

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s  # the other side asked for that much time


class Unsafe(StagingError):
    """An archive that means harm, or might."""
