"""`worker.pyz`: the agent as one file for bare nodes, made from the installed `worker` package.

The same sources give the same bytes (fixed order, times and modes), so its digest names it. Files of earlier versions
stay in the cache: a worker may start days after its launch and asks for the one that its launch named.
"""

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"import sys\n\nfrom worker.__main__ import main\n\nsys.exit(main())\n"
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class WorkerFile:
    digest: str  # SHA-256, hex
    path: Path

    def read(self) -> bytes:
        return self.path.read_bytes()


def build() -> bytes:
    """The zipapp's bytes. Pure Python sources only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [("__main__.py", MAIN), *_sources(resources.files("worker"), "worker")]:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return SHEBANG + buffer.getvalue()


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for each in sorted(folder.iterdir(), key=lambda one: one.name):
        if each.is_dir() and each.name != "__pycache__":
            found += _sources(each, f"{prefix}/{each.name}")
        elif each.name.endswith(".py"):
            found.append((f"{prefix}/{each.name}", each.read_bytes()))
    return found


class WorkerFiles:
    """The cache in the state directory: `<digest>.pyz`, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current: WorkerFile | None = None

    def current(self) -> WorkerFile:
        if self._current is None or not self._current.path.exists():
            data = build()
            self._current = self._store(hashlib.sha256(data).hexdigest(), data)
        return self._current

    def named(self, digest: str) -> WorkerFile | None:
        """An earlier one, by the digest its launch named; None when it is not here."""
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            return None
        if self.current().digest == digest:
            return self.current()
        path = self._folder / f"{digest}.pyz"
        return WorkerFile(digest, path) if path.is_file() else None

    def _store(self, digest: str, data: bytes) -> WorkerFile:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{digest}.pyz"
        if not path.exists():
            temporary = self._folder / f".{digest}.{os.getpid()}"
            temporary.write_bytes(data)
            temporary.replace(path)
        return WorkerFile(digest, path)
