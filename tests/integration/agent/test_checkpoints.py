"""Jobs that save what they have done when their worker must go, and go on elsewhere."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs

SAVES = """
cd "$WM_CHECKPOINT_DIR" || exit 9
[ -e state ] && { cat state; exit 0; }
trap 'echo saved by $WM_EPOCH > state; exit 7' USR1
trap 'echo TERM came first > state; exit 8' TERM
: > ready
while :; do sleep 0.05; done
"""


def checkpoint(grace: int, **more: Any) -> dict[str, Any]:
    return {"work": {"checkpoint": {"signal": "USR1", "grace_ms": grace, "key": "abc"} | more}}


def folder(tmp_path: Path) -> Path:
    return tmp_path / "work" / f"checkpoints-{os.geteuid()}" / "ann" / "j1-abc"


def leave_in(seconds: float) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    return {"reason": "test", "deadline_ms": now + int(seconds * 1000)}


def test_what_it_saved_is_there_in_its_next_attempt_on_another_worker(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    first = start_agent()
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", SAVES, **checkpoint(3_600_000)))
    eventually((folder(tmp_path) / "ready").exists, "the job to be ready")
    assert folder(tmp_path).stat().st_mode & 0o777 == 0o700
    assert "checkpoint" in fake_hub.registrations[0]["shape"]["can"]
    fake_hub.drain = leave_in(600)  # its grace is longer, so it is told at once
    fake_hub.tell()
    assert fake_hub.result("j1")["outcome"] == "returned"
    assert fake_hub.result("j1")["exit_code"] == 7
    assert first.exit_code() == 0
    fake_hub.drain, fake_hub.tokens["join-2"], fake_hub.messages, fake_hub.seen_seq = None, None, [], 0
    start_agent(token="join-2", worker="w-2")
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", SAVES, epoch=2, **checkpoint(3_600_000)))
    assert fake_hub.result("j1", 2)["outcome"] == "succeeded"
    eventually(lambda: fake_hub.logs["j1", 2] == b"saved by 1\n", "what it said")
    eventually(lambda: not folder(tmp_path).exists(), "the folder to go with the job's success")


def test_one_that_does_not_end_is_killed_when_its_grace_is_over_and_others_run_on(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    start_agent()
    deaf = "trap '' USR1; cd \"$WM_CHECKPOINT_DIR\" && : > ready; while :; do sleep 0.05; done"
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", deaf, **checkpoint(599_000)), fake_hub.job("j2", "sleep", "1000"))
    eventually((folder(tmp_path) / "ready").exists, "the job to be ready")
    eventually(lambda: ("j2", 1) in fake_hub.started, "the other one")
    fake_hub.drain = leave_in(600)
    fake_hub.tell()
    fake_hub.drain = leave_in(2)  # the sooner end counts
    fake_hub.tell()
    result = fake_hub.result("j1")
    assert (result["outcome"], result["signal"], result["reason"]) == ("returned", 9, "test")
    assert folder(tmp_path).exists(), "what it saved before stays"


@pytest.mark.parametrize("wrong", [{"signal": "KILL"}, {"grace_ms": -1}, {"key": "../x"}, {"key": ".."}])
def test_nonsense_is_not_run(wrong: Any, fake_hub: Any, start_agent: Any) -> None:
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "true", **checkpoint(1000, **wrong)))
    assert fake_hub.result("j1")["reason"] == "bad-assignment"


def test_what_a_cancelled_job_saved_goes_and_what_a_failed_one_saved_stays(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", SAVES, **checkpoint(1000)))
    eventually((folder(tmp_path) / "ready").exists, "the job to be ready")
    other = folder(tmp_path).with_name("j2-abc")
    fake_hub.assign(fake_hub.job("j2", "sh", "-c", ": > $WM_CHECKPOINT_DIR/state; exit 1", **checkpoint(1000)))
    assert fake_hub.result("j2")["outcome"] == "failed"
    fake_hub.tell(cancel=[{"job": "j1", "epoch": 1, "reason": "cancelled"}])
    assert fake_hub.result("j1")["outcome"] == "cancelled"
    eventually(lambda: not folder(tmp_path).exists(), "the folder to go")
    assert (other / "state").exists()


def test_a_job_that_was_given_to_another_worker_is_not_robbed(
    fake_hub: Any, start_agent: Any, eventually: Any, tmp_path: Path
) -> None:
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", SAVES, **checkpoint(1000)))
    eventually((folder(tmp_path) / "ready").exists, "the job to be ready")
    fake_hub.stale = [["j1", 1]]
    assert fake_hub.result("j1")["reason"] == "stale"
    fake_hub.assign(fake_hub.job("j2", "true"))  # whatever was set aside is removed before this begins
    assert fake_hub.result("j2")["outcome"] == "succeeded"
    assert (folder(tmp_path) / "ready").exists()


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """pytest's own folders are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="wm-checkpoints-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize(
    ("flags", "work"),
    [
        (("--isolation", "sandbox"), {"isolation": "sandbox"}),
        (("--isolation", "none", "--job-user", "auto"), {}),
        (("--isolation", "sandbox", "--job-user", "auto"), {"isolation": "sandbox"}),
    ],
)
def test_in_a_sandbox_and_as_another_user_it_is_the_same(
    fake_hub: Any, start_agent: Any, eventually: Any, open_dir: Path, flags: Any, work: Any
) -> None:
    if "sandbox" in flags:
        needs.sandbox()
    if "--job-user" in flags:
        needs.root()
    prefix = open_dir / "work"
    prefix.mkdir()
    prefix.chmod(0o755)
    saves = 'id -u > "$WM_CHECKPOINT_DIR/who"; ' + SAVES
    told = checkpoint(3_600_000)["work"] | work
    first = start_agent("--work-dir", str(prefix), *flags)
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", saves, work=told))
    place = prefix / f"checkpoints-{os.geteuid()}" / "ann" / "j1-abc"
    eventually((place / "ready").exists, "the job to be ready")
    if os.geteuid() == 0:
        assert int((place / "who").read_text()) == place.stat().st_uid >= 700_000
    fake_hub.drain = leave_in(600)
    fake_hub.tell()
    assert (fake_hub.result("j1")["outcome"], fake_hub.result("j1")["exit_code"]) == ("returned", 7)
    assert (place / "state").read_text() == "saved by 1\n"
    assert first.exit_code() == 0
    fake_hub.drain, fake_hub.tokens["join-2"], fake_hub.messages, fake_hub.seen_seq = None, None, [], 0
    start_agent("--work-dir", str(prefix), *flags, token="join-2", worker="w-2")
    fake_hub.assign(fake_hub.job("j1", "sh", "-c", saves, epoch=2, work=told))
    assert fake_hub.result("j1", 2)["outcome"] == "succeeded", fake_hub.result("j1", 2)
    eventually(lambda: fake_hub.logs["j1", 2] == b"saved by 1\n", "what it said")
    eventually(lambda: not place.exists(), "the folder to go with the job's success")


def test_a_folder_that_is_somebody_elses_is_not_used(fake_hub: Any, start_agent: Any, tmp_path: Path) -> None:
    folder(tmp_path).parent.parent.mkdir(parents=True)
    folder(tmp_path).parent.symlink_to(tmp_path)
    start_agent()
    fake_hub.assign(fake_hub.job("j1", "true", **checkpoint(1000)))
    assert fake_hub.result("j1")["outcome"] == "returned"


def test_a_real_hub_drains_a_worker_and_the_job_goes_on_where_it_was(
    hub: Any, join: Any, eventually: Any, tmp_path: Path
) -> None:
    job = hub.submit("sh", "-c", SAVES, checkpoint={"signal": "USR1", "grace": "20m"})
    join(hub, hub.token("worker"))
    told = hub.get(f"/v1/jobs/{job}")["checkpoint"]
    assert (told["signal"], told["grace_ms"], len(told["key"])) == ("USR1", 1_200_000, 16)
    saved = tmp_path / "work" / f"checkpoints-{os.geteuid()}"
    eventually(lambda: list(saved.glob(f"*/{job}-{told['key']}/ready")), "the job to be ready")
    hub.post("/v1/workers/by-hand/drain", {"deadline_ms": time.time_ns() // 1_000_000 + 600_000})
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "queued", "the job to come back")
    join(hub, hub.token("worker"), "--worker-id", "next")
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "succeeded", "the job to go on")
    assert hub.get(f"/v1/jobs/{job}")["worker"] == "next"
