"""What `doctor` says about each host: reached, key accepted, Python, folder, disk, slots and shape, clock, hub."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from backends.base import BackendUnusable, Context, Finding, Severity
from backends.ssh.answers import Trouble
from backends.ssh.hosts import Host
from backends.ssh.pool import Pool
from worker.protocol import Shape, format_bytes, format_cpus, parse_bytes

LOW_DISK = parse_bytes("1GiB")
SKEW_MS = 30_000

_OK, _WARNING, _ERROR = Severity.OK, Severity.WARNING, Severity.ERROR


def refuse_nonsense(options: Mapping[str, Any]) -> None:
    """Raises BackendUnusable: values that no host could make sense of, or that a shell would."""
    if options["python"] and not re.fullmatch(r"[A-Za-z0-9_./~][A-Za-z0-9_./+~-]*", options["python"]):
        raise BackendUnusable(f"python: {options['python']!r} is not the path of a program")
    if options["user"] and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\$?", options["user"]):
        raise BackendUnusable(f"user: {options['user']!r} is not the name of a user")
    if options["port"] is not None and not 1 <= options["port"] <= 65535:
        raise BackendUnusable(f"port: {options['port']} is not from 1 to 65535")
    for name, least in (("slots", 0), ("parallel", 1), ("retry", 1), ("connect-timeout", 1), ("keep-ended", 0)):
        if options[name] < least:
            raise BackendUnusable(f"{name}: {options[name]} is too small")
    if not options["remote-dir"].strip() or any(c in options["remote-dir"] for c in "\0\n"):
        raise BackendUnusable("remote-dir: is no path")


def findings(pool: Pool, context: Context) -> tuple[Finding, ...]:
    hosts = tuple(host for host in pool.hosts() if not host.gone)
    deadline = pool.deadline()
    hub = _hub(context.server)
    request = {"call": "check", **({"hub": [*hub, 5.0]} if hub else {})}

    def ask(host: Host) -> Mapping[str, Any]:
        sent = context.now_ms()
        found = pool.call(host, request, deadline)
        return {**found, "sent": sent, "back": context.now_ms()}

    answers = pool.each(hosts, ask)
    found = [one for host in hosts for one in _of(host, answers[host.key], context)]
    return (*found, *_together(hosts, context))


def _of(host: Host, facts: Mapping[str, Any] | Trouble, context: Context) -> Iterator[Finding]:
    key = host.key
    if isinstance(facts, Trouble):
        mend = f"ssh -o BatchMode=yes {host.name} true, until that works without a question"
        yield Finding(key, _ERROR, facts.text, mend)
        return
    yield Finding(key, _OK, f"reached, python {facts['python']}")
    if not facts["linux"]:
        yield Finding(
            f"{key}: system", _ERROR, "it has no /proc: workers cannot be told apart there", "use Linux hosts"
        )
    if facts["folder"]:
        yield Finding(f"{key}: folder", _ERROR, facts["folder"], "correct its owner and rights, or set remote-dir")
    elif facts["free"] < LOW_DISK:
        text = f"{format_bytes(facts['free'])} free in {facts['base']}"
        yield Finding(
            f"{key}: disk", _WARNING, text, f"make room, at least {format_bytes(LOW_DISK)}, or set remote-dir"
        )
    else:
        yield Finding(f"{key}: folder", _OK, f"{facts['base']}, {format_bytes(facts['free'])} free")
    if context.shape is not None:
        yield _slots(host, facts, context.shape)
    if skew := _skew(facts):
        text = f"its clock is {abs(skew) / 1000:.0f} s {'ahead' if skew > 0 else 'behind'}"
        yield Finding(f"{key}: clock", _WARNING, text, "set up NTP there: timedatectl set-ntp true")
    if facts["reaped_at_logout"]:
        text = "systemd ends what a user leaves running (KillUserProcesses=yes)"
        yield Finding(f"{key}: logout", _ERROR, text, "loginctl enable-linger, as that user or with its name")
    if facts.get("hub"):
        mend = "open the way, or name an address that the hosts reach with --advertise-url"
        yield Finding(f"{key}: hub", _ERROR, f"{context.server} cannot be reached from there: {facts['hub']}", mend)
    elif "hub" in facts:
        yield Finding(f"{key}: hub", _OK, f"{context.server} can be reached from there")


def _slots(host: Host, facts: Mapping[str, Any], shape: Shape) -> Finding:
    """All slots of a host together must fit it: nothing else keeps its workers from taking too much."""
    name = f"{host.key}: slots"
    amounts = (
        ("cpus", shape.cpus, facts["cpus"], format_cpus),
        ("memory", shape.memory, facts["memory"], format_bytes),
        ("gpus", shape.gpus or 0, facts["gpus"], str),
    )
    short = [
        f"{what}: {host.slots} × {show(asked)} asked, {show(has)} there"
        for what, asked, has, show in amounts
        if asked * host.slots > has
    ]
    room = min((has // asked for _, asked, has, _ in amounts if asked), default=host.slots)
    if not short:
        return Finding(name, _OK, f"{host.slots} workers of this shape fit")
    mend = f"{host.name}:{room} in hosts, or a smaller shape" if room else "a smaller shape, or a larger host"
    return Finding(name, _WARNING if room else _ERROR, "; ".join(short), mend)


def _skew(facts: Mapping[str, Any]) -> int:
    """Milliseconds that its clock is ahead, as far as the call's own duration leaves that certain; 0 for little."""
    ahead, behind = facts["now_ms"] - facts["back"], facts["sent"] - facts["now_ms"]
    return int(ahead) if ahead > SKEW_MS else -int(behind) if behind > SKEW_MS else 0


def _together(hosts: tuple[Host, ...], context: Context) -> Iterator[Finding]:
    slots = sum(host.slots for host in hosts)
    if context.max_workers is not None and context.max_workers > slots:
        text = f"there are {slots} slots, the pool may have {context.max_workers} workers"
        yield Finding("slots", _WARNING, text, f"--max-workers {slots}, or more hosts")
    else:
        yield Finding("slots", _OK, f"{slots} on {len(hosts)} hosts")


def _hub(server: str) -> tuple[str, int] | None:
    parts = urlsplit(server)
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
