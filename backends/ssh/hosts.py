"""Which hosts there are and how many workers each takes: text in, values out.

`[USER@]HOST[:SLOTS]`, with an IPv6 address in brackets, and in a file also `HOST slots=4 user=me port=2222`.
SLOTS may be `gone`: that host will never be back, so whatever ran there is over.
A host's key is its name in records, folders and handles: `[user@]host[,port]`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST_SLOTS = 4096
GONE = "gone"

# Nothing here means anything to a shell or to ssh: names end up in its argv and, as %h, in a person's ProxyCommand.
_NAME = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\$?")
_KEY = re.compile(rf"(?:({_USER.pattern})@)?({_NAME.pattern})(?:,(\d{{1,5}}))?")
_ENTRY = re.compile(r"(?:([^@\s]*)@)?(?:\[([^\]\s]*)\]|([^:\s]*))(?::(\S*))?")


class BadHost(ValueError):
    """The message says what is wrong with which entry."""


@dataclass(frozen=True)
class Host:
    name: str
    slots: int = 0
    user: str = ""
    port: int | None = None
    gone: bool = False

    @property
    def key(self) -> str:
        who = f"{self.user}@" if self.user else ""
        return f"{who}{self.name}{'' if self.port is None else f',{self.port}'}"


def from_key(key: str) -> Host | None:
    """Of a host that is no longer among those configured; it takes no new worker. None: no key."""
    match = _KEY.fullmatch(key)
    return Host(match[2], 0, match[1] or "", int(match[3]) if match[3] else None) if match else None


def parse(entries: Iterable[str], default_slots: int) -> tuple[Host, ...]:
    """Several may stand in one text, with commas. Raises BadHost."""
    hosts: dict[str, Host] = {}
    for entry in (piece.strip() for several in entries for piece in several.split(",")):
        host = _host(entry, default_slots)
        if host.key in hosts:
            raise BadHost(f"{entry!r}: {host.key} is named twice")
        hosts[host.key] = host
    return tuple(hosts.values())


def lines(text: str) -> list[str]:
    """The entries of a hosts file: one to a line, `#` begins a comment."""
    stripped = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in stripped if line]


def _host(entry: str, default_slots: int) -> Host:
    first, *settings = entry.split() or [""]
    match = _ENTRY.fullmatch(first)
    if match is None:
        raise BadHost(f"{entry!r} is not [USER@]HOST[:SLOTS]; an IPv6 address stands in brackets")
    given = {"user": match[1], "slots": match[4]}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in ("slots", "user", "port") or given.get(name) is not None:
            raise BadHost(f"{entry!r}: {setting!r} is none of slots=N, user=NAME, port=N, or is said twice")
        given[name] = value
    name, user = match[2] or match[3] or "", given["user"]
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise BadHost(f"{entry!r}: {name!r} is not the name of a host")
    if user is not None and not _USER.fullmatch(user):
        raise BadHost(f"{entry!r}: {user!r} is not the name of a user")
    gone = given["slots"] == GONE
    slots = default_slots if given["slots"] is None else 0 if gone else _slots(entry, given["slots"])
    port = None if given.get("port") is None else _number(entry, "port", str(given["port"]), 1, 65535)
    return Host(name, slots, user or "", port, gone)


def _slots(entry: str, text: str) -> int:
    return _number(entry, f"slots, or `{GONE}`,", text, 0, MOST_SLOTS)


def _number(entry: str, what: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= most:
        raise BadHost(f"{entry!r}: {text!r} is no number of {what} from {least} to {most}")
    return int(text)
