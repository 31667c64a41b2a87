"""Where workers go, and what a host is asked: pure."""

import base64
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import AGENT, AgentFile, Submission
from backends.sound import problem_of
from backends.ssh import recipe
from backends.ssh.hosts import Host
from backends.ssh.line import Line, Settings, far_command, spoken
from worker.protocol import Shape

AGENT_FILE = AgentFile("https://hub/v1/worker/x.pyz", "0" * 64, "/nonesuch")
HOST = Host("gpu1", 4, "me", 2222)


def submission(**more: object) -> Submission:
    made = Submission("m-1", 2, "p", "m", Shape(), (AGENT, "--server", "https://hub"), {}, ("wmj_a", "wmj_b"))
    return replace(made, agent=AGENT_FILE, **more)  # type: ignore[arg-type]


def argv(**settings: object) -> list[str]:
    return Line(Settings(**settings), "m/p", Path("/sockets")).argv(HOST, 30.0)  # type: ignore[arg-type]


def test_workers_go_where_most_slots_are_free() -> None:
    assert recipe.spread(range(5), {"a": 1, "b": 3, "c": 2}) == {"b": [0, 1, 4], "c": [2], "a": [3]}
    assert sum(map(len, recipe.spread(range(9), {"a": 1, "b": 3, "c": 2}).values())) == 6
    assert recipe.spread(range(2), {"a": 0}) == {}
    assert recipe.spread(range(2), {}) == {}
    assert recipe.spread((), {"a": 5}) == {}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"id": "../x"}, "is not a name"),
        ({"id": "A"}, "is not a name"),
        ({"count": 0}, "workers in one submission"),
        ({"count": 17}, "workers in one submission"),
        ({"join_tokens": ("one",)}, "join tokens"),
        ({"environment": {"A B": "x"}}, "not the name of an environment variable"),
        ({"environment": {"A": "x\0"}}, "NUL"),
        ({"command": ()}, "no command"),
    ],
)
def test_what_can_never_be_started(more: dict[str, object], words: str) -> None:
    assert problem_of(submission(), 16) == ""
    assert words in problem_of(submission(**more), 16)


@pytest.mark.parametrize("name", [".", "..", "a/b", "a@b", "", "$(id)", "x" * 500, "日本"])
def test_a_pools_folder_is_one_folder_of_its_own(name: str) -> None:
    folder = recipe.place("base", "h", "m", name)["pool"]
    assert "/" not in folder
    assert folder not in (".", "..", "lock")
    assert len(folder) <= 255
    assert folder != recipe.place("base", "h", name, "m")["pool"]
    assert recipe.place("b", "h", "a@b", "c") != recipe.place("b", "h", "a", "b@c")


def test_handles() -> None:
    assert recipe.parse_handle(recipe.handle("m-1", 3, "me@gpu1,22")) == ("m-1", 3, "me@gpu1,22")
    assert recipe.parse_handle("m-1-0@") == ("m-1", 0, "")
    for wrong in ("", "m-1-0", "../../etc@a", "m-1-01@a", "M@a", "x\0y", "$(id)@a", "m-1-0 @a"):
        assert recipe.parse_handle(wrong) is None


def test_what_people_are_shown_holds_no_secret_and_all_else() -> None:
    request = recipe.launch_request(submission(environment={"COLOUR": "green"}), [0, 1], 4, (), True)
    assert request["tokens"] == {"0": "wmj_a", "1": "wmj_b"}
    text = recipe.rendered(argv(), request)
    assert "wmj_" not in text
    assert '"0": "***"' in text
    assert "export COLOUR=green" in text
    assert text.startswith("ssh -T ")


def test_secrets_are_in_no_script_and_no_argv() -> None:
    request = recipe.launch_request(submission(), [0], 4, (), True)
    assert "wmj_" not in request["script"]
    assert "wmj_b" not in json.dumps(request)
    assert not any("wmj_" in word for word in argv())


def test_the_agents_bytes_travel_whole(tmp_path: Path) -> None:
    path = tmp_path / "agent"
    path.write_bytes(bytes(range(256)))
    carried = recipe.carried(replace(AGENT_FILE, path=str(path)))
    assert base64.b64decode(carried["data"]) == path.read_bytes()
    with pytest.raises(OSError, match="nonesuch"):
        recipe.carried(AGENT_FILE)


# ---------------------------------------------------------------- ssh's argv


def test_ssh_never_asks_a_person_and_never_waits_for_long() -> None:
    words = argv()
    for option in ("BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=yes", "ControlMaster=auto"):
        assert option in words
    assert words[-3:-1] == ["--", "gpu1"]
    assert words[words.index("-p") + 1] == "2222"
    assert words[words.index("-l") + 1] == "me"
    assert "ConnectTimeout=2" in Line(Settings(), "m", Path("/s")).argv(HOST, 3.9)
    assert "ConnectTimeout=1" in Line(Settings(), "m", Path("/s")).argv(HOST, 0.1)


def test_hosts_and_settings_never_share_a_connection() -> None:
    def path(line: Line, host: Host) -> str:
        return next(word for word in line.argv(host, 30) if word.startswith("ControlPath="))

    sockets = Path("/s")
    lines = [
        Line(Settings(), "m/p", sockets),
        Line(Settings(), "m/q", sockets),
        Line(Settings(user="x"), "m/p", sockets),
    ]
    paths = {path(line, host) for line in lines for host in (HOST, Host("gpu1"), Host("gpu2"))}
    assert len(paths) == 9
    assert "ControlMaster=no" in argv(persist_s=0)


def test_keys_of_hosts() -> None:
    assert 'UserKnownHostsFile="/a b/100%%"' in argv(known_hosts="/a b/100%")
    assert "UserKnownHostsFile=/dev/null" in argv(host_keys="off", known_hosts="/a")
    assert "StrictHostKeyChecking=accept-new" in argv(host_keys="accept-new")


def test_a_key_that_is_named_is_the_only_one_that_is_tried() -> None:
    words = argv(identity_file="/k")
    place = words.index("-i")
    assert words[place - 2 : place + 2] == ["-o", "IdentitiesOnly=yes", "-i", "/k"]
    assert "-i" not in argv()


# ---------------------------------------------------------------- the far side's one line


def test_any_login_shell_can_read_the_line() -> None:
    line = far_command(("~/python/bin/python3",))
    assert line.count("'") == 2, "csh and fish read one pair of quotes as sh does"
    assert not set("\\!\n`") & set(line)
    assert len(line) < 2000


def test_the_line_takes_the_first_python_that_is_new_enough(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 99\n")  # what the line makes an old Python say
    old.chmod(0o755)
    broken = tmp_path / "broken"
    broken.write_text("#!/nonesuch\n")
    broken.chmod(0o755)
    line = far_command((str(broken), str(old)))
    request = {"call": "list", "mark": "m", "base": str(tmp_path), "host": "h", "pool": "p", "keep_ms": 1}
    for shell in ("sh", "bash"):
        done = subprocess.run([shell, "-c", line], input=spoken(request), capture_output=True, text=True, timeout=30)
        assert '\nm {"answer": {"workers": []' in done.stdout, done.stderr


def test_a_host_without_a_python_says_so(tmp_path: Path) -> None:
    line = re.sub(r"/usr(/local)?/bin/python3", "/nonesuch", far_command())
    done = subprocess.run(
        ["/bin/sh", "-c", line], input="", capture_output=True, text=True, timeout=30, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 127
    assert "there is no Python 3.9 or newer here" in done.stderr


@pytest.mark.parametrize("cut", [0, 10, 5000, -1, -20])
def test_half_a_request_does_nothing(tmp_path: Path, cut: int) -> None:
    request = {"call": "launch", "mark": "m", "base": str(tmp_path / "b"), "host": "h", "pool": "p", "keep_ms": 1}
    text = spoken(request)
    done = subprocess.run(
        ["/bin/sh", "-c", far_command()], input=text[:cut], capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    assert "answer" not in done.stdout
    assert not (tmp_path / "b").exists()
