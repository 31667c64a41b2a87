"""Workers that hold no token: their platform vouches for who they are, their manager says whose worker that is.

The manager's word binds an identity to one intent; it may come before or after the worker, be repeated, and change
until the worker has registered. One identity stands for one worker at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from worker.protocol import Register, Registered
from worker_manager.hub.refusals import Conflict, NotYet
from worker_manager.hub.store.agents import refuse_incomplete, register_intent
from worker_manager.hub.store.moves import Moves
from worker_manager.hub.store.tables import intents

_BY_NAMES = select(intents).where(intents.c.identity.in_(bindparam("names", expanding=True)))
_OF_WORKER = select(intents).where(intents.c.worker == bindparam("worker"), intents.c.manager == bindparam("manager"))
_SOME = select(intents.c.worker).where(intents.c.joins_by.is_not(None)).limit(1)
_FIRST = ("open", "registered", "buried")  # an instance may have been another launch's before


def awaited(connection: Connection) -> bool:
    return connection.execute(_SOME).first() is not None


def identify(moves: Moves, manager: str, identities: Mapping[str, str]) -> list[str]:
    return [worker for worker, identity in identities.items() if _identify(moves, manager, worker, identity)]


def _identify(moves: Moves, manager: str, worker: str, identity: str) -> bool:
    intent = moves.connection.execute(_OF_WORKER, {"worker": worker, "manager": manager}).first()
    if intent is None or not _vouched_by(intent, identity):
        return False
    if intent.identity == identity:
        return True
    if intent.state != "open":
        return False
    others = moves.connection.execute(_BY_NAMES, {"names": [identity]}).all()
    if any(other.manager != manager or other.state == "registered" for other in others):
        return False  # another manager's, or it works already under another name
    for other in others:
        _bind(moves, other.worker, None)
    _bind(moves, worker, identity)
    return True


def _bind(moves: Moves, worker: str, identity: str | None) -> None:
    moves.connection.execute(update(intents).where(intents.c.worker == worker).values(identity=identity))


def _vouched_by(intent: Any, identity: str) -> bool:
    """An identity begins with who vouches for it; a worker with a token has none."""
    return bool(intent.joins_by) and identity.partition(":")[0] == intent.joins_by


def join(moves: Moves, message: Register, names: Sequence[str]) -> Registered:
    """The worker of the intent to which any of these names is bound."""
    refuse_incomplete(message)
    found = moves.connection.execute(_BY_NAMES, {"names": list(names)}).all()
    if not found:
        raise NotYet(f"no manager has said yet that {names[0]} is a worker of its pool")
    intent = min(found, key=lambda row: _FIRST.index(row.state))
    pool = message.get("pool")
    if pool and pool != intent.pool:
        text = f"{intent.identity} is a worker of pool {intent.pool}, but was started for pool {pool}"
        raise Conflict(text, code="pool-differs")
    return register_intent(moves, message, intent)
