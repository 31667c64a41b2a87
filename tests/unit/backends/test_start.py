"""The script that starts a worker on a bare node, run by real shells, without a network."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import AGENT, AgentFile, Submission
from backends.start import Site, script, shell, word
from tests.conformance.of_contents import HOSTILE
from worker.protocol import Shape

SHELLS = [name for name in ("dash", "bash", "sh") if os.access(f"/bin/{name}", os.X_OK)]
SHOW = ("python3", "-c", "import os,sys; print(repr((sys.argv[1:], dict(os.environ))))")


def submission(*arguments: str, **more: object) -> Submission:
    made = Submission("m-7", 1, "p", "m", Shape(cpus=1000), (*SHOW, *arguments), {}, ())
    return replace(made, **more)  # type: ignore[arg-type]


def ran(text: str, name: str = "sh", **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([f"/bin/{name}", "-c", text], capture_output=True, text=True, env=env, timeout=30)


@pytest.mark.parametrize("name", SHELLS)
def test_what_is_said_reaches_the_worker_as_it_is(name: str) -> None:
    variables = {f"V{number}": text for number, text in enumerate(HOSTILE)}
    made = submission(*HOSTILE, environment=variables)
    argv, environment = eval(ran(script(made, Site(index='"$N"')), name, N="3").stdout)  # noqa: S307 -- our own repr
    assert argv == [made.filled(text, 3) for text in HOSTILE]
    assert {key: environment[key] for key in variables} == {
        key: made.filled(text, 3) for key, text in variables.items()
    }
    assert (environment["WM_WORKER"], environment["WM_INDEX"], environment["WM_MANAGER"]) == ("m-7-3", "3", "m")


def test_names_may_come_from_the_platform() -> None:
    site = Site(
        submission='"$JOB"',
        index='"${TASK:-0}"',
        token=('WM_JOIN_TOKEN_FILE="/t/$WM_INDEX"', "export WM_JOIN_TOKEN_FILE"),
    )
    argv, environment = eval(ran(script(submission("{worker}"), site), JOB="m-9", TASK="12").stdout)  # noqa: S307
    assert argv == ["m-9-12"]
    assert environment["WM_JOIN_TOKEN_FILE"] == "/t/12"


def test_the_worker_takes_the_place_of_the_shell_and_its_status() -> None:
    made = replace(submission(), command=("/bin/sh", "-c", 'echo "$PPID"; exit 7'))
    done = ran(script(made))
    assert done.returncode == 7
    assert int(done.stdout) == os.getpid()


@pytest.mark.parametrize("line", ["false", "exit 3", "echo 'unbalanced", "cd /nonesuch"])
def test_a_set_up_line_that_fails_is_the_end(line: str) -> None:
    done = ran(script(submission(setup=("echo before", line))))
    assert done.returncode != 0
    assert done.stdout in ("before\n", "")
    assert "(" not in done.stdout, "the worker was started"


def test_set_up_lines_get_bash_where_there_is_one() -> None:
    text = script(submission(setup=('words=(a b); export LAST="${words[1]}"',)))
    done = subprocess.run(shell(text, ("x",)), capture_output=True, text=True, timeout=30)
    assert eval(done.stdout)[1]["LAST"] == "b"  # noqa: S307


def bare(path: Path, tmp: Path, sha: str = "0" * 64) -> str:
    """A start of an agent file, whose URL nobody answers."""
    agent = AgentFile("http://127.0.0.1:9/v1/worker/x.pyz", sha, str(path))
    made = replace(submission(), command=(AGENT, "--worker-id", "{worker}"), agent=agent)
    return script(made, Site(fetch_seconds=0))


def test_a_node_without_a_hub_says_so(tmp_path: Path) -> None:
    done = ran(bare(tmp_path, tmp_path), TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "cannot be fetched from http://127.0.0.1:9" in done.stderr


def test_a_node_without_python_says_so(tmp_path: Path) -> None:
    text = bare(tmp_path, tmp_path).replace("/usr/bin/python3", "").replace("/usr/local/bin/python3", "")
    done = ran(text, PATH=str(tmp_path))
    assert done.returncode == 127
    assert "no Python 3.9 or newer" in done.stderr


def test_an_agent_that_is_there_already_is_not_fetched(tmp_path: Path) -> None:
    import hashlib

    data = b"import sys; print('agent', sys.argv[1:])"
    digest = hashlib.sha256(data).hexdigest()
    folder = tmp_path / f"worker-manager-agent-{os.getuid()}"
    folder.mkdir(mode=0o700)
    (folder / f"{digest}.pyz").write_bytes(data)
    done = ran(bare(tmp_path, tmp_path, digest), TMPDIR=str(tmp_path))
    assert done.stdout == "agent ['--worker-id', 'm-7-0']\n", done.stderr


def test_an_agent_that_was_brought_is_run_from_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "an agent.pyz"
    file.write_text("import sys; print('brought', sys.argv[1:])")
    made = replace(
        submission(), command=(AGENT, "--worker-id", "{worker}"), agent=AgentFile("http://127.0.0.1:9", "0", "")
    )
    done = ran(script(made, Site(agent='"$WM_AGENT"')), WM_AGENT=str(file))
    assert done.stdout == "brought ['--worker-id', 'm-7-0']\n", done.stderr


@pytest.mark.parametrize(("text", "shell_word"), [("", "''"), ("a b", "'a b'"), ("{worker}", '"$WM_WORKER"')])
def test_words(text: str, shell_word: str) -> None:
    assert word(text) == shell_word
