"""A mistake in a configuration as one line: where it stands, what is wrong, what to write instead."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from worker_manager.config.yaml_file import Path

_SHOWN = 60


def show_path(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict) else "{…}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?`, or all there is when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"


def what_is_wrong(error: Mapping[str, Any], siblings: Sequence[str]) -> str:
    """pydantic's complaint in our words."""
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(error['loc'][-1]), siblings)}"
    if kind == "missing":
        return f"is missing: write {error['loc'][-1]}: …"
    if kind == "literal_error":
        return f"write {context['expected']}, not {shown(given)}: this program knows no other"
    if kind.startswith("int_"):
        return f"write a whole number, not {shown(given)}"
    if kind.startswith("bool_"):
        return f"write true or false, not {shown(given)}"
    if kind == "greater_than_equal":
        return f"write a number of at least {context['ge']}, not {shown(given)}"
    if kind == "less_than_equal":
        return f"write a number of at most {context['le']}, not {shown(given)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"write keys and values under it, not {shown(given)}"
    if kind in ("tuple_type", "list_type"):
        return f"write a list, not {shown(given)}"
    if kind == "string_type":
        return f"write text, not {shown(given)}"
    return str(error["msg"])
