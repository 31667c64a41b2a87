"""One blob that is being sent: the file that grows, and the digest of what is in it. Blocks; call it in a thread, one
call at a time."""

import hashlib
import os
from collections.abc import Sequence

from worker_manager.hub.blobs.folder import BlobFolder

FLUSH_BYTES = 16 * 2**20  # so much is on its way to the disk at most: no commit waits long behind it
READ_BYTES = 2**20
STEP_BYTES = 64 * 2**20


class Upload:
    def __init__(self, folder: BlobFolder, owner: str, sha256: str) -> None:
        self.sha256 = sha256
        self.name = folder.unfinished_name(owner, sha256)
        self.size = 0  # in the file
        self._hashed = 0
        self._hash = hashlib.sha256()
        self._folder = folder
        self._descriptor: int | None = None
        self._unflushed = 0

    def open(self) -> int:
        """How much has come before. The file is the truth: what we remember of another one is forgotten."""
        self._descriptor = self._folder.begin(self.name)
        self.size = os.fstat(self._descriptor).st_size
        if self._hashed > self.size:
            self._hash, self._hashed = hashlib.sha256(), 0
        return self.size

    def catch_up(self) -> bool:
        """Takes up to STEP_BYTES that came before into the digest, after a restart. True when there is more."""
        until = min(self.size, self._hashed + STEP_BYTES)
        while self._hashed < until:
            block = os.pread(self._file, min(READ_BYTES, until - self._hashed), self._hashed)
            if not block:
                raise OSError(f"{self.name} is shorter than it was")
            self._hash.update(block)
            self._hashed += len(block)
        return self._hashed < self.size

    def append(self, pieces: Sequence[bytes]) -> int:
        """How many bytes it has then. On OSError it has as many as were written."""
        left = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        while left:
            written = os.write(self._file, left)
            self._hash.update(left[:written])
            self.size += written
            self._hashed += written
            self._unflushed += written
            left = left[written:]
        if self._unflushed >= FLUSH_BYTES:
            self.flush()
        return self.size

    def flush(self) -> None:
        """What was written is durable. Where that fails nobody knows what is in the file: it is thrown away."""
        try:
            os.fdatasync(self._file)
        except OSError:
            self.discard()
            raise
        self._unflushed = 0

    def is_right(self) -> bool:
        return self._hashed == self.size and self._hash.hexdigest() == self.sha256

    def publish(self) -> None:
        self._folder.publish(self.name, self.sha256)

    def discard(self) -> None:
        self.close()
        self._folder.discard(self.name)
        self.size = self._hashed = self._unflushed = 0
        self._hash = hashlib.sha256()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def _file(self) -> int:
        assert self._descriptor is not None, "it is not open"  # noqa: S101  # our own mistake, never a caller's
        return self._descriptor
