"""What new workers of a pool really have: what the pool promises, less what its newest worker turned out to lack.

A job that fits the promise but not the worker would else make one worker after another. The note lasts as long as the
configuration that it was learned with.
"""

from dataclasses import replace
from typing import Any

from worker.protocol import ANYTHING, Shape
from worker_manager.policy.model import Note, WorkerView
from worker_manager.policy.standing import Standing

OWNER = "shape"
VERSION = 1
_AMOUNTS = ("cpus", "memory", "gpus", "disk")
_Learned = dict[str, Any]


def new_worker_shape(standing: Standing) -> tuple[Shape, Note | None]:
    """The shape to expect, and the note that keeps it."""
    promise = standing.pool.shape
    newest = max(_registered(standing), key=lambda worker: (worker.ready_at or 0, worker.id), default=None)
    if newest is not None:
        known: Shape = promise if newest.shape.machine else newest.shape  # its neighbours have the rest, for now
        amounts = {name: getattr(known, name) for name in _AMOUNTS}
        shape = _least(promise, {**amounts, "can": newest.shape.can})
    else:
        shape = _remembered(standing)
    if shape == promise:
        return shape, None
    learned: _Learned = {name: getattr(shape, name) for name in _AMOUNTS}
    learned["can"] = list(shape.can)
    return shape, Note(standing.pool.name, OWNER, VERSION, {"config": standing.pool.config, **learned})


def _registered(standing: Standing) -> list[WorkerView]:
    """Those launched with the configuration that new workers would have."""
    return [
        worker
        for worker in standing.workers
        if worker.known and worker.registers and worker.ready_at is not None and worker.config == standing.pool.config
    ]


def _remembered(standing: Standing) -> Shape:
    promise, note = standing.pool.shape, standing.notes.get(OWNER)
    if note is None or note.version != VERSION or note.value.get("config") != standing.pool.config:
        return promise
    learned: _Learned = {name: int(note.value[name]) for name in _AMOUNTS}
    return _least(promise, {**learned, "can": tuple(note.value.get("can", promise.can))})


def _least(promise: Shape, learned: _Learned) -> Shape:
    """A promise says nothing of what its workers can: that is what the worker says."""
    amounts = {name: min(getattr(promise, name), learned[name]) for name in _AMOUNTS}
    return replace(promise, **amounts, can=learned["can"] if ANYTHING in promise.can else promise.can)
