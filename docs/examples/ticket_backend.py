"""A backend for a place that nobody can reach by a network call: tickets in a shared folder.

Somebody on the other side (a cron job on a cluster, a person) takes tickets from `new`, starts the worker, moves the
ticket to `running`, and at the end to `done`; a file in `stop` asks for the end of a worker. Copy this file as the
start of a backend of your own: it is all that one needs.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.base import (
    Accepted,
    BackendUnusable,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    Option,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)

OPTIONS = (Option("folder", "path", required=True, help="the shared folder"),)

CAPABILITIES = Capabilities(
    max_batch=1,
    idempotent_create=True,  # the same id is the same ticket
    graceful_end=False,  # how the other side ends a worker is its own affair
    secrets="file",
)

# The folder a ticket lies in → what that means.
PHASES = {"new": WorkerPhase.PENDING, "running": WorkerPhase.RUNNING, "done": WorkerPhase.ENDED}


class TicketBackend:
    def __init__(self, folder: Path, context: Context) -> None:
        self.folder = folder
        self.context = context

    def launch(self, submission: Submission) -> LaunchOutcome:
        if submission.count != 1 or len(submission.join_tokens) > 1:
            return Refused(RefusalKind.CONFIG, "one worker to a ticket")
        handle = submission.worker_id(0)
        if self._ticket(handle):
            return Accepted({0: handle})
        try:
            for token in submission.join_tokens:
                self._write(self.folder / "secret" / handle, token)
            self._write(self.folder / "new" / handle, self.render(submission))
        except FileNotFoundError as missing:
            return Refused(RefusalKind.CONFIG, f"{missing.filename} is not there")
        except OSError as failed:
            return Unknown(str(failed))
        return Accepted({0: handle})

    def list(self) -> Listing:
        seen: dict[str, Seen] = {}
        complete = True
        try:
            for name, phase in PHASES.items():  # a ticket moves this way, so it is met at least once
                for path in (self.folder / name).iterdir():
                    try:
                        ticket = json.loads(path.read_text())
                        whose, submission = (ticket["manager"], ticket["pool"]), ticket["submission"]
                    except FileNotFoundError:  # on its way to the next folder
                        continue
                    except (ValueError, TypeError, KeyError):  # spoilt: whose it is cannot be told
                        complete = False  # so nobody's absence means anything
                        continue
                    if whose == (self.context.manager, self.context.pool):
                        seen[path.name] = Seen(submission, 0, path.name, phase, exit_code=ticket.get("exit_code"))
        except OSError as failed:
            raise ListFailed(f"{self.folder} cannot be read: {failed.strerror}") from failed
        return Listing(tuple(seen.values()), complete)

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        ticket = self._ticket(handle)
        if ticket and ticket.parent.name != "done":
            self._write(self.folder / "stop" / handle, "force" if force else "")
        return Accepted()

    def logs(self, handle: str, max_bytes: int) -> str:
        path = self.folder / "log" / handle
        if not self._ticket(handle) or not path.exists() or max_bytes <= 0:
            return ""
        return path.read_bytes()[-max_bytes:].decode(errors="replace")

    def check(self) -> tuple[Finding, ...]:
        missing = [name for name in (*PHASES, "secret", "stop") if not (self.folder / name).is_dir()]
        if missing:
            names = " ".join(str(self.folder / name) for name in missing)
            return (Finding("folder", Severity.ERROR, f"{', '.join(missing)} missing", f"mkdir -p {names}"),)
        return (Finding("folder", Severity.OK, str(self.folder)),)

    def render(self, submission: Submission) -> str:
        """What is sent holds no secret, so it can be shown as it is."""
        handle = submission.worker_id(0)
        environment = {name: submission.filled(value, 0) for name, value in submission.environment.items()}
        ticket = {
            "submission": submission.id,
            "manager": submission.manager,
            "pool": submission.pool,
            "command": [submission.filled(word, 0) for word in submission.command],
            "environment": environment | {"WM_JOIN_TOKEN_FILE": str(self.folder / "secret" / handle)},
            "setup": submission.setup,
        }
        return json.dumps(ticket, indent=2)

    def _ticket(self, handle: str) -> Path | None:
        if not handle.replace("-", "").isalnum():  # a handle may come from anywhere; a path must not
            return None
        return next((path for name in PHASES if (path := self.folder / name / handle).exists()), None)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        """Whole or not at all, and for nobody else's eyes."""
        new = path.parent.parent / f".{path.name}.{path.parent.name}"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        new.replace(path)


def create(options: Mapping[str, Any], context: Context) -> TicketBackend:
    folder = Path(options["folder"])
    if not folder.is_dir():
        raise BackendUnusable(f"folder: {folder} is not a folder")
    return TicketBackend(folder, context)
