import pytest

from worker_manager.config.yaml_file import MAX_BYTES, read
from worker_manager.errors import ConfigError


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text, "pools.yaml")
    return caught.value.problems


def test_every_part_knows_its_line() -> None:
    document = read("version: 1\npools:\n  - name: a\n    shape:\n      cpus: 2\n", "pools.yaml")
    assert document.value == {"version": 1, "pools": [{"name": "a", "shape": {"cpus": 2}}]}
    assert document.place(("pools", 0, "shape", "cpus")) == "pools.yaml:5"
    assert document.place(("pools", 0, "shape", "not-there")) == "pools.yaml:4"
    assert document.place(()) == "pools.yaml:1"


def test_an_empty_file_is_nothing() -> None:
    assert read("", "pools.yaml").value is None


def test_dates_and_merge_keys_are_plain_text() -> None:
    assert read("a: 2026-01-01\n'<<': {b: 1}\n", "f").value == {"a": "2026-01-01", "<<": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x 1\nb: *x\n", "pools.yaml:2: aliases (*x) are not accepted: write the value again"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "pools.yaml:1: tags (tag:yaml.org,2002:python/object/apply:os.system) are not accepted: "
            "write the plain value",
        ),
        ("a: 1\nb: 2\na: 3\n", "pools.yaml:3: a is set a second time (first in line 1)"),
        ("x:\n  a: 1\n  a: 3\n", "pools.yaml:3: a is set a second time (first in line 2)"),
        ("? [a]\n: 1\n", "pools.yaml:1: a key must be a word"),
        ("[" * 40 + "]" * 40, "pools.yaml:1: nested deeper than 32 levels"),
        ("#" * (MAX_BYTES + 1), "pools.yaml: larger than 1 MiB"),
    ],
)
def test_what_a_configuration_does_not_need_is_refused(text: str, problem: str) -> None:
    assert problems(text) == (problem,)


def test_a_bomb_of_aliases_is_refused_before_it_unfolds() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]" for n in range(12)]
    found = problems("\n".join(levels))
    assert found[0] == "pools.yaml:2: aliases (*a0) are not accepted: write the value again"


def test_a_syntax_error_names_its_line() -> None:
    (problem,) = problems("a: 1\nb: [1, 2\nc: 3\n")
    assert problem.startswith("pools.yaml:3: not YAML: ")


def test_several_problems_of_form_are_told_together() -> None:
    assert len(problems("a: &x 1\nb: *x\nc: *x\nd: !t 1\n")) == 3
