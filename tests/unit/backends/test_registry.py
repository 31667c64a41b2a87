"""Which backends there are, and what is said about those that are not."""

from pathlib import Path

import pytest

from backends import registry
from backends.base import BackendUnusable, Capabilities, Context
from backends.options import OptionErrors
from backends.registry import BACKENDS, Entry

CLOUDY = {
    **BACKENDS,
    "cloudy": Entry("cloudy_backend", "a cloud", ("cl",), ("cloudy_sdk.core",), "pip install 'worker-manager[cloudy]'"),
}


def context(folder: Path) -> Context:
    return Context("m", "p", str(folder), lambda: 0)


def test_the_list_of_backends_is_sorted_and_without_doubles() -> None:
    assert list(BACKENDS) == sorted(BACKENDS)
    every = [*BACKENDS, *(alias for entry in BACKENDS.values() for alias in entry.aliases)]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_declares_itself_soundly(name: str) -> None:
    kind = registry.load(name)
    assert isinstance(kind.capabilities, Capabilities)
    assert kind.capabilities.max_batch >= 1
    assert kind.capabilities.secrets in ("file", "platform", "environment", "none")
    for option in kind.options:
        assert option.name == option.name.lower()
        assert "_" not in option.name
        assert option.help
        assert not (option.required and option.default is not None)
        assert not (option.secret and option.default is not None)
    optional = {option.name: option.default for option in kind.options if not option.required}
    if len(optional) == len(kind.options):
        assert kind.read({}) == {name: () if value is None and kind_of(kind, name) == "list" else value
                                 for name, value in optional.items()}  # fmt: skip


def kind_of(kind: registry.Kind, name: str) -> str:
    return next(option.type for option in kind.options if option.name == name)


def test_an_alias_is_the_same_backend() -> None:
    assert registry.load("fake").name == "memory"


@pytest.mark.parametrize(("name", "hint"), [("locl", "local"), ("memry", "memory"), ("LOCAL", "local"), ("", "local")])
def test_an_unknown_backend_is_an_error_that_names_near_ones(name: str, hint: str) -> None:
    with pytest.raises(registry.UnknownBackend) as unknown:
        registry.load(name)
    assert repr(name) in str(unknown.value)
    assert hint in str(unknown.value)


def test_a_missing_sdk_is_said_with_the_line_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(BackendUnusable, match=r"pip install 'worker-manager\[cloudy\]'"):
        registry.load("cl", CLOUDY)
    missing = {usable.name: usable for usable in registry.usable(CLOUDY)}
    assert not missing["cloudy"].ok
    assert missing["cloudy"].hint == "pip install 'worker-manager[cloudy]'"
    assert missing["local"].ok
    assert missing["memory"].ok


def test_options_are_read_without_the_sdk_and_create_says_what_is_missing(tmp_path: Path) -> None:
    entry = Entry("tests.unit.backends.needs_an_sdk", "", needs=("a_package_that_nobody_has",), install="pip install x")
    kind = registry.load("sdk", {"sdk": entry})
    values = kind.read({"region": "here", "key": "env:KEY"}, {"KEY": "canary"})
    assert kind.masked(values) == {"region": "here", "key": "***"}
    with pytest.raises(BackendUnusable, match="needs a_package_that_nobody_has, which is not installed: pip install x"):
        kind.create(values, context(tmp_path))
    (usable,) = [one for one in registry.usable({"sdk": entry}) if one.name == "sdk"]
    assert (usable.ok, usable.hint) == (False, "pip install x")


def test_a_module_that_is_no_backend_is_said_to_lack_what_it_lacks() -> None:
    with pytest.raises(BackendUnusable, match="OPTIONS, CAPABILITIES, create"):
        registry.load("odd", {"odd": Entry("json", "not a backend")})


def test_create_takes_typed_values_and_refuses_unknown_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionErrors, match="keep-endd"):
        registry.create("local", {"keep-endd": 1}, context(tmp_path))
    backend = registry.create("memory", {"quota": 0}, context(tmp_path))
    assert backend.list().seen == ()
