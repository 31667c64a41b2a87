"""A copy of a state directory while its hub runs: databases by SQLite's own online copy, then the output of jobs and
the blobs.

The databases come first: a job's output only grows, so whatever the copied database knows of is in the files copied
after it. So do blobs, but for those that no job has needed for long: one that goes meanwhile is missing in the copy.
A blob is never changed, so on the same file system the copy is another name of it and takes no room. What is bound to
the running processes (locks, the discovery file, the port), unfinished uploads and the key of signed addresses are left
out.
"""

import errno
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from worker_manager.errors import StoreError, UsageError

DATABASES = ("*.sqlite", "*.db")
FOLDERS = ("logs", "tokens", "tls")
FILES = ("settings.json",)
BLOBS = "blobs"
_GROUP = re.compile(r"[0-9a-f]{2}")
_BLOB = re.compile(r"[0-9a-f]{64}")


def backup(state_dir: Path, into: Path, blobs: bool = True) -> int:
    """How many bytes it holds. `into` must not be there yet; it appears only when it is whole."""
    databases = sorted(path for pattern in DATABASES for path in state_dir.glob(pattern))
    if not databases:
        raise UsageError(f"{state_dir} holds no database: a hub on PostgreSQL is backed up with pg_dump")
    if into.exists():
        raise UsageError(f"{into} is there already: name a new folder")
    unfinished = into.with_name(f".{into.name}.{os.getpid()}")
    try:
        unfinished.mkdir(mode=0o700, parents=True)
        for database in databases:
            _copy_database(database, unfinished / database.name)
        for name in FOLDERS:
            if (state_dir / name).is_dir():
                # A segment may be purged while we copy: then nobody can ask for it any more.
                shutil.copytree(state_dir / name, unfinished / name, ignore_dangling_symlinks=True, copy_function=_copy)
        if blobs and (state_dir / BLOBS).is_dir():
            _copy_blobs(state_dir / BLOBS, unfinished / BLOBS)
        for name in FILES:
            if (state_dir / name).exists():
                shutil.copy2(state_dir / name, unfinished / name)
        unfinished.rename(into)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise StoreError(f"the backup in {into} could not be written, and is not there: {error}") from None
    return sum(path.stat().st_size for path in into.rglob("*") if path.is_file())


def _copy_database(source: Path, target: Path) -> None:
    """Consistent though others write meanwhile, and whole: nothing is left in a WAL."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    read_only = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True, timeout=30)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)
        (verdict,) = write.execute("PRAGMA quick_check").fetchone()
        _mark(write)
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"{source} is damaged: {verdict}")


def _mark(copy: sqlite3.Connection) -> None:
    """A hub that starts on the copy begins a new generation (`store/restoring.py`)."""
    if copy.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'").fetchone():
        with copy:
            copy.execute(
                "INSERT OR REPLACE INTO meta (name, value)"
                " SELECT 'restored', 1 WHERE EXISTS (SELECT 1 FROM meta WHERE name = 'generation')"
            )


def _copy(source: str, target: str) -> str:
    try:
        shutil.copy2(source, target)
    except FileNotFoundError:
        return target
    return target


def _copy_blobs(source: Path, target: Path) -> None:
    """Those that are whole."""
    target.mkdir(mode=0o700)
    for group in source.iterdir():
        if not _GROUP.fullmatch(group.name):
            continue
        (target / group.name).mkdir(mode=0o700)
        for blob in group.iterdir():
            if _BLOB.fullmatch(blob.name):
                _link(str(blob), str(target / group.name / blob.name))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        return  # it was removed meanwhile
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        _copy(source, target)
