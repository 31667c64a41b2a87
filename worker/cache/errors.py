"""What can go wrong with a cache, for those who use it."""


class CacheError(Exception):
    """The message is for people."""


class CacheUnusable(CacheError):
    """Nothing of it can be used here, and why: jobs go on without it."""


class CacheFull(CacheError):
    """There is no room, and nothing that is not in use could make some."""


class WrongContent(CacheError):
    """What was built is not what the key names."""


class Cancelled(CacheError):
    """Nobody wants it any more."""
