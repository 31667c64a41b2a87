"""The values a person gave for a backend's options: read by type, all mistakes named at once, secrets masked.

`registry.py` uses it for every backend, so a backend's `create` gets typed values and no strings to parse.
The default of an option is a value as `create` gets it (a duration in ms, a size in bytes), never a text to read.
A secret is given by reference, `env:NAME` or `file:PATH`, and is read into a Secret, which never shows itself.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from backends.base import BackendUnusable, Option
from worker.protocol import UnitError, parse_bytes, parse_cpus, parse_duration

MASK = "***"


class OptionErrors(BackendUnusable):
    """One line for each mistake, with the option's name."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Secret(str):
    """A text that is never shown: its representation is a mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def read(
    options: Sequence[Option], given: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Typed values by name, defaults filled in. None counts as not given. Raises OptionErrors with every mistake."""
    environment = os.environ if environment is None else environment
    known = {option.name: option for option in options}
    said = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    problems = [_unknown(name, known) for name in said if name not in known]
    values = {}
    for name, option in known.items():
        if name in said:
            try:
                values[name] = _typed(option, said[name], environment)
            except ValueError as wrong:
                problems.append(f"{name}: {wrong}")
        elif option.required:
            problems.append(_missing(option))
        else:
            values[name] = _default(option)
    if problems:
        raise OptionErrors(problems)
    return values


def complete(options: Sequence[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are typed already, with defaults for those not there. Raises OptionErrors."""
    known = {option.name: option for option in options}
    problems = [_unknown(name, known) for name in values if name not in known]
    problems += [_missing(option) for option in options if option.required and values.get(option.name) is None]
    if problems:
        raise OptionErrors(problems)
    return {name: _default(option) if values.get(name) is None else values[name] for name, option in known.items()}


def masked(options: Sequence[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, fit to be shown."""
    secrets = {option.name for option in options if option.secret}
    return {
        name: MASK if value is not None and (name in secrets or isinstance(value, Secret)) else value
        for name, value in values.items()
    }


def near_miss(name: str, known: Sequence[str]) -> str:
    """` Did you mean …?`, or nothing when nothing is near."""
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _unknown(name: str, known: Mapping[str, Option]) -> str:
    hint = near_miss(name, tuple(known)) or f" There are: {', '.join(sorted(known)) or 'none'}."
    return f"{name}: is not an option of this backend.{hint}"


def _missing(option: Option) -> str:
    return f"{option.name}: is required{f' ({option.help})' if option.help else ''}"


def _default(option: Option) -> Any:
    return () if option.type == "list" and option.default is None else option.default


def _typed(option: Option, value: Any, environment: Mapping[str, str]) -> Any:
    if option.secret:
        return _read_secret(value, environment)
    read_one = _READERS.get(option.type)
    if read_one is None:
        raise ValueError(f"has the type {option.type!r}, which is none of {', '.join(_READERS)}")
    typed = read_one(value)
    for item in typed if option.type == "list" else (typed,):
        if option.choices and item not in option.choices:
            raise ValueError(f"{item!r} is none of {', '.join(option.choices)}.{near_miss(str(item), option.choices)}")
    return typed


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a text; write it in quotes")
    if "\0" in str(value):
        raise ValueError("holds a NUL character")
    return str(value)


def _int(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool | float) or not text.removeprefix("-").isdecimal() or not text.isascii():
        raise ValueError(f"{value!r} is not a whole number")
    return int(text)


def _float(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not abs(number) < float("inf"):
        raise ValueError(f"{value!r} is not a number")
    return number


def _bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return words[str(value).lower()]


def _amount(parse: Callable[[Any], int]) -> Callable[[Any], int]:
    def read_amount(value: Any) -> int:
        if not isinstance(value, str | int | float):
            raise UnitError(f"{value!r} is not an amount")
        return parse(value)

    return read_amount


def _path(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("is an empty path")
    return str(Path(text).expanduser())


def _list(value: Any) -> tuple[str, ...]:
    """A YAML list, a flag given several times, or one text with commas (an environment variable)."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if not isinstance(value, Sequence):
        raise ValueError(f"{value!r} is not a list")
    return tuple(_text(item) for item in value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "bytes": _amount(parse_bytes),
    "cpus": _amount(parse_cpus),
    "duration": _amount(parse_duration),
    "path": _path,
    "list": _list,
}


def _read_secret(reference: Any, environment: Mapping[str, str]) -> Secret:
    """What the reference points to. The error never repeats what was given: it may be the secret itself."""
    kind, _, where = str(reference).partition(":")
    if kind == "env" and where:
        if not environment.get(where):
            raise ValueError(f"the environment variable {where} is not set")
        return Secret(environment[where])
    if kind == "file" and where:
        return _secret_in(Path(where).expanduser())
    raise ValueError("is a secret: write env:NAME or file:PATH, so that it stands in no command line or file")


def _secret_in(path: Path) -> Secret:
    try:
        text = path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as failed:
        raise ValueError(f"the file {path} cannot be read: {getattr(failed, 'strerror', 'it is no text')}") from None
    if not text:
        raise ValueError(f"the file {path} is empty")
    return Secret(text)
