"""The agent's handle on its keeper: the small process that starts, watches, ends and reaps jobs.

The agent calls `start` with everything the hub assigned to it, in batches; the keeper queues what does not fit yet and
starts it the moment it fits, without asking back. What happens comes back as events, in batches too. The wire between
the two is a socket pair; when the agent dies it closes, and the keeper ends every job with everything it started.
"""

import os
import signal
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from worker import checkpoints, orphans, processes
from worker.begin import begin
from worker.happened import Ended, Event, GpusLeft, Hooked, Offered, Output, Progressed, Started, Usage, amounts
from worker.isolation import ways
from worker.limits.places import Place
from worker.processes import boot_ms
from worker.protocol import Assignment, Outcome, Shape, fits
from worker.results import result_of, why_it_died
from worker.telling import MARK, Asked, Message, start_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.machine.seat import Seat

Key = Tuple[str, int]
Files = Tuple[str, Tuple[str, ...], int]

FRAME = 64  # messages: the keeper begins with the first before the last has arrived


class KeeperDied(Exception):
    """The keeper is gone, and with it every job it ran: hand all of them back."""


class Runner:
    """One keeper. Not for several threads at once.

    `work_dir` gets the slot directories; nobody else may write there. `has` is what jobs may use together: a job
    waits in the keeper's queue until it fits; None starts everything at once. `gpus` are the device ids behind
    `has.gpus`; each job sees its own through CUDA_VISIBLE_DEVICES. `env` is what every job's environment starts from
    (the agent's own is never passed on). `places` is where control groups can be made (`limits.places.find`); without
    them the keeper watches the memory of jobs itself. `isolation` is what `isolation.found` found out; without it jobs
    are processes. `checkpoints_at` is where the folders of jobs are that save what they have done. With a `seat` among
    the workers of this machine `has` is the most that jobs may use, and each starts when the others leave it enough.
    """

    def __init__(
        self,
        work_dir: str,
        has: Optional[Shape] = None,
        gpus: Sequence[str] = (),
        env: Optional[Mapping[str, str]] = None,
        lease_ms: Optional[int] = None,
        places: Optional[Mapping[str, Place]] = None,
        isolation: Optional[Mapping[str, Any]] = None,
        checkpoints_at: str = "",
        seat: Optional["Seat"] = None,
        wrap: Sequence[str] = (),
    ) -> None:
        self._keeper_id = os.urandom(8).hex()
        self._has = has
        self._sent: Dict[Key, Assignment] = {}
        self._pids: Dict[Key, int] = {}
        self._waiting: List[Message] = []
        self._newest: Tuple[Any, Optional[Asked]] = (None, None)  # a shape as sent, and what it means
        self._death: Optional[KeeperDied] = None
        self._isolation = isolation or {}
        self._checkpoints = checkpoints_at
        self._wrap = list(wrap)
        self._seat = seat
        self._channel, self._pid = begin("worker.keeper.main", lock=-1 if seat is None else seat.lock)
        base = {"PATH": processes.DEFAULT_PATH, **(env or {}), "WM_KEEPER": self._keeper_id}
        if MARK in os.environ:
            base[MARK] = os.environ[MARK]
        self._places = places or {}
        told = [(name, place.version, place.parent, place.home) for name, place in (places or {}).items()]
        share = None if seat is None else tuple(seat.told)
        where = os.path.abspath(work_dir)
        self._waiting.append(("setup", where, amounts(has), list(gpus), base, told, isolation, share))
        if lease_ms is not None:
            self._waiting.append(("lease", boot_ms() + lease_ms))
        self.flush()

    def start(self, assignments: Sequence[Assignment], files: Optional[Mapping[Key, Files]] = None) -> None:
        """Queue these attempts, in this order. Each ends in exactly one `Ended`, even when it cannot be started.
        Never blocks: what the keeper does not take yet waits here and goes out with the next call of any kind.
        `files`: of those that have some, see `filling.Files`."""
        for assignment in assignments:
            key = (assignment["job"], assignment["epoch"])
            if key in self._sent:
                continue
            self._sent[key] = assignment
            asked = self._asked_by(assignment)
            way = ways.told(assignment.get("work"), self._isolation)
            its_files = files.get(key) if files else None
            message = start_message(assignment, asked, self._wrap)
            self._waiting.append((*message, way, self._checkpoint(assignment), its_files))
            pattern = (assignment.get("work") or {}).get("progress_regex")
            if pattern:
                self._waiting.append(("look_for", *key, pattern))
            if asked.misfits:
                text = "; ".join(map(str, asked.misfits))
                self._waiting.append(("cancel", *key, Outcome.RETURNED, "does-not-fit", text, 0))
        self.flush()

    def why_not(self, assignment: Assignment) -> str:
        """Why it would be given back at once; "" when it fits."""
        return "; ".join(map(str, self._asked_by(assignment).misfits))

    def _checkpoint(self, assignment: Assignment) -> Optional[Tuple[int, int, str]]:
        if not assignment.get("work"):
            return None
        return checkpoints.told_to_keeper(assignment, self._checkpoints)

    def _asked_by(self, assignment: Assignment) -> Asked:
        """Mostly the same as for the one before: the tasks of an array ask alike."""
        wire = assignment.get("shape") or {}
        known, asked = self._newest
        if asked is None or wire != known:
            shape = Shape.from_wire(wire)
            misfits = () if self._has is None else fits(shape, self._has)
            asked = Asked(shape, amounts(shape) or (), misfits)
            self._newest = (wire, asked)
        return asked

    def cancel(
        self,
        job: str,
        epoch: int,
        reason: str = "cancelled",
        text: str = "",
        grace_ms: Optional[int] = None,
        outcome: str = Outcome.CANCELLED,
    ) -> None:
        """TERM, `grace_ms` (None: the job's own), KILL; its `Ended` carries `outcome`, `reason`, `text`. A queued job
        ends at once. Unknown or already ended attempts are ignored. Again with a shorter grace: the shorter counts."""
        self._tell("cancel", job, epoch, outcome, reason, text, grace_ms)

    def recall(self, attempts: Sequence[Tuple[str, int]]) -> None:
        """Give back what has not started: `Ended` with outcome `returned`. What runs already goes on."""
        self._tell("recall", [tuple(attempt) for attempt in attempts], "given back before it started")

    def resize(self, has: Shape) -> None:
        """What the jobs may use together has changed. Running jobs go on."""
        self._has = has
        self._newest = (None, None)
        self._waiting.append(("room", amounts(has)))
        for key, assignment in self._sent.items():
            misfits = self._asked_by(assignment).misfits
            if misfits and key not in self._pids:
                self._waiting.append(("recall", [key], "; ".join(map(str, misfits))))
        self.flush()

    def discard(self, kept: Sequence[str]) -> None:
        """Directories that were set aside: nothing of them is needed any more."""
        self._tell("discard", list(kept))

    def hand_back_by(self, when: Optional[int], reason: str, text: str) -> None:
        """Attempts that save what they have done begin with it early enough to be over then (CLOCK_BOOTTIME)."""
        self._tell("hand_back_by", when, reason, text)

    def lose_gpu(self, gpu: str, has: Shape) -> None:
        """This device is given to no more jobs; `has` is what is left."""
        self._tell("lose_gpu", gpu)
        self.resize(has)

    def check_gpus(self) -> None:
        """From now on each device that a job leaves is told (`GpusLeft`), and waits for `gpu_is_free` or `lose_gpu`."""
        self._tell("check_gpus")

    def gpu_is_free(self, gpu: str) -> None:
        self._tell("gpu_is_free", gpu)

    def use_hooks(self, told: Mapping[str, Any]) -> None:
        """Before the first `start`; see `hooks.told.Hooks.for_keeper`."""
        self._tell("hooks", told)

    def extend_lease(self, ms: int, asked_at_ms: Optional[int] = None) -> None:
        """The keeper ends everything when this time has passed since `asked_at_ms` (CLOCK_BOOTTIME; None: now)."""
        self._tell("lease", (boot_ms() if asked_at_ms is None else asked_at_ms) + ms)

    def ask_usage(self) -> None:
        """One `Usage` comes, soon."""
        self._tell("usage")

    def checkpoints(self) -> List[str]:
        """The folders of the attempts that are here and save what they have done."""
        found = [self._checkpoint(assignment) for assignment in self._sent.values()]
        return [told[2] for told in found if told is not None and told[2]]

    @property
    def keeper(self) -> int:
        """Its pid; 0 once it is gone."""
        return self._pid

    def fileno(self) -> int:
        """Readable when `read` has something. Register it once; it stays the same."""
        return self._channel.fd

    def read(self) -> List[Event]:
        """What happened since the last call, in order; [] when nothing did. Never blocks. Raises KeeperDied once
        everything that was still delivered has been returned. Not reading makes the keeper stop reading its jobs'
        output: that is the back-pressure, and memory stays bounded."""
        events = [self._event(message) for message in self._channel.receive()]
        if not events and self._channel.closed:
            raise self._died()
        self.flush()
        return events

    def flush(self) -> bool:
        """Send what waits here; False when some still waits (call again when `fileno` is writable)."""
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), FRAME):
            self._channel.send(waiting[at : at + FRAME])
        return self._channel.flush()

    def running(self) -> Dict[Tuple[str, int], str]:
        """Every attempt that was given to `start` and has no `Ended` yet → `queued` or `running`."""
        return {key: "running" if key in self._pids else "queued" for key in self._sent}

    def stop(self, grace_ms: int, reason: str, text: str = "", outcome: str = Outcome.RETURNED) -> None:
        """Cancel everything, queued and running. Each still ends in its `Ended`: go on with `read` until `running`
        is empty."""
        self._tell("cancel_all", outcome, reason, text, grace_ms)

    def close(self, wait_ms: int = 5000) -> None:
        """End the keeper; what still runs is killed. Returns when it is gone. May be repeated."""
        if self._pid:
            self._tell("end")
            self._reap(wait_ms)
            self._channel.close()
        if self._seat is not None:
            self._seat.close()

    def _tell(self, *message: Any) -> None:
        self._waiting.append(message)
        self.flush()

    def _event(self, message: Message) -> Event:
        name, job, epoch = message[:3]
        if name == "output":
            return Output(job, epoch, message[3], message[4])
        if name == "gpus":
            return GpusLeft(message[3])
        if name == "hook":
            return Hooked(job, epoch, *message[3:])
        if name == "progress":
            return Progressed(job, epoch, *message[3:])
        if name == "usage":
            return Usage(message[3])
        if name == "offer":
            return self._offered(message[3])
        if name == "started":
            self._pids[job, epoch] = message[4]
            return Started(job, epoch, message[3])
        self._pids.pop((job, epoch), None)
        return Ended(result_of(message[1:-1], self._sent.pop((job, epoch))), message[-1])

    def _offered(self, amount: Dict[str, int]) -> Offered:
        return Offered("" if self._seat is None else self._seat.machine, amount)

    def _died(self) -> KeeperDied:
        """Why, and once: end what it could not end itself, in case it was killed."""
        if self._death is None:
            status = self._reap(0)
            orphans.end(self._keeper_id, set(self._pids.values()))
            self._remove_its_groups()
            if any(kind in self._isolation.get("programs", ()) for kind in ways.ENGINES):
                from worker.isolation import found  # a keeper that was killed leaves its containers

                found.remove_containers(self._isolation, self._keeper_id)
            if self._seat is not None:
                self._seat.close()  # only now nothing of its jobs is left
            self._death = KeeperDied(why_it_died(status))
        return self._death

    def _remove_its_groups(self) -> None:
        from worker.limits.groups import remove_leftovers

        for parent in {place.parent for place in self._places.values()}:
            remove_leftovers(parent)

    def _reap(self, wait_ms: int) -> int:
        """Its wait status. It is killed when it has not ended in time."""
        until = boot_ms() + wait_ms
        while self._pid:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._pid = 0
                return status
            if boot_ms() >= until:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.002)
        return 0
