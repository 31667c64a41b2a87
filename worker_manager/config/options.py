"""A backend's own options, checked against its declaration.

A secret never stands in a file of settings or on a command line: its value is a reference, `file:/path` or `env:NAME`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.base import Option
from worker.protocol import UnitError, parse_bytes, parse_cpus, parse_duration
from worker_manager.config.problems import did_you_mean, shown
from worker_manager.config.settings import Secret


class OptionProblem(ValueError):
    """What is wrong with one option; `name` says which."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def check_options(
    declared: Sequence[Option], given: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[OptionProblem]]:
    """Values of the declared types, defaults included, and every mistake."""
    by_name = {option.name: option for option in declared}
    problems = [
        OptionProblem(
            name, f"unknown option; {did_you_mean(name, by_name)}" if by_name else "this backend has no options"
        )
        for name in given
        if name not in by_name
    ]
    values: dict[str, Any] = {}
    for option in declared:
        if given.get(option.name) is None:
            if option.required:
                problems.append(OptionProblem(option.name, f"is missing: write {option.name}: … ({option.help})"))
            values[option.name] = option.default
            continue
        try:
            values[option.name] = _value(option, given[option.name], environment)
        except ValueError as error:
            problems.append(OptionProblem(option.name, str(error)))
    return values, problems


def _value(option: Option, raw: Any, environment: Mapping[str, str]) -> Any:
    if option.secret:
        return read_secret(option.name, raw, environment)
    value = _READERS[option.type](raw)
    if option.choices and value not in option.choices:
        raise ValueError(f"write one of {', '.join(option.choices)}, not {shown(raw)}")
    return value


def read_secret(name: str, raw: Any, environment: Mapping[str, str]) -> Secret:
    """What `file:/path` or `env:NAME` refers to. The mistake never repeats what was given: it may be the secret."""
    kind, _, where = str(raw).partition(":")
    if kind == "env" and where:
        if not environment.get(where):
            raise ValueError(f"the environment has no {where}")
        return Secret(environment[where])
    if kind == "file" and where:
        try:
            return Secret(Path(where).expanduser().read_text().strip())
        except OSError as error:
            raise ValueError(f"{where} cannot be read: {error.strerror}") from None
    raise ValueError(f"is a secret: write {name}: file:/path/of/the/secret or env:NAME, never the secret itself")


def _text(raw: Any) -> str:
    if isinstance(raw, dict | list | bool):
        raise ValueError(f"write text, not {shown(raw)}")
    return str(raw)


def _whole(raw: Any) -> int:
    try:
        if isinstance(raw, bool | float):
            raise ValueError
        return int(raw)
    except (TypeError, ValueError):
        raise ValueError(f"write a whole number, not {shown(raw)}") from None


def _number(raw: Any) -> float:
    try:
        if isinstance(raw, bool):
            raise ValueError
        return float(raw)
    except (TypeError, ValueError):
        raise ValueError(f"write a number, not {shown(raw)}") from None


def _truth(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).lower()
    if word not in ("true", "yes", "1", "false", "no", "0"):
        raise ValueError(f"write true or false, not {shown(raw)}")
    return word in ("true", "yes", "1")


def _words(raw: Any) -> list[str]:
    if isinstance(raw, str):
        return [word.strip() for word in raw.split(",") if word.strip()]
    if not isinstance(raw, list | tuple):
        raise ValueError(f"write a list, not {shown(raw)}")
    return [_text(word) for word in raw]


def _amount(parse: Callable[[Any], int]) -> Callable[[Any], int]:
    def read(raw: Any) -> int:
        try:
            return parse(raw)
        except UnitError as error:
            raise ValueError(str(error)) from None

    return read


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _whole,
    "float": _number,
    "bool": _truth,
    "bytes": _amount(parse_bytes),
    "cpus": _amount(parse_cpus),
    "duration": _amount(parse_duration),
    "path": lambda raw: str(Path(_text(raw)).expanduser()),
    "list": _words,
}
