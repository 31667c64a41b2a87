"""Names and paths that lead elsewhere, in everything that a name or path can be given in: refused, or harmless text."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.place import ROOT, Place, until

ELSEWHERE = ["../../escaped", "/tmp/escaped", "..", ".", "~/escaped", "a/../../escaped", "C:\\escaped", "$(touch x)"]
STRANGE = [
    "\N{PILE OF POO}",
    "a\u0301\u0327",
    "\u202egnp.exe",
    "\N{NO-BREAK SPACE}",
    "-rf",
    "'; rm -rf /; '",
    "%2e%2e%2f",
]
FORMS = ("/v1/jobs/{}", "/v1/jobs/{}/logs", "/v1/workers/{}", "/v1/worker/{}.pyz", "/v1/commands/{}")
UNTELLABLE = ["a\nb", "a\0b", "\x1b[2J", "x" * 10_000]


def job(**spec: Any) -> dict[str, Any]:
    return {"jobs": [{"command": ["true"], **spec}]}


# ---------------------------------------------------------------- what clients name


def test_names_of_jobs_are_text_and_lead_nowhere(hub: Any) -> None:
    for name in [*ELSEWHERE, *STRANGE]:
        made = hub.post("/v1/jobs", job(name=name))["jobs"][0]["id"]
        assert hub.get(f"/v1/jobs/{made}")["name"] == name, "kept as it is: it is only shown"
    for name in UNTELLABLE:
        assert hub.call("POST", "/v1/jobs", job(name=name)).status_code in (400, 422), name[:20]
    assert len(hub.get("/v1/jobs")["jobs"]) == len(ELSEWHERE) + len(STRANGE)


@pytest.mark.parametrize("field", ["queue", "owner-of-token", "pool", "manager", "worker", "submission"])
def test_names_that_become_parts_of_paths_are_words(shared_hub: Any, field: str) -> None:
    for name in [*ELSEWHERE, *STRANGE, *UNTELLABLE, ""]:
        calls = {
            "queue": ("POST", "/v1/jobs", job(queue=name)),
            "owner-of-token": ("POST", "/v1/tokens", {"owner": name, "scopes": ["read"]}),
            "pool": ("POST", "/v1/managers/m/sync", {"pools": [name]}),
            "manager": ("POST", f"/v1/managers/{quote(name, safe='')}/publish", {}),
            "worker": ("POST", "/v1/managers/m/launches", claim(workers=[name])),
            "submission": ("POST", "/v1/managers/m/launches", claim(submission=name)),
        }
        reply = shared_hub.call(*calls[field], allow_redirects=False)
        assert 400 <= reply.status_code < 500, (field, name[:20], reply.text[:200])
    assert shared_hub.get("/v1/info")["jobs"]["queued"] == 0


def claim(**change: Any) -> dict[str, Any]:
    right = {"submission": "m-s", "pool": "p", "workers": ["m-s-0"], "token_hashes": ["0" * 64], "call_deadline": 1}
    return {**right, **change}


def test_ids_in_addresses_lead_nowhere(shared_hub: Any) -> None:
    """Also where they are decoded twice, or not at all."""
    secret = shared_hub.operator
    for name in [*ELSEWHERE, *STRANGE, *UNTELLABLE[:3], "..%2f..%2ftokens%2foperator.token", "%00", "%ff%fe"]:
        for given in (quote(name, safe=""), quote(name, safe="/"), quote(quote(name, safe=""), safe="")):
            for form in FORMS:
                reply = shared_hub.call("GET", form.format(given), allow_redirects=False)
                assert reply.status_code == 307 or 400 <= reply.status_code < 500, (form, given, reply.text)
                assert secret not in reply.text and "root:" not in reply.text, (form, given)
    assert "Traceback" not in (shared_hub.state_dir / "hub.log").read_text()


def test_output_is_kept_under_numbers_whatever_a_worker_calls_its_job(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"), "w")
    made = hub.submit("true", name="../../escaped")
    assignment = worker.take()
    chunk = {"epoch": assignment["epoch"], "offset": 0}
    for name in [*ELSEWHERE, *STRANGE, *UNTELLABLE, "j1/../../x", "j1-0/..", f"{made}/"]:
        body = {"session": worker.session, "seq": worker.seq + 1, "logs": [{**chunk, "job": name, "text": "x"}]}
        reply = worker.call("report", body)
        assert reply.status_code in (200, 422), (name, reply.text)
        worker.seq += reply.status_code == 200
    worker.report(logs=[{**chunk, "job": made, "b64": "AP+A8J+SqQ0K"}])
    worker.finish(assignment, exit_code=0)
    assert hub.call("GET", f"/v1/jobs/{made}/logs").content == b"\x00\xff\x80\xf0\x9f\x92\xa9\r\n", "as it was written"
    assert {path.name for path in (hub.state_dir / "logs").iterdir()} == {"00000001.log"}
    assert not list(hub.state_dir.parent.rglob("*escaped*"))


def test_a_planted_link_in_the_place_of_a_log_is_not_followed(hub: Any, wire_worker: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"), "w")
    made = hub.submit("true")
    assignment = worker.take()
    worker.report(logs=[{"job": made, "epoch": assignment["epoch"], "offset": 0, "text": "right"}])
    (segment,) = (hub.state_dir / "logs").glob("*.log")
    secret = hub.state_dir.parent / "secret"
    secret.write_text("secret")
    segment.unlink()
    segment.symlink_to(secret)
    reply = hub.call("GET", f"/v1/jobs/{made}/logs")
    assert b"secret" not in reply.content
    worker.finish(assignment, exit_code=0)
    assert hub.get(f"/v1/jobs/{made}")["state"] == "succeeded"


# ---------------------------------------------------------------- what workers are given


def agent(hub: Any, token: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "worker", "--server", hub.url, "--token-file", str(token), "--cpus", "1", *flags]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, cwd=token.parent)


@pytest.fixture
def token(hub: Any, tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(hub.token("worker"))
    file.chmod(0o600)
    return file


def test_a_worker_s_id_is_a_label(hub: Any, token: Path) -> None:
    for name in ("../escaped", "/tmp/escaped", "..", "a/b", "A", "\N{PILE OF POO}", "-a", "x" * 99, ""):
        done = agent(hub, token, f"--worker-id={name}")
        assert done.returncode == 2 and "id" in done.stderr, done
    assert sorted(path.name for path in token.parent.iterdir()) == ["hub", "token"]


def test_a_work_dir_that_somebody_else_put_there_is_refused(hub: Any, token: Path) -> None:
    prefix, elsewhere = token.parent / "work", token.parent / "elsewhere"
    prefix.mkdir()
    elsewhere.mkdir()
    (prefix / "w").symlink_to(elsewhere)
    linked = agent(hub, token, "--worker-id", "w", "--work-dir", str(prefix))
    assert linked.returncode == 1 and "is no folder" in linked.stderr, linked
    (prefix / "v").write_text("a file")
    assert agent(hub, token, "--worker-id", "v", "--work-dir", str(prefix)).returncode == 1
    (prefix / "u").mkdir()
    (prefix / "u" / ".lock").symlink_to(elsewhere / "lock")
    assert agent(hub, token, "--worker-id", "u", "--work-dir", str(prefix)).returncode == 1
    assert list(elsewhere.iterdir()) == []
    assert hub.get("/v1/workers")["workers"] == []


def test_a_pool_s_work_dir_may_have_any_name_that_a_folder_may_have(place: Place) -> None:
    """Spaces, quotes and letters of every kind; what the jobs of two owners leave stays below it."""
    prefix = place.state_dir.parent / 'it\'s \N{LATIN SMALL LETTER U WITH DIAERESIS} "work" $(x);'
    flags = ["--max-workers", "1", "--worker-work-dir-prefix", str(prefix), "local", "--cpus", "1", "--memory-mb", "64"]
    place.manage(*flags)
    (job,) = place.run("submit", "--wait", "--name", "../../escaped", "--", "sh", "-c", "pwd; echo x > left").split()
    where = place.run("logs", job).rstrip("\n")
    assert where.startswith(f"{prefix}/") and "/jobs/slots/" in where
    again = place.run("submit", "--wait", "--env", "HOME=../../escaped", "--shell", "pwd; ls -A").split()[0]
    assert "left" not in place.run("logs", again), "what another job left is not there"
    assert "escaped" not in place.run("logs", again)
    until(lambda: not list(place.state_dir.parent.rglob("escaped")), "nothing of that name")


def test_a_relative_work_dir_is_relative_to_where_the_worker_stands_and_nothing_climbs(hub: Any, token: Path) -> None:
    done = agent(hub, token, "--worker-id", "w", "--work-dir", "deep/../work", "--idle-seconds", "0s")
    assert done.returncode == 0, done
    assert (token.parent / "work").is_dir()
    assert not (token.parent / "work" / "w").exists(), "nothing is in it, so it has gone with its worker"


# ---------------------------------------------------------------- what the command line is given


def test_the_command_line_sends_names_as_they_are(place: Place) -> None:
    place.run("hub", "start")
    for words, name in [
        (["logs"], "../../tokens/operator.token"),
        (["describe", "job"], "/etc/passwd"),
        (["explain", "job"], "j1?limit=1"),
        (["cancel"], ".."),
        (["describe", "worker"], "a b"),
        (["drain"], "\N{PILE OF POO}"),
        (["delete", "worker", "--force"], "j1#x"),
        (["freeze", "pool"], "../x"),
    ]:
        said = place.call(*words, "--", name)
        assert said.returncode in (1, 2), said
        assert said.stderr.startswith("worker-manager: ") and said.stdout == "", said
    place.run("down")
