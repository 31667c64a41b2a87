"""A submission → what is run: without starting anything."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import Submission
from backends.local import recipe
from backends.local.records import Records
from worker.protocol import Shape

GOOD = Submission(
    id="wm-a-1",
    count=2,
    pool="pool",
    manager="wm-a",
    shape=Shape(),
    command=("/bin/sh", "-c", "exit 0", "{worker}"),
    environment={"NAME": "it's {worker}"},
    join_tokens=("canary-0", "canary-1"),
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "Upper"}, "not a name"),
        ({"id": "a/../b"}, "not a name"),
        ({"id": "-a"}, "not a name"),
        ({"id": "a" * 37}, "not a name"),
        ({"count": 0}, "1 to 64"),
        ({"count": 65}, "1 to 64"),
        ({"join_tokens": ("one",)}, "1 join tokens for 2"),
        ({"environment": {"A-B": "x"}}, "'A-B'"),
        ({"environment": {"": "x"}}, "''"),
        ({"environment": {"NAÏVE": "x"}}, "NAÏVE"),
        ({"environment": {"A": "x\0y"}}, "NUL"),
        ({"setup": ("a\0b",)}, "NUL"),
        ({"command": ()}, "no command"),
        ({"command": ("./worker",)}, "relative"),
        ({"command": ("no-such-program",)}, "not a program"),
        ({"command": ("/etc/passwd",)}, "not a program"),
    ],
)
def test_what_can_never_be_started_is_named(change: dict[str, object], says: str) -> None:
    assert says in recipe.problem(replace(GOOD, **change), 64)  # type: ignore[arg-type]


def test_a_program_that_set_up_may_bring_is_not_looked_for() -> None:
    assert recipe.problem(replace(GOOD, command=("no-such-program",), setup=("module load it",)), 64) == ""


def test_the_environment_is_what_was_given_and_a_few_names_of_ours(tmp_path: Path) -> None:
    folder = Records(tmp_path).worker("wm-a-1", 1)
    environment = recipe.environment(GOOD, folder, ("PATH", "NOT_SET_ANYWHERE"))
    assert environment == {
        "PATH": os.environ["PATH"],
        "NAME": "it's wm-a-1-1",
        "WM_JOIN_TOKEN_FILE": str(tmp_path / "wm-a-1" / "1" / "join-token"),
        "WM_WORKER": "wm-a-1-1",
        "WM_MANAGER": "wm-a",
        "WM_WORKER_DIR": str(tmp_path / "wm-a-1" / "1"),
    }


def test_nobody_can_take_our_names(tmp_path: Path) -> None:
    folder = Records(tmp_path).worker("wm-a-1", 0)
    taken = replace(GOOD, environment={"WM_WORKER_DIR": "/elsewhere", "WM_WORKER": "other"})
    environment = recipe.environment(taken, folder, ())
    assert environment["WM_WORKER_DIR"] == str(folder.path)
    assert environment["WM_WORKER"] == "wm-a-1-0"


def test_the_argv_ends_with_the_command_and_holds_no_token(tmp_path: Path) -> None:
    argv = recipe.argv(GOOD, Records(tmp_path).worker("wm-a-1", 0))
    assert argv[-4:] == ["/bin/sh", "-c", "exit 0", "wm-a-1-0"]
    assert not [word for word in argv if "canary" in word]


def test_what_is_rendered_can_be_read_back_by_a_shell(tmp_path: Path) -> None:
    text = recipe.rendered(GOOD, Records(tmp_path).worker("wm-a-1", 0), ("PATH",))
    words = shlex.split(text, comments=True)
    assert "NAME=it's wm-a-1-0" in words
    assert words[-4:] == ["/bin/sh", "-c", "exit 0", "wm-a-1-0"]
    assert os.environ["PATH"] not in text
