"""Which queues this pool has workers in. A pool whose `job-queue` was changed still has some in the one before; they
are listed, and can be ended, until none of them lives. Kept in the pool's own folder."""

import contextlib
import json
from pathlib import Path

FILE = "aws-batch-queues.json"


class Queues:
    def __init__(self, state_dir: str, current: str) -> None:
        """Without a folder nothing is remembered."""
        self._file = Path(state_dir) / FILE if state_dir else None
        self.current = current
        self._former = [name for name in self._read() if name != current]
        self._write()

    @property
    def former(self) -> tuple[str, ...]:
        return tuple(self._former)

    def forget(self, name: str) -> None:
        """Nothing of ours lives there any more."""
        self._former.remove(name)
        self._write()

    def _read(self) -> list[str]:
        """A file that is torn or gone says nothing: then only the hub knows of what was started before."""
        if self._file is None:
            return []
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._file.read_text())
            if isinstance(found, list) and all(isinstance(name, str) for name in found):
                return found
        return []

    def _write(self) -> None:
        names = [self.current, *self._former]
        if self._file is None or self._read() == names:
            return
        with contextlib.suppress(OSError):
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(names))
            new.replace(self._file)
