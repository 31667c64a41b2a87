"""A backend whose workers run elsewhere, where elsewhere is a clean shell on this machine: it knows nothing of the
manager's Python path, folders or environment, and gets all it needs by the script of `backends.start`.

Installed for a test by `installed`, as a package of others would be.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.base import (
    Accepted,
    Backend,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    Listing,
    Option,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    WorkerPhase,
)
from backends.start import Site, script

NAME = "bare-node"
OPTIONS = (
    Option("refuse", "str", "", "the platform's words with which every launch is refused"),
    Option("password", "str", secret=True, help="shows that secrets are masked"),
)
CAPABILITIES = Capabilities(max_batch=2, elsewhere=True, confirms_end=True, secrets="file")


class BareNode:
    def __init__(self, options: Mapping[str, Any], context: Context) -> None:
        self._refuse: str = options["refuse"]
        self._password: str = options["password"] or ""
        self._folder = Path(context.state_dir)

    def launch(self, submission: Submission) -> LaunchOutcome:
        if self._refuse:
            return Refused(RefusalKind.QUOTA, self._refuse)
        for index in range(submission.count):
            self._start(submission, index)
        return Accepted({index: submission.worker_id(index) for index in range(submission.count)})

    def _start(self, submission: Submission, index: int) -> None:
        folder = self._folder / submission.worker_id(index)
        folder.mkdir(parents=True)
        token = folder / "token"
        token.touch(0o600)
        token.write_text(submission.join_tokens[index])
        (folder / "script.sh").write_text(self._script(submission, index, token))
        home = folder / "home"
        home.mkdir()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", str(folder / "script.sh")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=home,
                env={"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home), "WM_WORKER_DIR": str(folder)},
            )
        _CHILDREN.append(process)
        (folder / "pid").write_text(str(process.pid))

    def _script(self, submission: Submission, index: int, token: Path) -> str:
        return script(submission, Site(index=str(index), token=(f"export WM_JOIN_TOKEN_FILE={token}",)))

    def list(self) -> Listing:
        return Listing(tuple(self._seen(path.parent) for path in sorted(self._folder.glob("*/pid"))))

    def _seen(self, folder: Path) -> Seen:
        submission, _, index = folder.name.rpartition("-")
        pid = int((folder / "pid").read_text() or 0)
        for child in _CHILDREN:
            child.poll()
        runs = _runs(pid, str(folder))
        phase = WorkerPhase.RUNNING if runs else WorkerPhase.ENDED
        return Seen(submission, int(index), folder.name, phase, detail="" if runs else "its shell has ended")

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        path = self._folder / handle / "pid"
        if "/" not in handle and path.is_file() and _runs(int(path.read_text()), str(path.parent)):
            os.killpg(int(path.read_text()), signal.SIGKILL if force else signal.SIGTERM)
        return Accepted()

    def logs(self, handle: str, max_bytes: int) -> str:
        path = self._folder / handle / "log"
        return path.read_text(errors="replace")[-max_bytes:] if path.is_file() and max_bytes else ""

    def check(self) -> tuple[Finding, ...]:
        if self._refuse == "explode":
            raise RuntimeError("the platform's library fell over")
        return (Finding("shell", Severity.OK, "/bin/sh"),)

    def render(self, submission: Submission) -> str:
        text = self._script(submission, 0, self._folder / "token")
        return f"# {submission.id}, {submission.count} workers, password {self._password}\n{text}"


_CHILDREN: list[subprocess.Popen[bytes]] = []


def _runs(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def create(options: Mapping[str, Any], context: Context) -> Backend:
    return BareNode(options, context)


def installed(site: Path) -> dict[str, str]:
    """The environment of a program that finds this backend by its entry point."""
    metadata = site / "bare_node-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bare-node\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[worker_manager.backends]\n{NAME} = bare_node\n")
    return {"PYTHONPATH": os.pathsep.join((str(site), str(Path(__file__).parent)))}
