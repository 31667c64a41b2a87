"""What is kept of a job's directory when it has ended: looked for, digested, sent, and listed.

Files go in batches: one word with the hub for each, and its files one after the other over one line.
"""

import hashlib
import os
import stat
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from worker.files import File
from worker.staging.attempts import Attempt
from worker.staging.desk import Desk
from worker.staging.errors import BrokeOff, Changing, Distrusted, Missing, Refused, verdict
from worker.staging.grants import NONSENSE
from worker.staging.inputs import tell_of_mistake
from worker.staging.messages import Collected, NotCollected, Stats
from worker.staging.sending import Altered, Place, Sending, place_of
from worker.staging.survey import Kept, Survey, opened, stamp, survey, wishes

BATCH_FILES = 64
BATCH_BYTES = 32 * 2**20
PIECE = 2**20
TRIES = 3  # with a file that changes
NOT_ALLOWED = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Digested(NamedTuple):
    kept: Kept
    sha256: str
    size: int
    stamp: Tuple[int, ...]


class Outputs:
    def __init__(
        self, desk: Desk, attempt: Attempt, folder: str, outputs: Sequence[Mapping[str, Any]], succeeded: bool
    ) -> None:
        self._desk = desk
        self._attempt = attempt
        self._folder = folder
        self._outputs = outputs
        self._succeeded = succeeded
        self._wait = desk.wait(attempt)
        self._began = time.monotonic()
        self._sums = attempt.begin("collecting")
        self._files: List[File] = []
        self._left = 0
        self._found = Survey([], [], 0, [])
        self._sent = 0

    def begin(self) -> None:
        self._put(self._plan)

    def _plan(self) -> None:
        wished = [wish for wish in wishes(self._outputs) if self._succeeded or wish.always]
        inputs = [self._attempt.folder, self._desk.setup.get("cache_dir") or ""]
        try:
            self._found = survey(self._folder, wished, self._attempt.stop, inputs)
        except OSError as error:
            raise BrokeOff("the job's directory cannot be read: %s" % error.strerror) from None
        self._attempt.whole = sum(each.size for each in self._found.kept)
        batches = _batches(self._found.kept)
        self._left = len(batches)
        for batch in batches:
            self._put(lambda batch=batch: self._batch(batch))  # type: ignore[misc]
        if not batches:
            self._finish()

    # ------------------------------------------------------------ some files

    def _batch(self, batch: Sequence[Kept]) -> None:
        known = [self._digested(each) for each in batch]
        places = self._places(known)
        for each, place in zip(known, places):  # noqa: B905  # as many as were asked for
            self._file(each, place)
        with self._attempt.lock:
            self._left -= 1
            last = not self._left
        if last:
            self._finish()

    def _file(self, known: Digested, place: Place) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                at = self._send(known, place)
                break
            except Altered:
                if not tries_left:
                    raise Changing("%s is written to while it is sent" % known.kept.path) from None
                known = self._digested(known.kept)
                (place,) = self._places([known])
        name = "%s\0%s" % (known.kept.path, known.kept.to)
        self._sums.tell(name, known.size)
        self._sums.done(name)
        with self._attempt.lock:
            self._files.append(File(path=known.kept.path, size=known.size, sha256=known.sha256, at=at))

    def _send(self, known: Digested, place: Place) -> str:
        if not place.url:
            return place.at
        handle = self._open(known.kept)
        try:
            if stamp(os.fstat(handle)) != known.stamp:
                raise Altered("it has changed")
            name = "%s\0%s" % (known.kept.path, known.kept.to)
            sending = Sending(
                handle,
                known.size,
                self._desk.lines,
                self._attempt.stop,
                lambda there: self._sums.tell(name, there),
                lambda: self._places([known])[0],
            )
            place = sending.go(place, self._desk.long_patience, self._wait)
            if stamp(os.fstat(handle)) != known.stamp:
                raise Altered("it has changed")
        finally:
            os.close(handle)
        with self._attempt.lock:
            self._sent += known.size
        return place.at

    def _digested(self, kept: Kept) -> Digested:
        for _ in range(TRIES):
            handle = self._open(kept)
            try:
                before = stamp(os.fstat(handle))
                digest, size = self._digest(handle)
                if stamp(os.fstat(handle)) == before:
                    return Digested(kept, digest, size, before)
            finally:
                os.close(handle)
        raise Changing("%s is written to while it is read" % kept.path)

    def _digest(self, handle: int) -> Tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        while True:
            self._attempt.stop.check()
            try:
                piece = os.read(handle, PIECE)
            except OSError as error:
                raise BrokeOff("the job's directory cannot be read: %s" % error.strerror) from None
            if not piece:
                return digest.hexdigest(), size
            digest.update(piece)
            size += len(piece)

    def _open(self, kept: Kept) -> int:
        try:
            handle = opened(self._folder, kept.path)
        except NOT_ALLOWED as error:
            raise Refused("%s cannot be read: %s" % (kept.path, error.strerror)) from None
        except OSError as error:
            raise BrokeOff("%s cannot be read: %s" % (kept.path, error.strerror)) from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise Refused("%s is no plain file any more" % kept.path)
        return handle

    def _places(self, known: Sequence[Digested]) -> List[Place]:
        asked = [
            {"path": each.kept.path, "size": each.size, "sha256": each.sha256, "to": each.kept.to} for each in known
        ]

        def read(answer: Dict[str, Any]) -> List[Place]:
            told = answer.get("put")
            if not isinstance(told, list) or len(told) != len(known):
                raise BrokeOff(NONSENSE)
            return [place_of(each.kept.path, one) for each, one in zip(known, told)]  # noqa: B905

        return self._desk.ask(self._attempt, {"put": asked}, read, self._desk.long_patience, Distrusted)

    # ------------------------------------------------------------ its end

    def _finish(self) -> None:
        if self._found.missing and self._succeeded:
            raise Missing("nothing is there of what must be kept: %s" % ", ".join(self._found.missing))
        if self._attempt.stop.go_on() and self._attempt.answer_once():
            stats = Stats(
                files=len(self._files),
                bytes=sum(each["size"] for each in self._files),
                sent_bytes=self._sent,
                ms=int((time.monotonic() - self._began) * 1000),
                left_out=self._found.left_out,
                left_out_count=self._found.left_out_count,
            )
            self._desk.say(Collected(self._attempt.job, self._attempt.epoch, self._listed(), stats))

    def _listed(self) -> List[File]:
        with self._attempt.lock:
            return sorted(self._files, key=lambda each: (each["path"], each["at"]))

    def _put(self, act: Callable[[], None]) -> None:
        self._desk.put(self._attempt, act, self._fail)

    def _fail(self, error: BaseException) -> None:
        if self._attempt.stop.go_on() and self._attempt.answer_once():
            tell_of_mistake(error)
            found = verdict(error, "output")
            self._desk.say(NotCollected(self._attempt.job, self._attempt.epoch, *found, self._listed()))
        self._attempt.stop.now()


def _batches(kept: Sequence[Kept]) -> List[List[Kept]]:
    found: List[List[Kept]] = []
    size = 0
    for each in kept:
        if not found or size + each.size > BATCH_BYTES or len(found[-1]) >= BATCH_FILES:
            found.append([])
            size = 0
        found[-1].append(each)
        size += each.size
    return found
