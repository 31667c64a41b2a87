"""The documentation against the program: links lead somewhere, commands exist, examples are good, pages are whole."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.unit.cli.house import House
from tools import cli_reference
from worker import node
from worker.options import FLAGS, SWITCHES
from worker_manager.cli.main import cli, spread_words
from worker_manager.cli.world import World
from worker_manager.policy.reasons import SENTENCES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PLAIN = re.compile(r"`[^`\n]*`|^```.*?^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> Iterator[str]:
    return (text for found, text in _FENCE.findall(page.read_text()) if found == language)


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for link in _LINK.findall(_PLAIN.sub("", page.read_text())):
        target, _, part = link.partition("#")
        assert "://" not in target, f"{link}: the pages speak of this project alone"
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link}: there is no such file"
        if part:
            assert part in anchors(file), f"{link}: that page has no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())}
    decisions = DOCS / "decisions"
    pages = {page for page in DOCS.rglob("*.md") if page.parent != decisions} | {decisions / "README.md"}
    assert pages - {index} - linked == set()


# ---------------------------------------------------------------- commands


def commands(page: Path) -> Iterator[str]:
    """What is typed in the console blocks, and the whole of blocks without a prompt that begin with our program."""
    for text in blocks(page, "console"):
        joined = text.replace("\\\n", " ")
        yield from (line[2:] for line in joined.splitlines() if line.startswith(("$ ", "# ")))
    for text in blocks(page, ""):
        yield from (line for line in text.replace("\\\n", " ").splitlines() if line.startswith("worker-manager "))


def typed(line: str) -> Iterator[list[str]]:
    """The words of each call of ours in a line of shell, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    call: list[str] = []
    to_file = False
    for word in [*lexer, ";"]:
        if set(word) <= set("<>&") and set(word) & set("<>"):
            to_file = True
            if call and call[-1].isdigit():
                call.pop()
        elif set(word) <= set("|&;()"):
            yield from ours(call)
            call = []
        elif not to_file:
            call.append(word)
        else:
            to_file = False


def ours(call: list[str]) -> Iterator[list[str]]:
    words = list(itertools.dropwhile(lambda word: re.fullmatch(r"\w+=.*", word), call))
    if words and words[0].rpartition("/")[2] in ("worker-manager", "wm-worker"):
        yield words


EVERY_CALL = [
    pytest.param(call, id=f"{name}: {' '.join(call)[:60]}")
    for name in NAMES
    for line in commands(ROOT / name)
    for call in typed(line)
]


@pytest.mark.parametrize("call", EVERY_CALL)
def test_every_command_that_is_shown_parses(call: list[str]) -> None:
    program, *words = call
    if program.endswith("wm-worker"):
        if words and words[0] in node.COMMANDS:
            node.parser().parse_args(words)
            return
        known = {f"--{flag.name}" for flag in FLAGS + SWITCHES} | {"--help", "--version"}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    else:
        parsed(cli, "worker-manager", spread_words(words, {}), None)


def parsed(command: click.Command, name: str, words: list[str], parent: click.Context | None) -> None:
    """Without calling it."""
    world = World(environment={}) if parent is None else None
    try:
        ctx = command.make_context(name, list(words), parent=parent, **({"obj": world} if world else {}))
    except click.exceptions.Exit:
        return  # --help, --version
    if isinstance(command, click.Group):
        rest = [*ctx._protected_args, *ctx.args]
        if rest:
            inner_name, inner, following = command.resolve_command(ctx, rest)
            assert inner is not None
            assert inner_name is not None
            parsed(inner, inner_name, following, ctx)


def test_wrong_commands_would_be_found() -> None:
    for wrong in ("worker-manager get jbos", "worker-manager submit --cpu 2 -- true", "worker-manager --nope"):
        with pytest.raises(click.UsageError):
            test_every_command_that_is_shown_parses(next(typed(wrong)))
    assert list(typed("FOO=1 .venv/bin/worker-manager get jobs 2>&1 | head >x && worker-manager down &")) == [
        [".venv/bin/worker-manager", "get", "jobs"],
        ["worker-manager", "down"],
    ]
    assert len(EVERY_CALL) > 50


# ---------------------------------------------------------------- examples


def test_the_unit_on_the_page_is_the_one_that_is_shipped() -> None:
    [shown] = blocks(DOCS / "how-to" / "cron-and-systemd.md", "ini")
    assert shown == (DOCS / "examples" / "worker-manager.service").read_text()


def test_the_pools_on_the_page_are_those_that_are_shipped() -> None:
    whole = next(text for text in blocks(DOCS / "how-to" / "many-pools.md", "yaml") if text.startswith("version:"))
    assert whole == (DOCS / "examples" / "pools.yaml").read_text()


CONFIGURATIONS = [
    pytest.param(text, id=f"{name}: {number}")
    for name in NAMES
    for number, text in enumerate(blocks(ROOT / name, "yaml"))
    if text.startswith("version:") and name != "docs/reference/configuration.md"  # that one shows every key at once
]


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_every_configuration_that_is_shown_is_good(text: str, tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    file.write_text(text)
    result = House().run("config", "check" if "\npools:" in text else "show", str(file))
    assert result.code == 0, result.stderr


def test_every_file_of_jobs_that_is_shown_can_be_read(tmp_path: Path) -> None:
    from worker_manager.cli.inputs import is_here, source_of
    from worker_manager.cli.jobfiles import jobs_from
    from worker_manager.hub.types import Submit

    shown = [text for page in PAGES for text in blocks(page, "yaml") if text.startswith("jobs:")]
    assert shown
    for text in shown:
        file = tmp_path / "jobs.yaml"
        file.write_text(text)
        jobs = jobs_from(str(file))
        for each in (each for job in jobs for each in job.get("inputs", ()) if is_here(source_of(each))):
            each.setdefault("to", Path(each["from"]).name)
            each["from"] = "blob:" + "0" * 64  # as it is when it has been sent
        Submit.model_validate({"jobs": jobs})


# ---------------------------------------------------------------- whole


def test_every_reason_is_explained() -> None:
    page = (DOCS / "how-to" / "why-is-it-not-scaling.md").read_text()
    explained = set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))
    assert explained == set(SENTENCES)


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    assert cli_reference.PAGE.read_text() == cli_reference.text(), "run python -m tools.cli_reference"
    assert cli_reference.WORKER_PAGE.read_text() == cli_reference.worker_text(), "run python -m tools.cli_reference"
