"""Files made to do harm, or only wrong: read by the commands that read files, refused at once with the place, and
nothing of them done."""

import json
import resource
import subprocess
import time
from pathlib import Path

import pytest

from tests.place import ROOT, Place

QUICK_S = 20.0  # far more than it takes on a slow machine, far less than a bomb would
MEMORY = 2 * 2**30

BOMB = "".join(
    [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else '1, 1, 1, 1, 1, 1, 1, 1, 1'}]\n" for n in range(12)]
)
MISCHIEF = {
    "python": ("version: 1\npools: !!python/object/apply:os.system ['touch {owned}']\n", ":2: tags"),
    "python-name": ("version: !!python/name:os.system\n", ":1: tags"),
    "python-module": ("version: 1\n? !!python/module:os\n: 1\n", ":2: tags"),
    "aliases": ("version: 1\n" + BOMB, "aliases"),
    "one alias": ("version: 1\nmanager: &m {{id: a}}\nhub: *m\n", ":3: aliases (*m)"),
    "merge": ("version: 1\nx: &x {{a: 1}}\nhub:\n  <<: *x\n", ":4: aliases"),
    "itself": ("version: 1\npools: &p [*p]\n", ":2: aliases"),
    "deep": ("version: 1\npools: " + "[" * 100_000 + "\n", "nested deeper than"),
    "deep blocks": ("version: 1\npools:\n" + "".join(" " * n + "- \n" for n in range(1, 600)), "nested deeper than"),
    "repeated": ("version: 1\nversion: 1\n", ":2: version is set a second time"),
    "large": ("version: 1\nx: '" + "x" * 2_000_000 + "'\n", "larger than 1 MiB"),
    "tab": ("version: 1\n\tpools: []\n", ":2: not YAML"),
    "open quote": ("version: 1\npools: 'a\n", "not YAML"),
    "several": ("version: 1\n---\nversion: 1\n", "not YAML"),
    "a list": ("- 1\n", "write"),
    "nothing": ("", "write"),
    "control": ("version: 1\nmanager: {{id: \x07}}\n", "not"),
}


@pytest.fixture(params=MISCHIEF)
def mischief(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """The file and what the refusal says."""
    text, said = MISCHIEF[request.param]
    file = tmp_path / "mischief.yaml"
    file.write_text(text.format(owned=tmp_path / "owned") if "{{" in text or "{owned}" in text else text)
    return file, said


def refused(place: Place, *words: str) -> str:
    """What it says. In little memory and time, and with nothing done."""
    began = time.monotonic()
    done = subprocess.run(
        place.command(*words),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert time.monotonic() - began < QUICK_S
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr and len(done.stderr) < 20_000
    return done.stderr


def test_a_configuration_made_to_do_harm(place: Place, mischief: tuple[Path, str]) -> None:
    file, said = mischief
    for words in (["config", "check", str(file)], ["run", "-c", str(file)]):
        told = refused(place, *words)
        assert said in told, told
        assert str(file) in told, told
    assert not (file.parent / "owned").exists()
    assert not place.state_dir.exists(), "nothing was begun"


def test_jobs_in_a_file_made_to_do_harm(place: Place, tmp_path: Path) -> None:
    place.run("hub", "start")
    right = "jobs:\n  - {command: ['true']}\n"
    for text, said in [
        (right + "  - !!python/object/apply:os.system ['touch {owned}']\n", ":3: tags"),
        (right + "  - &a {command: ['true']}\n  - *a\n", ":4: aliases"),
        (right + BOMB, "aliases"),
        (right + "  - {command: " + "[" * 50_000 + "\n", "nested deeper than"),
        (right + "  - {command: ['true'], command: ['false']}\n", ":3: command is set a second time"),
        (right + "  - 7\n", "jobs[1]: a job is an object"),
        (right + "  - {command: echo a}\n", "jobs[1]: command is a list of words"),
        ("jobs: {command: ['true']}\n", "write jobs: and a list"),
        (right + "  - {command: ['true'], priority: .nan}\n", "NaN"),
    ]:
        file = tmp_path / "jobs.yaml"
        file.write_text(text.replace("{owned}", str(tmp_path / "owned")))
        told = refused(place, "submit", "-f", str(file))
        assert said in told and (str(file) in told or said == "NaN"), told
    lines = '{"command": ["true"]}\n'
    for text, said in [
        (lines + "{\n", ":2: not JSON"),
        (lines + '["true"]\n', ":2: a job is an object"),
        (lines + '{"command": ["true"], "priority": NaN}\n', ":2: not JSON: NaN is no number"),
        (lines + '{"command": ["true"], "command": ["false"]}\n', ":2: not JSON: command is set a second time"),
        (lines + '{"command": ' + "[" * 100_000 + "\n", ":2: "),
        (lines + '{"command": ["true"], "priority": ' + "9" * 5000 + "}\n", ":2: "),
    ]:
        file = tmp_path / "jobs.jsonl"
        file.write_text(text)
        assert said in refused(place, "submit", "-f", str(file)), text[:80]
    assert not (tmp_path / "owned").exists()
    assert place.items("jobs") == [], "not even the first job, which is right"


def test_what_the_hub_refuses_of_a_file_is_told_with_its_place_and_nothing_is_submitted(
    place: Place, tmp_path: Path
) -> None:
    place.run("hub", "start")
    file = tmp_path / "jobs.jsonl"
    jobs = [
        {"command": ["true"]},
        {"command": ["true"], "resources": {"memory": "lots"}},
        {"command": ["true"], "x": 1},
    ]
    file.write_text("\n".join(map(json.dumps, jobs)))
    done = place.call("submit", "-f", str(file))
    assert done.returncode in (1, 2), done
    assert "jobs[1].resources.memory" in done.stderr and "'lots' is not a size" in done.stderr
    assert place.items("jobs") == []


@pytest.mark.parametrize("content", ["one\ntwo", "\N{EURO SIGN}\N{PILE OF POO}", "a\0b", "\x1b[2J"])
def test_a_token_file_or_a_key_that_cannot_be_one(place: Place, tmp_path: Path, content: str) -> None:
    place.run("hub", "start")
    file = tmp_path / "token"
    file.write_text(content)
    said = place.call("--token-file", str(file), "get", "jobs")
    assert said.returncode in (1, 2) and said.stderr.startswith("worker-manager: "), said
    if "\0" not in content:
        key = place.call("submit", "--idempotency-key", content, "--", "true")
        assert key.returncode in (1, 2) and key.stderr.startswith("worker-manager: "), key
    assert place.items("jobs") == []
