"""What is kept in the shared work dir: a folder for each submission, for its owner's eyes only.

    WORK_DIR/MANAGER/POOL/SUBMISSION/   0700
        script         what sbatch was given
        tokens/INDEX   0600: the join token of one worker, until it has ended
        worker-INDEX.log
        job            how many workers, and Slurm's id once it is known
        asked/INDEX    it was asked to end

The job itself says whose it is; this is for people, for what Slurm forgets, and for where a site rewrites comments.
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.slurm.names import is_submission


@dataclass(frozen=True, order=True)
class SubmissionFolder:
    path: Path

    @property
    def submission(self) -> str:
        return self.path.name

    @property
    def script(self) -> Path:
        return self.path / "script"

    @property
    def token_folder(self) -> Path:
        return self.path / "tokens"

    @property
    def changed(self) -> float:
        """When, in seconds since 1970; 0 when it is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def log(self, index: int) -> Path:
        return self.path / f"worker-{index}.log"

    def log_pattern(self, count: int) -> str:
        """As sbatch takes it."""
        return str(self.path / "worker-%a.log") if count > 1 else str(self.log(0))

    # ------------------------------------------------ written by a launch

    def prepare(self, script: str, tokens: Sequence[str], count: int) -> None:
        """Raises FileExistsError when it was prepared before: a submission is launched once."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)
        _write(self.script, script)
        _write(self.path / "job", json.dumps({"count": count}))
        if tokens:
            self.token_folder.mkdir(mode=0o700)
        for index, token in enumerate(tokens):
            _create(self.token_folder / str(index), token)

    def note_job(self, job: int) -> None:
        with suppress(OSError):  # for later comfort: the job itself says whose it is
            _write(self.path / "job", json.dumps({"count": self.record().get("count"), "job": job}))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    # ------------------------------------------------ read and written later

    def record(self) -> dict[str, Any]:
        """{count, and job where it is known}"""
        return _read_json(self.path / "job")

    def job(self) -> int | None:
        job = self.record().get("job")
        return job if isinstance(job, int) else None

    def drop_token(self, index: int) -> None:
        """It has ended: nobody may start with it any more."""
        with suppress(OSError):
            (self.token_folder / str(index)).unlink()

    def drop_tokens(self) -> None:
        shutil.rmtree(self.token_folder, ignore_errors=True)

    def has_spoken(self, index: int) -> bool:
        """It has written something, so it runs."""
        try:
            return self.log(index).stat().st_size > 0
        except OSError:
            return False

    def asked(self, index: int) -> bool:
        return (self.path / "asked" / str(index)).exists()

    def note_asked(self, index: int) -> None:
        with suppress(OSError):
            (self.path / "asked").mkdir(mode=0o700, exist_ok=True)
            _write(self.path / "asked" / str(index), "")

    def tail(self, index: int, max_bytes: int) -> str:
        """The end of its log, in at most so many characters."""
        if max_bytes <= 0:
            return ""
        try:
            with self.log(index).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
                return file.read(max_bytes).decode("utf-8", "replace")
        except OSError:
            return ""


class WorkDir:
    """The folders of one pool."""

    def __init__(self, root: Path, manager: str, pool: str) -> None:
        self.root = root
        self.own = root / _safe(manager) / _safe(pool)

    def folder(self, submission: str) -> SubmissionFolder:
        """Raises ValueError for what is no name: it would be a path to somewhere else."""
        if not is_submission(submission):
            raise ValueError(f"{submission!r} is no submission")
        return SubmissionFolder(self.own / submission)

    def make(self) -> None:
        """Raises OSError."""
        self.own.mkdir(mode=0o700, parents=True, exist_ok=True)

    def submissions(self) -> set[str]:
        """Raises OSError, but for a folder that was not made yet."""
        try:
            return {path.name for path in self.own.iterdir() if is_submission(path.name)}
        except FileNotFoundError:
            return set()

    def remove_old(self, over: Iterable[SubmissionFolder], before_s: float, keep: int, most: int = 8) -> int:
        """Of those that are over: the ones that are too old, or too many. A few at a time, so that it stays quick."""
        dated = sorted((folder.changed, folder.submission, folder) for folder in over)
        too_many = len(dated) - keep
        old = [folder for rank, (at, _, folder) in enumerate(dated) if rank < too_many or at < before_s]
        for folder in old[:most]:
            folder.remove()
        return len(old[:most])


def _safe(name: str) -> str:
    """A folder's name from any text; two texts never give the same."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else f"={ord(c):x}=" for c in name) or "="


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and for nobody else's eyes."""
    new = path.with_name(f".{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    new.replace(path)


def _create(path: Path, text: str) -> None:
    """A file that must not be there yet."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
