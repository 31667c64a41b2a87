"""A GPU, as whoever lists it knows it."""

from typing import NamedTuple, Tuple


class Gpu(NamedTuple):
    id: str
    model: str  # as the driver writes it
    slices: Tuple[Tuple[str, str], ...] = ()  # (id, profile) of its MIG slices
