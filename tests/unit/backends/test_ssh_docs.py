"""The page about ssh says what the program does."""

import re
from pathlib import Path

from backends.ssh import OPTIONS
from backends.ssh.hosts import lines, parse
from tests.unit.cli.house import House

DOCS = Path(__file__).resolve().parents[3] / "docs" / "backends"
PAGE = (DOCS / "ssh.md").read_text()


def test_the_files_on_the_page_are_those_that_are_shipped_and_good() -> None:
    pools = DOCS / "ssh" / "pools.yaml"
    assert f"```yaml\n{pools.read_text()}```" in PAGE
    result = House().run("config", "check", str(pools))
    assert result.code == 0, result.stderr
    hosts = (DOCS / "ssh" / "hosts").read_text()
    assert f"```\n{hosts}```" in PAGE
    assert [(host.key, host.slots) for host in parse(lines(hosts), 1)] == [
        ("node01", 16),
        ("node02,2222", 16),
        ("workers@node03", 8),
        ("node04", 0),
    ]


def test_every_option_is_on_the_page_and_none_that_is_not() -> None:
    table = PAGE.partition("## What may be set")[2].partition("\n\n- **")[0]
    named = {
        name for row in re.findall(r"^\| (`--.*?) \|", table, re.MULTILINE) for name in re.findall(r"--([a-z-]+)", row)
    }
    assert named == {option.name for option in OPTIONS}
