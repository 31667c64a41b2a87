"""Who may act: one manager process at a time for one ledger.

A lease has an epoch that grows with each holder; every write to the ledger is refused unless its epoch is current, so a
leader that was stopped and wakes up can write nothing, and without a written intent it launches nothing. A lease ends
by its expiry, or at once when its holder is certainly dead: the holder keeps a lock on a file that the kernel lets go
with the process, so a manager that was killed is succeeded without waiting.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Update, delete, insert, select, update

from worker_manager.control import schema
from worker_manager.errors import LeaseHeld


@dataclass(frozen=True)
class Lease:
    manager: str
    holder: str
    epoch: int
    lock: int  # descriptor of the locked file


class LeaseLost(LeaseHeld):
    """Another manager has taken over; this one may not act any more."""


def take(write: Connection, ledger: Path, manager: str, holder: str, now: int, ttl_ms: int) -> Lease:
    """Inside one write transaction. Raises LeaseHeld with the holder's name."""
    row = write.execute(select(schema.lease).where(schema.lease.c.manager == manager)).one_or_none()
    if row is not None and row.holder and row.expires_at > now and not _is_dead(ledger, row.epoch):
        left = (row.expires_at - now + 999) // 1000
        raise LeaseHeld(
            f"manager {manager!r} is led by {row.holder}, whose lease lasts {left} s more: stop that one, or wait"
        )
    epoch = 1 if row is None else row.epoch + 1
    lock = _lock(ledger, epoch)
    write.execute(delete(schema.lease).where(schema.lease.c.manager == manager))
    values = {"manager": manager, "holder": holder, "epoch": epoch, "expires_at": now + ttl_ms}
    write.execute(insert(schema.lease).values(values))
    _forget_older(ledger, epoch)
    return Lease(manager, holder, epoch, lock)


def renew(write: Connection, lease: Lease, now: int, ttl_ms: int) -> None:
    check(write, lease)
    write.execute(_row(lease).values(expires_at=now + ttl_ms))


def give_up(write: Connection, lease: Lease) -> None:
    """A lease that another has taken meanwhile is left alone."""
    write.execute(_row(lease).values(holder="", expires_at=0))


def check(write: Connection, lease: Lease) -> None:
    row = write.execute(select(schema.lease).where(schema.lease.c.manager == lease.manager)).one_or_none()
    if row is None or row.epoch != lease.epoch or row.holder != lease.holder:
        now_led = row.holder if row is not None and row.holder else "nobody"
        raise LeaseLost(f"manager {lease.manager!r} is led by {now_led} now (epoch {lease.epoch} is over)")


def let_go(ledger: Path, lease: Lease) -> None:
    """The lock, once the ledger's row is written."""
    lock_file(ledger, lease.epoch).unlink(missing_ok=True)
    os.close(lease.lock)


def lock_file(ledger: Path, epoch: int) -> Path:
    return ledger.with_name(f"{ledger.name}-holder-{epoch}")


def _row(lease: Lease) -> Update:
    return update(schema.lease).where(
        schema.lease.c.manager == lease.manager,
        schema.lease.c.epoch == lease.epoch,
        schema.lease.c.holder == lease.holder,
    )


def _lock(ledger: Path, epoch: int) -> int:
    lock = os.open(lock_file(ledger, epoch), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LeaseHeld(f"another manager is taking the lease of {ledger.name} at this moment") from None
    return lock


def _is_dead(ledger: Path, epoch: int) -> bool:
    """Only a lock file that is there and free proves it; no file proves nothing."""
    try:
        lock = os.open(lock_file(ledger, epoch), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def leading(folder: Path) -> tuple[str, ...]:
    """The managers of this folder that lead now, as their locks tell: their processes live."""
    held = set()
    for path in folder.glob("ledger-*.db-holder-*"):
        ledger, _, epoch = path.name.rpartition("-holder-")
        if epoch.isdigit() and not _is_dead(folder / ledger, int(epoch)) and path.exists():
            held.add(ledger.removeprefix("ledger-").removesuffix(".db"))
    return tuple(sorted(held))


def _forget_older(ledger: Path, epoch: int) -> None:
    for path in ledger.parent.glob(f"{ledger.name}-holder-*"):
        number = path.name.rpartition("-")[2]
        if number.isdigit() and int(number) < epoch:
            path.unlink(missing_ok=True)
