"""What ssh and the far side said → what it means. Text in, values out."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.base import RefusalKind, Seen, WorkerPhase, clipped
from backends.ssh.recipe import handle

# The far side's words (backends/ssh/far/seeing.py) → ours.
PHASES = {
    "pending": WorkerPhase.PENDING,
    "running": WorkerPhase.RUNNING,
    "ending": WorkerPhase.ENDING,
    "ended": WorkerPhase.ENDED,
}

NO_PYTHON = "wm-ssh: there is no Python"
SSH_FAILED = 255  # ssh's own status for its own failures: man ssh, EXIT STATUS

_K = RefusalKind

# OpenSSH's client before it runs anything (sshconnect.c, sshconnect2.c): then certainly nothing happened.
_BEFORE: tuple[tuple[str, RefusalKind, str], ...] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed", _K.CONFIG,
     "its key is not the one that is known. If the host was installed anew, make sure of its new key and forget the "
     "old one: ssh-keygen -R {name}"),
    (r"Host key verification failed|No .*host key is known for", _K.CONFIG,
     "its key is not known here. Compare it with what its administrator says, then: ssh-keyscan -H {name} >> "
     "~/.ssh/known_hosts. Or let the first one count with host-keys: accept-new"),
    (r"Permission denied \(", _K.AUTH,
     "it does not accept our key. Try: ssh -o BatchMode=yes {name} true. A key with a passphrase must be in the agent"),
    (r"Too many authentication failures", _K.AUTH, "too many keys were offered: name the right one with identity-file"),
    (r"no mutual signature|no matching (host key|key exchange|cipher|MAC)", _K.CONFIG,
     "the two sides share no method: see `ssh -v {name}`"),
    (r"Temporary failure in name resolution", _K.CAPACITY, "its name cannot be looked up now"),
    (r"Could not resolve hostname", _K.CONFIG, "its name is not known here: correct it in `hosts`"),
    (r"connect to host .* port \d+: ", _K.CAPACITY, "it cannot be reached"),
    (r"banner exchange|kex_exchange_identification|Connection timed out during", _K.CAPACITY,
     "its sshd does not answer"),
    (r"Bad configuration option|Can't open user config file|bad configuration options|Bad owner or permissions",
     _K.CONFIG, "ssh's own configuration is wrong"),
    (r"Bad port|hostname contains invalid characters", _K.CONFIG, "the entry in `hosts` makes no sense to ssh"),
)  # fmt: skip


class Trouble(Exception):
    """One host did not do what it was asked. `certain`: nothing at all was done there."""

    def __init__(self, kind: RefusalKind, text: str, *, certain: bool, more: Mapping[str, Any] | None = None) -> None:
        super().__init__(clipped(text))
        self.kind = kind
        self.certain = certain
        self.more = more or {}  # what the far side added

    @property
    def text(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Report:
    """One host's list."""

    seen: tuple[Seen, ...]
    live: int
    boot: str
    kept: bool  # False: there is no folder of this pool at all
    folder: str
    submissions: frozenset[str] = field(default_factory=frozenset)


def answer(out: str, mark: str) -> Mapping[str, Any] | None:
    """The far side's answer among whatever else the host says to whoever logs in."""
    for line in reversed(out.split("\n")):
        if line.startswith(mark + " "):
            try:
                found = json.loads(line[len(mark) :])
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
    return None


def result(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises Trouble when the far side refused, or does not know what it did."""
    if isinstance(found.get("answer"), dict):
        return dict(found["answer"])
    if "refused" in found:
        known = {kind.value: kind for kind in RefusalKind}
        kind = known.get(str(found["refused"]), RefusalKind.CAPACITY)
        raise Trouble(kind, str(found.get("text")), certain=True, more=found)
    raise Trouble(RefusalKind.CAPACITY, str(found.get("unknown", "an answer without sense")), certain=False)


def failure(name: str, status: int, log: str, err: str, out: str) -> Trouble:
    """Why there is no answer. `log` is what ssh itself said, which the far side cannot forge."""
    own = "\n".join(line for line in log.splitlines() if not line.startswith("Warning: Permanently added")).strip()
    if status == SSH_FAILED:
        for pattern, kind, advice in _BEFORE:
            if re.search(pattern, own):
                return Trouble(kind, f"{advice.format(name=name)} ({last_line(own)})", certain=True)
        words = own or err.strip() or "ssh ended without a word"
        return Trouble(RefusalKind.CAPACITY, f"the connection was lost: {words}", certain=False)
    if NO_PYTHON in err:
        words = "install Python 3.9 or newer there, or name it with `python`"
        return Trouble(RefusalKind.CONFIG, f"{err.strip()}: {words}", certain=True)
    said = (err.strip() + "\n" + out.strip()).strip() or "nothing"
    words = f"it did not run what it was asked to (status {status}); it said: {said}"
    return Trouble(RefusalKind.CONFIG, words, certain=False)


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()


def report(found: Mapping[str, Any], host: str) -> Report:
    """Raises Trouble when it makes no sense."""
    try:
        seen = tuple(_seen(one, host) for one in found["workers"])
        live = sum(1 for one in seen if one.phase is not WorkerPhase.ENDED)
        submissions = frozenset(one.submission for one in seen)
        return Report(seen, live, str(found["boot"]), bool(found["kept"]), str(found["folder"]), submissions)
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        text = f"its list makes no sense: {type(wrong).__name__}: {wrong}"
        raise Trouble(RefusalKind.CONFIG, text, certain=False) from None


def _seen(one: Mapping[str, Any], host: str) -> Seen:
    phase = PHASES.get(one["phase"], WorkerPhase.UNKNOWN)
    submission, index = str(one["submission"]), int(one["index"])
    ended = phase is WorkerPhase.ENDED
    detail = clipped(str(one.get("detail") or "")) if ended else f"on {host}"
    if phase is WorkerPhase.UNKNOWN:
        detail = f"on {host}: {one['phase']}"
    return Seen(
        submission,
        index,
        handle(submission, index, host),
        phase,
        started_at=None if ended or one.get("at") is None else int(one["at"]),
        exit_code=one.get("exit_code") if ended else None,
        detail=detail,
    )
