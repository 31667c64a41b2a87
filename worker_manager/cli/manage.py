"""A manager in the foreground: one pass, a dry run, or until a signal ends it.

SIGTERM and SIGINT end the manager and never its workers; the next one adopts them. SIGHUP reads the configuration
again and keeps the old one, saying why, when the new one is wrong.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from worker_manager.cli.attend import attended
from worker_manager.cli.narrate import tell_since
from worker_manager.cli.output import show_document
from worker_manager.cli.world import API_VERSION, Invocation
from worker_manager.config.settings import Settings
from worker_manager.errors import ConfigError, WorkerManagerError

if TYPE_CHECKING:
    from worker_manager.assemble import House
    from worker_manager.control.loop import Manager
    from worker_manager.policy.model import Plan

FAILED, WOULD_ACT = 1, 3


def manage(inv: Invocation, read: Callable[[], Settings]) -> int:
    """Exit code. `read` makes the settings, again at each SIGHUP."""
    from worker_manager import assemble
    from worker_manager.cli import log

    settings = read()
    log.configure(inv.log_format, inv.verbose, inv.colored)
    if inv.dry_run:
        return dry_run(inv, settings)
    with assemble.house(settings) as house:
        if inv.once:
            return once(house)
        code = stand(house, read)
    if code == 0 and settings.manager.restart_after_ms is not None:
        os.execv(sys.executable, [sys.executable, "-m", "worker_manager", *inv.world.argv[1:]])  # noqa: S606
    return code


def once(house: "House") -> int:
    """One pass; what it decided is told as by a manager that goes on. What could not be read is no success, though the
    rest was done."""
    before = house.last_decision()
    try:
        plan = house.manager.once()
    finally:
        tell_since(house, before)
    return FAILED if told_of_what_is_unread(plan) else 0


def told_of_what_is_unread(plan: "Plan") -> bool:
    reasons = [(pool.pool, reason) for pool in plan.pools for reason in pool.reasons]
    unread = [(pool, why.text) for pool, why in reasons if why.code in ("backlog-unreadable", "backend-unreadable")]
    for pool, text in unread:
        click.echo(f"worker-manager: {pool}: {text}", err=True)
    return bool(unread)


def stand(house: "House", read: Callable[[], Settings]) -> int:
    """Runs until a signal comes, or until `restart-after` is over: 0 then, else 128 + the signal's number."""
    ended_by: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        ended_by.append(number)
        house.manager.stop()

    def reread(_number: int, _: FrameType | None) -> None:
        threading.Thread(target=reload, args=(house, read), name="reload").start()

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, end),
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
        signal.SIGHUP: signal.signal(signal.SIGHUP, reread),
    }
    timer = _timer(house)
    try:
        with attended(house):
            house.manager.run()
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + ended_by[0] if ended_by else 0


def reload(house: "House", read: Callable[[], Settings]) -> bool:
    """The new configuration, or the old one and why."""
    import structlog

    log = structlog.get_logger(__name__)
    try:
        house.take(read())
    except ConfigError as error:
        for problem in error.problems:
            log.error("the new configuration is wrong, the old one stays", action="reload", problem=problem)
        return False
    except (WorkerManagerError, Exception) as error:
        log.error("the new configuration cannot be used, the old one stays", action="reload", problem=str(error))
        return False
    log.info("the configuration was read again", action="reload", pools=[pool.name for pool in house.settings.pools])
    return True


def dry_run(inv: Invocation, settings: Settings) -> int:
    from worker_manager import assemble
    from worker_manager.hub import discovery
    from worker_manager.hub_access import obstacles

    for obstacle in obstacles(settings):
        inv.say(f"worker-manager: a manager would not start: {obstacle}")
    with assemble.preview(settings) as manager:
        if not settings.hub.server and discovery.find(settings.manager.state_dir) is None:
            inv.say("no hub has run here yet: this is the plan for an empty backlog")
        return show_plan(manager, inv.detailed_exitcode)


def show_plan(manager: "Manager", detailed: bool) -> int:
    """What a tick would do now, as JSON on stdout and in a sentence each on stderr."""
    from worker_manager.control.publish import plan_wire

    plan = manager.preview()
    show_document({"apiVersion": API_VERSION, "kind": "Plan", **plan_wire(plan)}, "json")
    for action in plan.actions:
        click.echo(sentence(action), err=True)
    if told_of_what_is_unread(plan):
        return FAILED
    if not plan.actions:
        click.echo("nothing to do", err=True)
    return WOULD_ACT if detailed and plan.actions else 0


def sentence(action: Any) -> str:
    """`launch 3 in gpu: 12 jobs wait: …`"""
    name = type(action).__name__.lower()
    what = f"{action.count} in {action.pool}" if hasattr(action, "count") else f"{action.worker} of {action.pool}"
    limits = [limit.text for limit in getattr(action, "limited", ())]
    return f"{name} {what}: {'; '.join([action.reason.text, *limits])}"


def _timer(house: "House") -> threading.Timer | None:
    after = house.settings.manager.restart_after_ms
    if after is None:
        return None
    timer = threading.Timer(after / 1000, house.manager.stop)
    timer.daemon = True
    timer.start()
    return timer
