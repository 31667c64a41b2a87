"""`wm-worker ps | status | stop`: the agents of this machine, for whoever is logged in there.

An agent holds the lock of its own folder open as long as it lives, so it is found by that, wherever its work dir is:
no list can be out of date. We see those of our own user, and as root everybody's, those in containers too.
"""

import argparse
import json
import os
import select
import signal
import sys
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from worker import here
from worker.protocol import UnitError, format_duration, parse_duration

COMMANDS = ("ps", "status", "stop")
DONE, NOT_DONE, USAGE = 0, 1, 2
ANSWER_S = 3.0
HEARD_S = 5.0  # how long an agent may take to notice a signal
TURN_S = 0.05
LOCK = ".lock"


class Found(NamedTuple):
    pid: int
    work_dir: str  # as it calls it
    directory: str  # the same, as we reach it
    note: Dict[str, Any]

    @property
    def worker(self) -> str:
        return str(self.note.get("worker") or os.path.basename(self.work_dir))


def main(argv: Sequence[str]) -> int:
    try:
        asked = parser().parse_args(list(argv))
        wait_ms = None if asked.command != "stop" or asked.timeout is None else parse_duration(asked.timeout)
    except UnitError as error:
        print("wm-worker: --timeout: %s" % error, file=sys.stderr)
        return USAGE
    agents = sorted(found(), key=lambda each: (each.worker, each.pid))
    if asked.command == "ps":
        return _ps(agents, asked.output)
    if asked.command == "status":
        return _status(agents, asked.workers, asked.output)
    return _stop(agents, asked, wait_ms)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="wm-worker", description="The agents of this machine.", allow_abbrev=False)
    commands = root.add_subparsers(dest="command", required=True)
    ps = commands.add_parser("ps", help="one line for each agent", allow_abbrev=False)
    status = commands.add_parser("status", help="everything of these agents", allow_abbrev=False)
    stop = commands.add_parser("stop", help="let them finish what they run, and leave", allow_abbrev=False)
    for command in (ps, status, stop):
        command.add_argument("-o", "--output", choices=("table", "json"), default="table")
    for command in (status, stop):
        command.add_argument("workers", nargs="*", metavar="WORKER", help="its id, or its pid")
    stop.add_argument("--all", action="store_true", help="all that are seen here")
    stop.add_argument("--wait", action="store_true", help="until they are gone")
    stop.add_argument("--timeout", metavar="DURATION", help="wait this long at most, such as 10m")
    stop.add_argument("--kill", action="store_true", help="end their jobs and hand them back at once")
    stop.add_argument("--force", action="store_true", help="KILL them: their jobs are lost, and start elsewhere later")
    return root


# ---------------------------------------------------------------- finding them


def found(proc: str = "/proc") -> Iterator[Found]:
    for name in os.listdir(proc):
        if name.isdigit():
            agent = agent_of(int(name), proc)
            if agent is not None:
                yield agent


def agent_of(pid: int, proc: str = "/proc") -> Optional[Found]:
    """None when it is no agent, or not ours to see."""
    try:
        numbers = os.listdir("%s/%d/fd" % (proc, pid))
    except OSError:
        return None
    for number in numbers:
        try:
            target = os.readlink("%s/%d/fd/%s" % (proc, pid, number))
        except OSError:
            continue
        work_dir, name = os.path.split(target)
        if name == LOCK:
            for directory in ("%s/%d/root%s" % (proc, pid, work_dir), work_dir):
                note = _note(directory)
                if note is not None and note.get("pid") in _names_of(pid, proc):
                    return Found(pid, work_dir, directory, note)
    return None


def _note(directory: str) -> Optional[Dict[str, Any]]:
    try:
        with open(os.path.join(directory, here.FILE), encoding="utf-8") as file:
            note = json.load(file)
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _names_of(pid: int, proc: str) -> List[int]:
    """Its numbers: ours, and those within its containers."""
    try:
        with open("%s/%d/status" % (proc, pid), encoding="utf-8") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return [int(word) for word in line.split()[1:]]
    except (OSError, ValueError):
        pass
    return [pid]


def row_of(agent: Found) -> Dict[str, Any]:
    """What is known of it; numbers that it does not tell are None."""
    row: Dict[str, Any] = {"worker": agent.worker, "pid": agent.pid, "standing": "joining"}
    row.update((name, agent.note.get(name)) for name in ("pool", "hub", "started_ms", "version"))
    row.update(work_dir=agent.work_dir, running=None, queued=None)
    try:
        row.update(here.ask(agent.directory, ANSWER_S) or {})
    except TimeoutError:
        row["standing"] = "not-answering"
    except OSError:
        row["standing"] = "unknown"
    return row


# ---------------------------------------------------------------- ps, status


def _ps(agents: Sequence[Found], output: str) -> int:
    rows = [row_of(agent) for agent in agents]
    if output == "json":
        print(json.dumps(rows, indent=2))
        return DONE
    if not rows:
        print("no agent runs here%s" % ("" if os.geteuid() == 0 else " as this user"), file=sys.stderr)
        return DONE
    heads = ["WORKER", "PID", "POOL", "STANDING", "JOBS", "SINCE", "HUB"]
    lines = [heads] + [_cells(row) for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(widths[at]) for at, cell in enumerate(line)).rstrip())
    return DONE


def _cells(row: Dict[str, Any]) -> List[str]:
    jobs = "-" if row["running"] is None else "%s+%s" % (row["running"], row["queued"])
    cells = (row["worker"], row["pid"], row["pool"], row["standing"], jobs, _age(row["started_ms"]), row["hub"])
    return [_plain(cell) or "-" for cell in cells]


def _age(started_ms: Any) -> str:
    return format_duration(max(0, int(time.time() * 1000) - started_ms)) if isinstance(started_ms, int) else ""


def _plain(value: Any) -> str:
    """On one line, and without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in str("" if value is None else value))


def _status(agents: Sequence[Found], wanted: Sequence[str], output: str) -> int:
    chosen, missing = _chosen(agents, wanted)
    rows = [row_of(agent) for agent in chosen]
    if output == "json":
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            for name, value in row.items():
                print("%-14s %s" % (name + ":", _plain("-" if value in (None, "") else value)))
            print()
    return _missed(missing)


# ---------------------------------------------------------------- stop


def _stop(agents: Sequence[Found], asked: argparse.Namespace, wait_ms: Optional[int]) -> int:
    if not asked.workers and not asked.all and len(agents) > 1:
        print("wm-worker: %d agents run here: name some, or give --all" % len(agents), file=sys.stderr)
        return USAGE
    chosen, missing = _chosen(agents, asked.workers)
    held = [(agent, _Handle(agent)) for agent in chosen]
    told = {}
    for agent, handle in held:
        told[agent.worker] = _tell(agent, handle, asked.kill, asked.force)
    until = None if wait_ms is None else time.monotonic() + wait_ms / 1000
    still = False
    rows = []
    for agent, handle in held:
        gone = handle.gone(until) if asked.wait or asked.timeout else handle.gone(0)
        result = "gone" if gone else told[agent.worker]
        still = still or result == "refused" or (not gone and bool(asked.wait or asked.timeout))
        rows.append({"worker": agent.worker, "pid": agent.pid, "result": result})
        if asked.output != "json":
            print("%s %s" % (_plain(agent.worker), result))
    if asked.output == "json":
        print(json.dumps(rows, indent=2))
    return _missed(missing) or (NOT_DONE if still else DONE)


def _tell(agent: Found, handle: "_Handle", kill: bool, force: bool) -> str:
    """`draining`, `stopping`, `killed`, or `refused` when we may not."""
    try:
        if force:
            handle.send(signal.SIGKILL)
            return "killed"
        before = _signals(agent)
        if before in (None, 0) or kill:
            handle.send(signal.SIGTERM)
        if not kill:
            return "draining"
        if not before and _heard(agent, handle, 1):
            handle.send(signal.SIGTERM)
        return "stopping"
    except ProcessLookupError:
        return "gone"
    except PermissionError as error:
        print("wm-worker: %s: %s" % (agent.worker, error.strerror), file=sys.stderr)
        return "refused"


def _signals(agent: Found) -> Optional[int]:
    """How many it has counted, or None. A second one is a stop, and a third its end."""
    try:
        return int((here.ask(agent.directory, ANSWER_S) or {})["signals"])
    except (OSError, KeyError, ValueError):
        return None


def _heard(agent: Found, handle: "_Handle", count: int) -> bool:
    """Two signals that it finds at once would be one to it. False when it has gone meanwhile."""
    until = time.monotonic() + HEARD_S
    while time.monotonic() < until:
        if handle.gone(0):
            return False
        if (_signals(agent) or 0) >= count:
            break
        time.sleep(TURN_S)
    return not handle.gone(time.monotonic() + 2 * TURN_S)  # further apart than a signal that comes twice


class _Handle:
    """This very process: its number may be another's later."""

    def __init__(self, agent: Found) -> None:
        self._pid = agent.pid
        self._fd: Optional[int] = None
        self._gone = False
        try:
            self._fd = os.pidfd_open(agent.pid)
        except ProcessLookupError:
            self._gone = True
        except OSError:
            pass  # a kernel without them
        if agent_of(agent.pid) is None:
            self._gone = True

    def send(self, number: int) -> None:
        if self._gone:
            raise ProcessLookupError
        if self._fd is None:
            os.kill(self._pid, number)
        else:
            signal.pidfd_send_signal(self._fd, number)

    def gone(self, until: Optional[float]) -> bool:
        """Whether it is, at the latest at this time of the monotonic clock (None: wait for ever)."""
        while not self._gone:
            left = None if until is None else max(0.0, until - time.monotonic())
            if self._fd is None:
                self._gone = agent_of(self._pid) is None
                if not self._gone and left != 0:
                    time.sleep(TURN_S)
            else:
                self._gone = bool(select.select([self._fd], [], [], left)[0])
            if left == 0:
                break
        return self._gone


def _chosen(agents: Sequence[Found], wanted: Sequence[str]) -> "tuple[List[Found], List[str]]":
    """All when none is named; and the names that nobody has."""
    if not wanted:
        return list(agents), []
    chosen = [agent for agent in agents if agent.worker in wanted or str(agent.pid) in wanted]
    known = {agent.worker for agent in chosen} | {str(agent.pid) for agent in chosen}
    return chosen, [name for name in wanted if name not in known]


def _missed(missing: Sequence[str]) -> int:
    for name in missing:
        print("wm-worker: no agent %s runs here" % _plain(name), file=sys.stderr)
    return NOT_DONE if missing else DONE
