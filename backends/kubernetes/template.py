"""A pod template of the user's, merged over ours: maps key by key, the lists that have names by their names, every
other list replaced; `null` takes a key away.

Which list goes by which field is the API's own rule for a strategic merge:
https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/#podspec-v1-core ("patch merge key")
Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backends.kubernetes.names import OURS

# The list under this key → the field by which its elements are told apart.
MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
}
ADDED = ("tolerations",)  # the two lists one after the other: a taint that is tolerated harms nobody


class BadTemplate(Exception):
    """What is wrong with it."""


def read(text: str) -> Mapping[str, Any]:
    """`metadata` and `spec`, as in a PodTemplate's `template` or a Pod. Raises BadTemplate."""
    import yaml

    try:
        _refuse_aliases(text)
        found = yaml.safe_load(text)
    except yaml.YAMLError as bad:
        raise BadTemplate(f"it is no YAML: {' '.join(str(bad).split())}") from None
    if not isinstance(found, Mapping):
        raise BadTemplate("it is no map with `metadata` and `spec`")
    if found.get("kind") == "PodTemplate":
        found = found.get("template") or {}
    rest = set(found) - {"apiVersion", "kind", "metadata", "spec"}
    if rest:
        raise BadTemplate(f"{sorted(map(str, rest))[0]!r} is neither `metadata` nor `spec`")
    kept = {name: found[name] for name in ("metadata", "spec") if found.get(name) is not None}
    _check(kept)
    return kept


def _refuse_aliases(text: str) -> None:
    """A few of them can stand for gigabytes, so there are none."""
    import yaml

    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise BadTemplate("it uses aliases (*name), which are not read")


def _check(found: Mapping[str, Any]) -> None:
    spec, metadata = found.get("spec", {}), found.get("metadata", {})
    if not isinstance(spec, Mapping) or not isinstance(metadata, Mapping):
        raise BadTemplate("`metadata` and `spec` are maps")
    if spec.get("restartPolicy", "Never") != "Never":
        raise BadTemplate("restartPolicy is Never: a worker is one process, and its launch is never repeated")
    owned = [key for key in metadata.get("labels") or {} if str(key).startswith(f"{OURS}/")]
    if owned:
        raise BadTemplate(f"the label {owned[0]} is how the pool is found")
    _check_lists(spec)


def _check_lists(found: Mapping[str, Any]) -> None:
    for name, value in found.items():
        field = MERGE_KEYS.get(name)
        if field and value is not None and not isinstance(value, list):
            raise BadTemplate(f"{name} is a list")
        for element in value if isinstance(value, list) else [value]:
            if field and not (isinstance(element, Mapping) and element.get(field) is not None):
                raise BadTemplate(f"an element of {name} lacks its {field}")
            if isinstance(element, Mapping):
                _check_lists(element)


def merged(ours: Any, theirs: Any, key: str = "") -> Any:
    """A new value; neither is changed."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        both = {**ours, **{name: merged(ours.get(name), value, name) for name, value in theirs.items()}}
        return {name: value for name, value in both.items() if value is not None}
    if isinstance(ours, Sequence) and isinstance(theirs, Sequence) and not isinstance(theirs, str):
        if key in ADDED:
            return [*ours, *theirs]
        if key in MERGE_KEYS:
            return _by_name(ours, theirs, MERGE_KEYS[key])
    return theirs


def _by_name(ours: Sequence[Any], theirs: Sequence[Any], field: str) -> list[Any]:
    new = {element[field]: element for element in theirs}
    kept = [merged(element, new.pop(element[field])) if element[field] in new else element for element in ours]
    return kept + list(new.values())
