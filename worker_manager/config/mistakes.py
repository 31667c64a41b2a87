"""Everything that is wrong with a merged configuration, as lines sorted by their place."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from backends.base import Option
from backends.options import OptionErrors, read
from worker.protocol import parse_duration
from worker_manager.config.flags import PREFIX
from worker_manager.config.layers import Tree
from worker_manager.config.problems import did_you_mean, show_path, shown, what_is_wrong
from worker_manager.config.reach import address_of
from worker_manager.config.request import Catalogue, Request
from worker_manager.config.yaml_file import Document, Path

Complaint = tuple[Path, str]  # the part of a pool that is wrong, and how

# What must not be larger than something else: (smaller, larger, how both are read, their defaults).
_ORDER: tuple[tuple[Path, Path, Callable[[Any], int], Any, Any], ...] = (
    (("min-workers",), ("max-workers",), int, 0, 10),
    (("limits", "backoff"), ("limits", "backoff-cap"), parse_duration, "5m", "30m"),
)


def mistakes(tree: Tree, request: Request, catalogue: Catalogue) -> list[str]:
    found = [*_of_the_file(request), *_of_the_schema(tree, request.document), *_of_the_hub(tree, request)]
    pools = tree.value.get("pools")
    names: dict[str, int] = {}
    for number, pool in enumerate(pools if isinstance(pools, list) else []):
        if isinstance(pool, dict):
            here: Path = ("pools", number)
            for part, text in _of_a_pool(pool, number, names, tree, request, catalogue):
                found.append(_line(_where(tree, request.document, (*here, *part)), (*here, *part), text))
    return sorted(dict.fromkeys(found), key=_by_line)


def _of_the_file(request: Request) -> Iterator[str]:
    document = request.document
    if document is None:
        return
    if "version" not in document.value:
        yield f"{document.place(())}: version: is missing: write version: 1"
    if request.needs_pools and not document.value.get("pools"):
        yield f"{document.place(('pools',))}: pools: is missing: write a list of pools, each with name and backend"


def _of_the_schema(tree: Tree, document: Document | None) -> Iterator[str]:
    from pydantic import ValidationError

    from worker_manager.config.schema import ConfigurationFile

    try:
        ConfigurationFile.model_validate(tree.value)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            path = tuple(one["loc"])
            origin = tree.origin(path)
            # A mistake in `defaults` shows in every pool as well; it is told once, where it stands.
            if path[:1] == ("pools",) and origin and _stands_in(origin.where, document, "defaults"):
                continue
            yield _line(_where(tree, document, path), path, what_is_wrong(one, _siblings(path)))


def _of_the_hub(tree: Tree, request: Request) -> Iterator[str]:
    hub = tree.value.get("hub")
    hub = hub if isinstance(hub, dict) else {}
    database = hub.get("database")
    if isinstance(database, str):
        declared = (Option("database", secret=True),)
        for _, text in _of_options(declared, {"database": database}, request.environment):
            path: Path = ("hub", "database")
            yield _line(_where(tree, request.document, path), path, text)
    url = hub.get("advertise-url")
    if isinstance(url, str):
        try:
            address_of(url, behind_proxy=str(hub.get("behind-proxy")).lower() in ("true", "yes", "on", "1"))
        except ValueError as wrong:
            path = ("hub", "advertise-url")
            yield _line(_where(tree, request.document, path), path, str(wrong))


def _of_a_pool(
    pool: Mapping[str, Any],
    number: int,
    names: dict[str, int],
    tree: Tree,
    request: Request,
    catalogue: Catalogue,
) -> Iterator[Complaint]:
    name, backend, law = pool.get("name"), pool.get("backend"), pool.get("law", "pack")
    if isinstance(name, str) and names.setdefault(name, number) != number:
        yield ("name",), f"{name} is the name of pools[{names[name]}] already"
    if isinstance(law, str) and law not in catalogue.laws():
        yield ("law",), f"there is no law {shown(law)}; {did_you_mean(law, catalogue.laws())}"
    elif isinstance(law, str):
        yield from _of_law_options(law, pool.get("law-options"), catalogue)
    yield from _of_order(pool, number, tree)
    if not isinstance(backend, str):
        return
    canonical = catalogue.canonical(backend)
    if canonical is None:
        yield ("backend",), f"there is no backend {shown(backend)}; {did_you_mean(backend, catalogue.backends())}"
        return
    options = pool.get("options") or {}
    if isinstance(options, dict):
        for option, text in _of_options(catalogue.options(canonical), options, request.environment):
            yield ("options", option), text


def _of_law_options(law: str, options: Any, catalogue: Catalogue) -> Iterator[Complaint]:
    known = catalogue.law_options(law)
    for name, value in options.items() if isinstance(options, dict) else ():
        place = ("law-options", str(name))
        if name not in known:
            hint = did_you_mean(str(name), known) if known else "it has none at all"
            yield place, f"the law {law} has no such option; {hint}"
        elif type(value) is not int or value < 1:
            yield place, f"write a whole number of at least 1, not {shown(value)}"


def _of_order(pool: Mapping[str, Any], number: int, tree: Tree) -> Iterator[Complaint]:
    """What is no amount at all is told by the schema."""
    for low, high, parse, low_default, high_default in _ORDER:
        small, large = _at(pool, low, low_default), _at(pool, high, high_default)
        try:
            wrong = parse(small) > parse(large)
        except (TypeError, ValueError):
            continue
        if wrong:
            least, most = show_path(low), show_path(high)
            said = tree.origin(("pools", number, *low))
            # A default is nobody's mistake: then the other one is shown.
            yield (
                low if said is not None and said.kind != "default" else high,
                (
                    f"{least} is {small} and {most} is {large}: "
                    f"write a {least} of at most {large}, or a {most} of at least {small}"
                ),
            )


def _of_options(
    declared: Sequence[Option], given: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    try:
        read(declared, given, environment)
    except OptionErrors as error:
        for problem in error.problems:
            name, _, text = problem.partition(": ")
            yield name, text


# ---------------------------------------------------------------- places


def _where(tree: Tree, document: Document | None, path: Path) -> str:
    origin = tree.origin(path)
    missing = path not in tree.origins
    if document and (origin is None or (missing and origin.kind == "file")):
        return document.place(path)
    return origin.where if origin else "command line"


def _line(where: str, path: Path, text: str) -> str:
    """A flag or a variable names itself; a line of a file holds several keys."""
    itself = where.startswith(("--", PREFIX))
    return f"{where}: {text}" if itself or not path else f"{where}: {show_path(path)}: {text}"


def _by_line(problem: str) -> tuple[int, str]:
    found = re.match(r".*?:(\d+): ", problem)
    return (int(found.group(1)) if found else 0, problem)


def _stands_in(where: str, document: Document | None, part: str) -> bool:
    return document is not None and any(
        document.place(path) == where for path in document.lines if path[:1] == (part,) and len(path) > 1
    )


def _at(value: Any, path: Path, default: Any) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return default if value is None else value


def _siblings(path: Path) -> list[str]:
    """The keys known where `path` stands, by their names in the file."""
    from worker_manager.config import schema

    model: Any = schema.ConfigurationFile
    for part in path[:-1]:
        if isinstance(part, int):
            model = schema.PoolPart
            continue
        for field_name, info in getattr(model, "model_fields", {}).items():
            if (info.alias or field_name) == part and isinstance(info.annotation, type):
                model = info.annotation
    return [info.alias or name for name, info in getattr(model, "model_fields", {}).items()]
