"""What the agent hears of its stager beside the ends of jobs: how far they are, what the cache
holds, what people are to know."""

from typing import Any, Mapping, NamedTuple, Optional, Union

FILE_WAYS = ("inputs", "outputs", "paths")  # in a worker's shape.can


class Progress(NamedTuple):
    """How far a transfer is, in bytes; `whole` None: nobody knows of how many."""

    job: str
    epoch: int
    phase: str
    done: int
    whole: Optional[int]
    text: str = ""  # why it waits


class Cached(NamedTuple):
    """A `CacheNews`."""

    news: Mapping[str, Any]


class Noted(NamedTuple):
    """For people: what the stager says, or why it is gone."""

    event: str
    text: str


class NoMoreFiles(NamedTuple):
    """The stager died too often: this worker takes no more jobs that need it."""

    text: str


Aside = Union[Progress, Cached, Noted, NoMoreFiles]
