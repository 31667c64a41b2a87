"""Reading what a person gave for a backend's options."""

from pathlib import Path

import pytest

from backends.base import Option
from backends.options import MASK, OptionErrors, Secret, complete, masked, read

OPTIONS = (
    Option("queue", "str", required=True, help="the job queue"),
    Option("region", choices=("us-east-1", "eu-west-1"), default="us-east-1"),
    Option("retries", "int", 3),
    Option("share", "float", 0.5),
    Option("spot", "bool", False),
    Option("disk", "bytes", 10**9),
    Option("slice", "cpus", 1000),
    Option("wait", "duration", 60_000),
    Option("folder", "path"),
    Option("subnets", "list"),
    Option("key", secret=True),
)


def problems(given: dict[str, object], environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(OptionErrors) as wrong:
        read(OPTIONS, given, environment or {})
    return wrong.value.problems


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("queue", 5, "5"),
        ("region", "eu-west-1", "eu-west-1"),
        ("retries", "7", 7),
        ("retries", -1, -1),
        ("share", "0.25", 0.25),
        ("spot", "yes", True),
        ("spot", False, False),
        ("disk", "2GiB", 2 * 2**30),
        ("disk", 17, 17),
        ("slice", "1.5", 1500),
        ("wait", "1h30m", 5_400_000),
        ("wait", 90, 90_000),
        ("folder", "~/x", str(Path("~/x").expanduser())),
        ("subnets", "a, b,,c", ("a", "b", "c")),
        ("subnets", ["a,b", "c"], ("a,b", "c")),
    ],
)
def test_a_value_is_read_by_its_type(name: str, given: object, value: object) -> None:
    assert read(OPTIONS, {"queue": "q", name: given}, {})[name] == value


def test_what_is_not_given_is_the_default_as_it_stands() -> None:
    values = read(OPTIONS, {"queue": "q", "region": None}, {})
    assert values["wait"] == 60_000
    assert values["region"] == "us-east-1"
    assert values["folder"] is None
    assert values["subnets"] == ()


def test_underscores_are_dashes() -> None:
    assert complete((Option("job-queue"),), read((Option("job-queue"),), {"job_queue": "q"}, {})) == {"job-queue": "q"}


def test_every_mistake_is_named_at_once() -> None:
    found = problems({"regoin": "x", "region": "us-east-2", "retries": "3.5", "disk": "5 MiBs", "wait": True})
    assert [line.partition(":")[0] for line in found] == ["regoin", "queue", "region", "retries", "disk", "wait"]
    assert "Did you mean region?" in found[0]
    assert "the job queue" in found[1]
    assert "us-east-1" in found[2]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("retries", True),
        ("retries", 2.0),
        ("retries", "١"),  # a digit, but none of ours
        ("share", "nan"),
        ("share", "inf"),
        ("share", []),
        ("spot", "perhaps"),
        ("disk", [1]),
        ("slice", "2 GiB"),
        ("wait", "3 fortnights"),
        ("queue", ["a"]),
        ("queue", {"a": 1}),
        ("queue", "a\0b"),
        ("folder", ""),
        ("subnets", 5),
        ("subnets", [["nested"]]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name: str, given: object) -> None:
    (line,) = problems({"queue": "q"} | {name: given})
    assert line.startswith(f"{name}: ")


def test_a_secret_is_read_from_where_it_stands_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("canary-file\n")
    for reference, plain in (("env:KEY", "canary-env"), (f"file:{file}", "canary-file")):
        values = read(OPTIONS, {"queue": "q", "key": reference}, {"KEY": "canary-env"})
        assert values["key"] == plain
        assert isinstance(values["key"], Secret)
        assert "canary" not in repr(values)
        assert masked(OPTIONS, values)["key"] == MASK
        assert masked(OPTIONS, values)["queue"] == "q"


@pytest.mark.parametrize("given", ["canary", "env:", "env:ABSENT", "file:/nonesuch", "https:canary", ""])
def test_a_secret_given_otherwise_is_refused_without_repeating_it(given: str) -> None:
    (line,) = problems({"queue": "q", "key": given})
    assert line.startswith("key: ")
    assert "canary" not in line


def test_an_empty_secret_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    assert "is empty" in problems({"queue": "q", "key": f"file:{tmp_path / 'key'}"})[0]


def test_values_that_are_typed_already_are_not_read_again() -> None:
    whole = complete(OPTIONS, {"queue": "q", "wait": 5000})
    assert whole["wait"] == 5000
    assert whole["retries"] == 3
    with pytest.raises(OptionErrors, match=r"wiat: .*Did you mean wait\?\nqueue: is required"):
        complete(OPTIONS, {"wiat": 1})
