"""`wm-worker`, `python -m worker`, `python worker.pyz`: one agent, from its flags to its exit status. With
`ps`, `status` or `stop` as the first word: those of this machine.

Exit status: 0 left as it should, 1 an error, 2 wrong usage, 3 the hub does not want it (its token is used or revoked,
its session is over).
"""

import contextlib
import os
import select
import sys
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from worker import checkpoints, here, host, progress, resources
from worker.agent import Agent, boot_ms
from worker.hooks.told import env_of_worker
from worker.isolation import found
from worker.isolation.users import Users, chosen, numbers
from worker.isolation.ways import PROCESS
from worker.journal import Journal, utc_ms
from worker.limits import places as limits
from worker.link.client import Refused
from worker.link.joining import GaveUp, Joining, Stopped
from worker.options import Options, UsageError, parse
from worker.orders import FAILED, OK, REFUSED
from worker.processes import DEFAULT_PATH
from worker.protocol import Assignment
from worker.runner import Runner
from worker.signals import Signals
from worker.stages import stagehand
from worker.stages.layer import Stages
from worker.workdir import WorkDir, WorkDirError, WorkDirInUse, default_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker.machine.seat import Seat

USAGE = 2


def main(argv: Optional[Sequence[str]] = None) -> int:
    _fill_standard_descriptors()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("ps", "status", "stop"):
        from worker import node

        return node.main(words)
    try:
        options = parse(words, os.environ)
    except UsageError as error:
        print("wm-worker: %s (see --help)" % error, file=sys.stderr)
        return USAGE
    os.umask(0o077)
    journal = Journal(options.log_format, options.worker)
    signals = Signals()
    try:
        work_dir = WorkDir(options.work_dir or default_prefix(), options.worker)
    except WorkDirInUse as error:
        journal("refused", code="work-dir-in-use", text=str(error))
        return REFUSED
    except WorkDirError as error:
        journal("error", text=str(error))
        return FAILED
    try:
        _leave_note(options, options.worker, work_dir)
        return _between_hooks(options, work_dir, signals, journal)
    finally:
        work_dir.close(options.delete_work_dir)


def _between_hooks(options: Options, work_dir: WorkDir, signals: Signals, journal: Journal) -> int:
    """What the first hook prepares the worker finds; what it began the last one ends, whatever has happened."""
    if not options.hooks.start and not options.hooks.stop:
        return _work(options, work_dir, signals, journal)
    from worker.hooks import once, told

    def run(hook: str, line: str) -> str:
        return once.run(
            hook, line, _env_of_hooks(options, work_dir), options.hooks.limit_ms, signals, _to_stop, journal
        )

    try:
        if options.hooks.start and run(told.START, options.hooks.start):
            return FAILED
    except once.Interrupted:
        journal("exit", reason="signal", status=OK)
        return OK
    try:
        return _work(options, work_dir, signals, journal)
    finally:
        if options.hooks.stop:
            with contextlib.suppress(once.Interrupted):
                run(told.STOP, options.hooks.stop)


def _env_of_hooks(options: Options, work_dir: WorkDir) -> Dict[str, str]:
    return env_of_worker(os.environ, DEFAULT_PATH, options.worker, options.pool, work_dir.path)


def _work(options: Options, work_dir: WorkDir, signals: Signals, journal: Journal) -> int:
    """The keeper boots while the hub is asked."""
    given = resources.found(work_dir.path, options.wishes, os.environ, utc_ms())
    groups = limits.find() if options.limits == "auto" else {}
    place, no_cache = stagehand.place_of(options, work_dir.path)
    if no_cache:
        journal("no-cache", text=no_cache)
    try:
        isolation = found.find(
            options.isolation,
            options.job_user,
            work_dir.path,
            options.secrets,
            options.sandbox_show,
            os.environ,
            hidden=[place.cache_dir] if place.cache_dir else (),
        )
    except found.JobUserError as error:
        journal("error", text=str(error))
        return USAGE
    ways = (*limits.ways(groups), *isolation.can, progress.CAN, checkpoints.CAN, *stagehand.ways(options))
    given = given.able(ways)
    seat, given = _seat(options, given, journal)
    if options.share and seat is None:
        return FAILED
    shape = given.shape if seat is None else seat.offer()
    if isolation.cannot:
        journal("isolation", can=list(isolation.can), cannot=isolation.cannot)
    stagehand.put_leftovers_aside(work_dir.path, work_dir.jobs)
    saved_at = checkpoints.base_of(os.path.dirname(work_dir.path))
    runner = Runner(
        work_dir.jobs,
        given.shape,
        given.gpus,
        places=groups,
        isolation=isolation.told,
        checkpoints_at=saved_at,
        seat=seat,
        wrap=options.wrap,
    )
    try:
        facts = {**host.facts(os.environ), **({"cannot": isolation.cannot} if isolation.cannot else {})}
        joining = Joining(options, shape, facts)
        joined = joining.join(boot_ms, lambda ms: _rested(ms, signals), journal)
        name = joined.registered.get("worker") or options.worker
        if name != options.worker:
            journal.call_it(name)
            _leave_note(options, name, work_dir)
        for_keeper = options.hooks.for_keeper(_env_of_hooks(options._replace(worker=name), work_dir))
        if for_keeper is not None:
            runner.use_hooks(for_keeper)
        journal("registered", hub=str(options.server), shape=shape.to_wire())
        hub = stagehand.Hub(options.server, name, joined.credential, joined.registered["session"])
        users = Users(isolation.told["registry"])
        hand = stagehand.Stagehand(hub, place, os.environ, lambda: numbers(isolation.told, users))
        stages = Stages(runner, hand, _user_of(isolation.told, users))
        janitor = checkpoints.Janitor(saved_at, options.checkpoint_keep_ms, runner.checkpoints, boot_ms())
        agent = Agent(options, given.shape, joined, stages, work_dir.path, signals, journal, given.gpus, janitor)
        try:
            return agent.run()
        finally:
            agent.close()
    except Refused as refused:
        journal("refused", status=refused.status, code=refused.code, text=str(refused))
        return REFUSED
    except GaveUp as error:
        journal("error", text=str(error))
        return FAILED
    except Stopped:
        journal("exit", reason="signal", status=OK)
        return OK
    finally:
        runner.close()


def _user_of(told: Mapping[str, Any], users: Users) -> Callable[[Assignment], Optional[Tuple[int, int]]]:
    """As whom a job runs, as the keeper decides it too."""

    def user_of(assignment: Assignment) -> Optional[Tuple[int, int]]:
        kind = (assignment.get("work") or {}).get("isolation", PROCESS)
        return chosen(told, kind, assignment.get("owner", ""), users)

    return user_of


def _seat(options: Options, given: resources.Given, journal: Journal) -> "Tuple[Optional[Seat], resources.Given]":
    """Among the workers of this machine, where it is to be shared. Which of its GPUs a job gets is found out then."""
    if not options.share:
        return None, given
    from worker.machine import folder
    from worker.machine.seat import Seat

    common = folder.DEFAULT if options.share == "auto" else options.share
    given = given._replace(gpus=given.all_gpus)
    try:
        return Seat(common, options.worker, given.there, given.shape, given.gpus), given
    except folder.NotShared as error:
        journal("error", text="--share: %s" % error)
        return None, given


def _leave_note(options: Options, worker: str, work_dir: WorkDir) -> None:
    """For `wm-worker ps`. A disk that is full takes no worker down."""
    facts = {"worker": worker, "pid": os.getpid(), "pool": options.pool, "hub": str(options.server)}
    with contextlib.suppress(OSError):
        here.leave_note(work_dir.path, dict(facts, started_ms=utc_ms(), version=host.VERSION))


def _fill_standard_descriptors() -> None:
    """Who started us may have closed some; then the next file that is opened would be taken for stderr."""
    while True:
        file = os.open(os.devnull, os.O_RDWR)
        if file > 2:
            return os.close(file)


def _rested(ms: int, signals: Signals) -> bool:
    """Wait; False as soon as a signal asks to stop."""
    until = boot_ms() + ms
    while True:
        left = until - boot_ms()
        if left <= 0:
            return True
        if select.select([signals.fileno()], [], [], left / 1000)[0] and _to_stop(signals):
            return False


def _to_stop(signals: Signals) -> bool:
    return any(name not in ("dump", "notice") for name in signals.taken())


if __name__ == "__main__":
    sys.exit(main())
