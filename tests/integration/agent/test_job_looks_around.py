"""A job that looks everywhere: what processes were started with and in, what they hold open, what the worker wrote.
Which secrets of the worker does it find? None in a sandbox or as a user of its own; as a plain process, which is the
same user, the agent's own environment and no more."""

import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import needs

ROOT = Path(__file__).resolve().parents[3]
WORD = re.compile(rb"[A-Za-z0-9_.-]{8,}")
# $1 the worker's folder. Each line of a process stands under a headline.
LOOK = """
for each in /proc/[0-9]*; do
    for file in environ cmdline; do
        echo "#### $each $file"
        tr '\\0' '\\n' < $each/$file
    done
    echo "#### $each fd"
    ls -l $each/fd
done 2>/dev/null
echo "#### own environment"
env
echo "#### files"
find "$1" -type f -exec cat {} + 2>/dev/null
echo; echo "#### end"
"""


@dataclass
class Secrets:
    """What must not be seen: texts that the test knows, and one that only the agent knows, by its hash."""

    texts: dict[str, bytes]
    sha256: str = ""

    def found_in(self, text: bytes) -> list[str]:
        found = [name for name, secret in self.texts.items() if secret in text]
        if any(hashlib.sha256(word).hexdigest() == self.sha256 for word in WORD.findall(text)):
            found.append("credential")
        return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where jobs of other users can be run, as pytest's own cannot."""
    made = Path(tempfile.mkdtemp(prefix="wm-looks-", dir="/var/tmp"))
    made.chmod(0o755)
    (made / "work").mkdir(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def sections(text: bytes) -> dict[str, bytes]:
    parts = re.split(rb"^#### (.*)$", text, flags=re.MULTILINE)
    return {name.decode(): body for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("way", ["process", "user of its own", "sandbox"])
def test_what_it_finds(fake_hub: Any, start_agent: Any, eventually: Any, folder: Path, way: str) -> None:
    flags, work = ["--work-dir", str(folder / "work"), "--cpus", "4"], {}
    if way == "sandbox":
        needs.sandbox()
        work = {"isolation": "sandbox"}
    if way == "user of its own":
        needs.root()
        flags += ["--job-user", "auto"]
    hidden = Secrets(
        {"join token": b"join-" + secrets.token_hex(8).encode(), "environment": os.urandom(8).hex().encode()}
    )
    token, canary = (hidden.texts[name].decode() for name in ("join token", "environment"))
    fake_hub.tokens[token] = None
    agent = start_agent(*flags, token=token, env={"DATABASE_PASSWORD": canary})
    hers = f"password-{secrets.token_hex(8)}"
    fake_hub.assign(
        fake_hub.job("hers", "sh", "-c", "echo up; sleep 600", env={"PASSWORD": hers}, work=work, owner="ann")
    )
    eventually(lambda: fake_hub.logs["hers", 1] == b"up\n", "the other's job to run")
    hidden.texts["the other job's"] = hers.encode()
    hidden.sha256 = fake_hub.registrations[0]["credential_sha256"]

    fake_hub.assign(fake_hub.job("looks", "sh", "-c", LOOK, "sh", str(folder / "work"), work=work, owner="bob"))
    assert fake_hub.result("looks", seconds=60)["outcome"] == "succeeded"
    seen = sections(fake_hub.logs["looks", 1])
    assert "end" in seen and len(seen) > 8
    finds = {where: found for where, text in seen.items() if (found := hidden.found_in(text))}
    if way == "process":
        job_s = [where for where in finds if finds[where] == ["the other job's"] and where.endswith("environ")]
        assert job_s, "it would find what there is to find"
        rest = {where: found for where, found in finds.items() if where not in job_s}
        assert rest == {f"/proc/{agent.pid} environ": ["environment"]}
    else:
        assert finds == {}

    for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
        for name in ("environ", "cmdline"):
            assert not hidden.found_in(Path(f"/proc/{child}/{name}").read_bytes()), "its keeper has none"
    assert not hidden.found_in(Path(f"/proc/{agent.pid}/cmdline").read_bytes())
    agent.process.send_signal(signal.SIGUSR1)
    eventually(lambda: agent.said("dump"), "the dump")
    status = [sys.executable, "-m", "worker", "status", str(agent.pid), "-o", "json"]
    told = subprocess.run(status, cwd=ROOT, capture_output=True, timeout=60)
    assert told.returncode == 0 and b"hers" in told.stdout
    written = [path for path in (folder / "work").rglob("*") if path.is_file()]
    assert any(path.name == "agent.json" for path in written)
    texts = [told.stdout, agent.errors.read_bytes(), *(path.read_bytes() for path in written)]
    assert [hidden.found_in(text) for text in texts] == [[]] * len(texts)
    reports = [{name: part for name, part in each.items() if name != "logs"} for each in fake_hub.reports]
    assert not hidden.found_in(repr([fake_hub.registrations, reports, fake_hub.polls]).encode())
