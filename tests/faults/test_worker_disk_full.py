"""A worker whose disk is full, in bytes or in files: jobs that need none of it go on, results arrive, what output could
not be kept is said to be missing, and what cannot be started does not go to and fro."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.faults.hubs import MortalHub
from tests.faults.tracing import injected
from tests.place import ROOT, until
from worker.keeper.loop import REST_MS

MIB = 2**20
SAYS_WHAT_IS_MISSING = re.compile(
    rb"(begins\n)(z*)\n\[worker: (\d+) bytes are missing here, because its disk could not keep them\]\n(z*(?:ends\n)?)"
)


class Worker:
    """One started by hand, whose work dir is a small disk."""

    def __init__(self, folder: Path, size: str, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.disk = stack.enter_context(needs.small_disk(folder / "work", size))
        self.process: subprocess.Popen[bytes] | None = None

    def join(self, hub: MortalHub, log: Path | None = None, name: str = "w-1") -> None:
        self.log = log or self._folder / f"{name}.log"
        token = self._folder / f"{name}.token"
        token.write_text(hub.token("worker"))
        token.chmod(0o600)
        argv = [sys.executable, "-m", "worker", "--server", hub.url, "--token-file", str(token), "--cpus", "2"]
        argv += ["--worker-id", name, "--work-dir", str(self.disk), "--log-format", "json", "--notices", "off"]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        with self.log.open("wb") as log_file:
            self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=log_file)
        self._stack.callback(end, self.process)

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[MortalHub]:
    made = MortalHub(tmp_path / "hub", lease_ms=60_000)
    made.start()
    yield made
    made.close()


@pytest.fixture
def worker_on(tmp_path: Path) -> Iterator[Callable[[str], Worker]]:
    with ExitStack() as stack:
        yield lambda size: Worker(tmp_path, size, stack)


def fill(folder: Path) -> Path:
    """To the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler


def use_up_files(folder: Path) -> list[Path]:
    """Until there can be no more."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            made.append(folder / f"filler-{len(made)}")
            made[-1].touch()
    return made[:-1]


def ended(hub: Any, job: str) -> Any:
    shown: Any = {}

    def is_over() -> bool:
        shown.update(hub.get(f"/v1/jobs/{job}"))
        return shown["state"] in ("succeeded", "failed", "cancelled")

    until(is_over, lambda: f"{job} to end: {shown}")
    return shown


def test_a_job_that_fills_the_disk_harms_itself_alone(hub: MortalHub, worker_on: Any, tmp_path: Path) -> None:
    """Also the agent's own log is on that disk. With its end there is room again."""
    worker = worker_on("4m")
    worker.join(hub, log=worker.disk / "agent.log")
    fills = hub.submit("sh", "-c", f"cat /dev/zero > big; while ! test -e {tmp_path}/go; do sleep 0.02; done; exit 7")
    until(lambda: os.statvfs(worker.disk).f_bavail == 0, "the disk to be full")
    writes = hub.submit("cp", "/etc/passwd", "mine")
    speaks = hub.submit("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' y; echo end")
    shown = ended(hub, writes)
    assert (shown["state"], b"o space left" in hub.output(writes)) == ("failed", True), shown
    assert ended(hub, speaks)["state"] == "succeeded"
    assert hub.output(speaks) == b"y" * 300_000 + b"end\n"
    (tmp_path / "go").touch()
    assert ended(hub, fills)["exit_code"] == 7
    until(lambda: os.statvfs(worker.disk).f_bavail > 0, "its files to be removed")
    again = hub.submit("sh", "-c", "echo x > mine && cat mine")
    assert ended(hub, again)["state"] == "succeeded"
    assert worker.process.poll() is None


def test_output_that_no_disk_takes_is_said_to_be_missing(hub: MortalHub, worker_on: Any, tmp_path: Path) -> None:
    """The hub is away, the job writes more than memory may hold, the disk is full: the result arrives, with what could
    be kept and a note for the rest."""
    worker = worker_on("2m")
    worker.join(hub)
    size, done = 12 * MIB, tmp_path / "done"
    wait = f"while ! test -e {tmp_path}/go; do sleep 0.02; done"
    job = hub.submit("sh", "-c", f"echo begins; {wait}; head -c {size} /dev/zero | tr '\\0' z; echo ends; touch {done}")
    until(lambda: hub.output(job) == b"begins\n", "it to run")
    port = hub.url.rsplit(":", 1)[1]
    hub.kill()
    fill(worker.disk)
    (tmp_path / "go").touch()
    until(done.exists, "the job to be done")
    until(lambda: worker.said("output-lost"), "the agent to say so")
    object.__setattr__(hub.settings, "listen", f"127.0.0.1:{port}")
    (hub.state_dir / "settings.json").write_text(hub.settings.to_json())
    hub.start()
    shown = ended(hub, job)
    assert (shown["state"], shown["attempt"]) == ("succeeded", 1)
    begins, kept, missing, rest = SAYS_WHAT_IS_MISSING.fullmatch(hub.output(job)).groups()
    assert len(kept) >= 4 * MIB - 65_536, "what memory may hold"
    assert len(begins + kept) + int(missing) + len(rest) == len("begins") + 1 + size + len("ends") + 1


def test_a_hub_whose_disk_is_full_gets_everything_later_and_once(worker_on: Any, tmp_path: Path) -> None:
    """What it cannot keep it does not acknowledge, so the worker says it again."""
    with needs.small_disk(tmp_path / "hub", "8m"):
        hub = MortalHub(tmp_path / "hub")
        hub.start()
        try:
            worker = worker_on("8m")
            worker.join(hub)
            wait = f"while ! test -e {tmp_path}/go; do sleep 0.02; done"
            job = hub.submit("sh", "-c", f"echo begins; {wait}; head -c 300000 /dev/zero | tr '\\0' z")
            until(lambda: hub.output(job) == b"begins\n", "it to run")
            filler = fill(hub.state_dir)
            (tmp_path / "go").touch()
            until(lambda: worker.said("hub-unreachable"), "the agent to be refused")
            assert "503" in worker.said("hub-unreachable")[0]["text"]
            assert hub.get(f"/v1/jobs/{job}")["state"] == "running"
            filler.unlink()
            shown = ended(hub, job)
            assert (shown["state"], shown["attempt"], len(shown["attempts"])) == ("succeeded", 1, 1)
            assert hub.output(job) == b"begins\n" + b"z" * 300_000
            assert not worker.said("fenced")
        finally:
            hub.close()


def test_without_room_for_a_directory_a_job_waits_a_little(hub: MortalHub, worker_on: Any) -> None:
    """It is tried again here for some seconds before it goes back, so it does not go to and fro, and never fails."""
    worker = worker_on("1m,nr_inodes=60")
    worker.join(hub)
    first = hub.submit("true")
    assert ended(hub, first)["state"] == "succeeded"
    fillers = use_up_files(worker.disk)
    job, began = hub.submit("true", by=hub.token("submit", owner="bob")), time.monotonic()
    until(lambda: hub.get(f"/v1/jobs/{job}")["attempt"] == 2, "it to be handed back, and to come again")
    assert time.monotonic() - began > sum(REST_MS) / 1000
    for filler in fillers:
        filler.unlink()
    shown = ended(hub, job)
    assert (shown["state"], shown["attempt"], shown["losses"]) == ("succeeded", 2, 0), shown
    (first, _) = shown["attempts"]
    assert (first["outcome"], first["reason"]) == ("returned", "start-failed")
    assert "No space left on device" in first["text"]


def test_a_quota_that_is_used_up_is_a_full_disk(hub: MortalHub, worker_on: Any) -> None:
    worker = worker_on("4m")
    worker.join(hub)
    assert ended(hub, hub.submit("true"))["state"] == "succeeded"
    (keeper,) = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    with injected(int(keeper), "mkdir,mkdirat:error=EDQUOT:when=1..2"):
        began = time.monotonic()
        shown = ended(hub, hub.submit("true", by=hub.token("submit", owner="bob")))
        assert time.monotonic() - began > sum(REST_MS[:2]) / 1000
    assert (shown["state"], shown["attempt"]) == ("succeeded", 1)


def test_a_worker_that_can_start_nothing_leaves_the_work_to_others(
    hub: MortalHub, worker_on: Any, join_another: Any
) -> None:
    worker = worker_on("1m")
    worker.join(hub)
    first = hub.submit("true")
    assert ended(hub, first)["state"] == "succeeded"
    (worker.disk / "w-1" / "jobs" / "slots").rename(worker.disk / "elsewhere")
    job = hub.submit("true", by=hub.token("submit", owner="bob"))
    assert worker.process.wait(60) == 0
    shown = hub.get(f"/v1/jobs/{job}")
    assert (shown["state"], shown["attempt"], shown["losses"]) == ("queued", 3, 0), "handed back, and none of its fault"
    (said,) = worker.said("black-hole")
    assert "3 jobs in a row could not be started here" in said["text"]
    join_another(hub)
    assert ended(hub, job)["worker"] == "another"


def test_an_agent_that_finds_no_room_says_so(hub: MortalHub, worker_on: Any) -> None:
    worker = worker_on("1m,nr_inodes=8")
    use_up_files(worker.disk)
    worker.join(hub)
    assert worker.process.wait(60) == 1
    (said,) = worker.said("error")
    assert "No space left on device" in said["text"] and str(worker.disk) in said["text"]
    assert hub.get("/v1/workers")["workers"] == []


@pytest.fixture
def join_another(tmp_path: Path) -> Iterator[Callable[[MortalHub], None]]:
    with ExitStack() as stack:

        def start(hub: MortalHub) -> None:
            folder = tmp_path / "another"
            folder.mkdir()
            Worker(folder, "4m", stack).join(hub, name="another")

        yield start
