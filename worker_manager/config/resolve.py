"""(flags, environment, file) → Settings, or a ConfigError with every mistake at once. Pure but for secrets' files."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from backends.base import Option
from backends.options import OptionErrors, read
from worker.protocol import parse_duration
from worker_manager.config.layers import (
    Leaf,
    SinglePool,
    Tree,
    backend_leaves,
    from_file,
    global_leaves,
    pool_defaults,
)
from worker_manager.config.problems import did_you_mean, show_path, shown, what_is_wrong
from worker_manager.config.request import Catalogue, Request
from worker_manager.config.settings import Origin, Settings
from worker_manager.config.yaml_file import Document, Path
from worker_manager.errors import ConfigError


def resolve(request: Request, catalogue: Catalogue) -> Settings:
    document = request.document
    if document is not None and not isinstance(document.value, dict):
        raise ConfigError([f"{document.place(())}: write version: 1, then pools: with a list of pools"])
    tree = _merged(request, catalogue)
    problems = [*_file_problems(request), *_schema_problems(tree, document)]
    problems += _hub_problems(tree, document, request.environment)
    problems += _pool_problems(tree, document, request.environment, catalogue)
    if problems:
        raise ConfigError(sorted(dict.fromkeys(problems), key=_by_line))
    from worker_manager.config.build import build

    return build(tree, request, catalogue)


# ---------------------------------------------------------------- merging


def _merged(request: Request, catalogue: Catalogue) -> Tree:
    tree = from_file(request.document)
    if request.single is not None:
        tree.put(("pools",), [{}], _single_origin(request.single))
        for key in ("name", "backend"):
            tree.put(("pools", 0, key), getattr(request.single, key), _single_origin(request.single))
    said = list(global_leaves(request.flags, request.environment))
    for path, value, origin in said:
        if path[0] != "pool":
            tree.put(path, value, origin)
    written = tree.value.get("pools")
    for number, pool in enumerate(written if isinstance(written, list) else []):
        if isinstance(pool, dict):
            _merge_pool(tree, number, request, catalogue, [leaf for leaf in said if leaf[0][0] == "pool"])
    return tree


def _merge_pool(tree: Tree, number: int, request: Request, catalogue: Catalogue, said: Sequence[Leaf]) -> None:
    here: Path = ("pools", number)
    own = {path: origin for path, origin in tree.origins.items() if path[:2] == here}
    for path, value, origin in pool_defaults(tree, request.form, request.form_name):
        place = (*here, *path[1:])
        if not any(place[: len(path)] == path or path[: len(place)] == place for path in own):
            tree.put(place, value, origin)
    backend = catalogue.canonical(str(tree.value["pools"][number].get("backend"))) or ""
    given = request.single.given if request.single else {}
    options = catalogue.options(backend) if backend else ()
    for path, value, origin in (*said, *backend_leaves(backend, options, given, request.environment)):
        tree.put((*here, *path[1:]), value, origin)


def _single_origin(single: SinglePool) -> Origin:
    return Origin("flag", f"the command {single.backend}")


# ---------------------------------------------------------------- mistakes


def _file_problems(request: Request) -> Iterator[str]:
    document = request.document
    if document is None:
        return
    if "version" not in document.value:
        yield f"{document.place(())}: version: is missing: write version: 1"
    pools = document.value.get("pools")
    if request.needs_pools and not pools:
        yield f"{document.place(('pools',))}: pools: is missing: write a list of pools, each with name and backend"


def _schema_problems(tree: Tree, document: Document | None) -> Iterator[str]:
    from pydantic import ValidationError

    from worker_manager.config.schema import ConfigurationFile

    try:
        ConfigurationFile.model_validate(tree.value)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            path = tuple(one["loc"])
            origin = tree.origin(path)
            # A mistake in `defaults` shows in every pool as well; it is told once, where it stands.
            if path[:1] == ("pools",) and origin and _is_within(origin.where, document, ("defaults",)):
                continue
            text = what_is_wrong(one, _siblings(path))
            yield _line(origin.where if origin else _place(document, path), path, text)


def _hub_problems(tree: Tree, document: Document | None, environment: Mapping[str, str]) -> Iterator[str]:
    hub = tree.value.get("hub")
    database = hub.get("database") if isinstance(hub, dict) else None
    if isinstance(database, str):
        for _, text in _option_problems((Option("database", secret=True),), {"database": database}, environment):
            yield _line(_place(document, ("hub", "database")), ("hub", "database"), text)


def _pool_problems(
    tree: Tree, document: Document | None, environment: Mapping[str, str], catalogue: Catalogue
) -> Iterator[str]:
    pools = tree.value.get("pools")
    names: dict[str, int] = {}
    for number, pool in enumerate(pools if isinstance(pools, list) else []):
        if not isinstance(pool, dict):
            continue
        here: Path = ("pools", number)

        def at(*path: str | int, here: Path = here) -> str:
            origin = tree.origin((*here, *path))
            return origin.where if origin else _place(document, (*here, *path))

        name, backend, law = pool.get("name"), pool.get("backend"), pool.get("law", "pack")
        if isinstance(name, str) and names.setdefault(name, number) != number:
            yield _line(at("name"), (*here, "name"), f"{name} is the name of pools[{names[name]}] already")
        if isinstance(law, str) and law not in catalogue.laws():
            yield _line(
                at("law"), (*here, "law"), f"there is no law {shown(law)}; {did_you_mean(law, catalogue.laws())}"
            )
        for (low, high), text in _order_problems(pool):
            yield _line(at(*low), (*here, *low), text.format(low=show_path(low), high=show_path(high)))
        if not isinstance(backend, str):
            continue
        canonical = catalogue.canonical(backend)
        if canonical is None:
            known = catalogue.backends()
            yield _line(
                at("backend"),
                (*here, "backend"),
                f"there is no backend {shown(backend)}; {did_you_mean(backend, known)}",
            )
            continue
        options = pool.get("options") or {}
        if isinstance(options, dict):
            for option_name, text in _option_problems(catalogue.options(canonical), options, environment):
                yield _line(at("options", option_name), (*here, "options", option_name), text)


_ORDER: tuple[tuple[Path, Path, Callable[[Any], int], Any, Any], ...] = (
    (("min-workers",), ("max-workers",), int, 0, 10),
    (("limits", "backoff"), ("limits", "backoff-cap"), parse_duration, "5m", "30m"),
)


def _order_problems(pool: Mapping[str, Any]) -> Iterator[tuple[tuple[Path, Path], str]]:
    """What must not be larger than something else. What is no amount at all is told elsewhere."""
    for low, high, parse, low_default, high_default in _ORDER:
        small, large = _at(pool, low, low_default), _at(pool, high, high_default)
        try:
            wrong = parse(small) > parse(large)
        except (TypeError, ValueError):
            continue
        if wrong:
            text = f"is {small}, but {{high}} is {large}: write a {{low}} of at most {large}, or a {{high}} of at least {small}"
            yield (low, high), text


def _at(value: Any, path: Path, default: Any) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return default if value is None else value


def _option_problems(
    declared: Sequence[Option], given: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    try:
        read(declared, given, environment)
    except OptionErrors as error:
        for problem in error.problems:
            name, _, text = problem.partition(": ")
            yield name, text


def _by_line(problem: str) -> tuple[int, str]:
    found = re.match(r".*?:(\d+): ", problem)
    return (int(found.group(1)) if found else 0, problem)


def _line(where: str, path: Path, text: str) -> str:
    return f"{where}: {show_path(path)}: {text}" if path else f"{where}: {text}"


def _place(document: Document | None, path: Path) -> str:
    return document.place(path) if document else "command line"


def _is_within(where: str, document: Document | None, part: Path) -> bool:
    return document is not None and any(
        document.place(path) == where for path in document.lines if path[:1] == part and len(path) > 1
    )


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
