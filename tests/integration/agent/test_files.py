"""Jobs with files, from a submission to what was kept: the real hub, the real agent, keeper and stager."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

from tests.integration.agent.web import Web
from tests.integration.blob_wire import Sender
from worker_manager.hub import discovery


def ended(hub: Any, job: str) -> Any:
    shown = hub.get(f"/v1/jobs/{job}")
    return shown if shown["state"] in ("succeeded", "failed", "cancelled") else None


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"tree/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def kept(hub: Any, job: str) -> dict[str, bytes]:
    """What a job has kept, downloaded again."""
    rows = hub.get(f"/v1/jobs/{job}/files")["files"]
    found = {}
    for row in rows:
        data = hub.call("GET", f"/v1/jobs/{job}/files/{row['path']}").content
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["size"], row["sha256"])
        found[row["path"]] = data
    return found


def test_inputs_of_every_kind_and_outputs_that_the_next_job_takes(
    hub: Any, join: Any, eventually: Any, web: Web, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "site").write_bytes(b"of the site\n")
    join(hub, hub.token("worker"), "--input-path", str(data))
    alice = Sender(hub)
    blob = alice.send(b"of the hub\n")
    page, digest = web.put("/page", b"of the web\n"), hashlib.sha256(b"of the web\n").hexdigest()
    packed = web.put("/tree.tar.gz", archive(one=b"1\n", two=b"2\n"))
    inputs = [
        {"to": "hub.txt", "source": f"blob:{blob}"},
        {"to": "web/page.txt", "source": page, "sha256": digest},
        {"to": "unpacked", "source": packed, "unpack": True},
        {"to": "own.txt", "source": page, "sha256": digest, "copy": True},
        {"to": "site.txt", "source": f"file://{data}/site"},
    ]
    script = """
    set -e
    cat hub.txt web/page.txt site.txt $(find -L unpacked -type f | sort)
    echo more >> own.txt
    mkdir -p out/deep; cat own.txt > out/own; echo deep > out/deep/file; echo no > out/not; echo x > left
    """
    outputs = [{"glob": "out/**/file"}, {"glob": "out/own", "required": True}]
    first = hub.submit("sh", "-c", script, by=alice.token, inputs=inputs, outputs=outputs)
    second = hub.submit("sh", "-c", "find -L taken -type f | sort; cat taken/own; cat one", by=alice.token,
                        inputs=[{"to": "taken", "source": f"job:{first}/out/"},
                                {"to": "one", "source": f"job:{first}/out/deep/file"}])  # fmt: skip
    shown = eventually(lambda: ended(hub, first), "the first")
    said = hub.call("GET", f"/v1/jobs/{first}/logs").text
    assert shown["state"] == "succeeded", (shown, said)
    assert said.splitlines() == ["of the hub", "of the web", "of the site", "1", "2"]
    assert kept(hub, first) == {"out/deep/file": b"deep\n", "out/own": b"of the web\nmore\n"}
    shown = eventually(lambda: ended(hub, second), "the second")
    said = hub.call("GET", f"/v1/jobs/{second}/logs").text
    assert shown["state"] == "succeeded", (shown, said)
    assert said.split("\n")[:2] == ["taken/deep/file", "taken/own"] and said.endswith("of the web\nmore\ndeep\n")
    assert web.asked["GET", "/page"] == 1, "the second input came from the cache"


def test_what_cannot_be_had_and_what_is_missing_fails_and_says_what(
    hub: Any, join: Any, eventually: Any, web: Web
) -> None:
    join(hub, hub.token("worker"))
    alice = Sender(hub)
    keep = [{"glob": "out/*", "required": True}, {"glob": "log", "always": True}]
    jobs = {
        "gone": hub.submit("true", by=alice.token, inputs=[{"to": "x", "source": web.url("/not-there")}]),
        "wrong": hub.submit("true", by=alice.token,
                            inputs=[{"to": "x", "source": web.put("/x", b"x"), "sha256": "0" * 64}]),
        "missing": hub.submit("true", by=alice.token, outputs=keep),
        "failed": hub.submit("sh", "-c", "echo why > log; exit 3", by=alice.token, outputs=keep),
    }  # fmt: skip
    shown = {name: eventually(lambda job=job: ended(hub, job), name) for name, job in jobs.items()}
    assert {name: (one["state"], one["reason"]) for name, one in shown.items()} == {
        "gone": ("failed", "input-refused"),
        "wrong": ("failed", "input-corrupt"),
        "missing": ("failed", "output-missing"),
        "failed": ("failed", ""),
    }, shown
    assert shown["failed"]["exit_code"] == 3
    assert kept(hub, jobs["failed"]) == {"log": b"why\n"}
    assert kept(hub, jobs["missing"]) == {}


def test_a_job_whose_inputs_come_is_assigned_and_its_progress_is_shown(
    hub: Any, join: Any, eventually: Any, web: Web
) -> None:
    agent = join(hub, hub.token("worker"), "--checkin-frequency-seconds", "200ms")
    alice = Sender(hub)
    data = b"0123456789abcdef" * 262144
    gate = web.gate("/slow")
    job = hub.submit("true", by=alice.token, inputs=[{"to": "x", "source": web.put("/slow", data)}])
    shown = eventually(lambda: (s := hub.get(f"/v1/jobs/{job}")) and s.get("progress") and s, "how far it is")
    assert (shown["state"], shown["progress"]["phase"], shown["progress"]["whole"]) == (
        "assigned",
        "staging",
        len(data),
    )
    agent.terminate()
    assert eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "queued", "it to go back")
    assert agent.wait(20) == 0
    gate.set()


def test_a_hub_that_is_away_costs_no_job_its_files(
    hub: Any, join: Any, eventually: Any, web: Web, tmp_path: Path
) -> None:
    """It goes while the input comes, and is away when there is something to keep."""
    join(hub, hub.token("worker"))
    alice = Sender(hub)
    gate, go_on = web.gate("/slow"), tmp_path / "go-on"
    script = f"echo up; until [ -e {go_on} ]; do sleep 0.05; done; mkdir out; wc -c < x > out/size"
    inputs = [{"to": "x", "source": web.put("/slow", b"0123" * 65536)}]
    job = hub.submit("sh", "-c", script, by=alice.token, inputs=inputs, outputs=[{"glob": "out/size"}])
    web.until_waiting("/slow")
    object.__setattr__(hub.settings, "listen", "127.0.0.1:" + hub.found.url.rsplit(":", 1)[1])
    hub.restart()
    gate.set()
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "running", "it to run")
    discovery.stop(hub.state_dir)
    go_on.touch()
    kept_at = tmp_path / "work" / "by-hand" / "jobs" / "kept"
    eventually(lambda: kept_at.is_dir() and list(kept_at.iterdir()), "it to end, while nobody is there")
    hub.found = discovery.start(hub.settings)
    shown = eventually(lambda: ended(hub, job), "its end to be told", 60)
    assert (shown["state"], shown["attempt"]) == ("succeeded", 1), shown
    assert kept(hub, job) == {"out/size": b"262144\n"}
    eventually(lambda: not list(kept_at.iterdir()), "its directory to go")
