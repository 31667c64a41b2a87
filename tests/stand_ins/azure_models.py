"""A request of Azure Batch against the official client's own models: which of its properties they do not have."""

from collections.abc import Mapping, MutableMapping
from typing import Any, get_args

from azure.batch import models


def unknown(given: Any, kind: Any, where: str = "") -> list[str]:
    """The properties that the client's model of this kind does not have, however deep."""
    if isinstance(given, list):
        return [one for item in given for one in unknown(item, kind, where)]
    if not isinstance(given, Mapping) or not isinstance(kind, type) or not issubclass(kind, MutableMapping):
        return []
    fields = {field._rest_name: name for name, field in kind({})._attr_to_rest_field.items()}
    wrong = [f"{where}.{name}" for name in given if name not in fields]
    for name in given.keys() & fields.keys():
        wrong += unknown(given[name], inner(kind, fields[name]), f"{where}.{name}")
    return wrong


def inner(kind: Any, attribute: str) -> Any:
    """The model behind Optional["_models.X"] or Optional[list["_models.X"]]."""
    annotations = {
        name: note for base in reversed(kind.__mro__) for name, note in vars(base).get("__annotations__", {}).items()
    }
    note = annotations[attribute]
    while get_args(note):
        note = get_args(note)[0]
    name = getattr(note, "__forward_arg__", note)
    return getattr(models, str(name).removeprefix("_models."), None)
