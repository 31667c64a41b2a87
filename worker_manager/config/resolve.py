"""(flags, environment, file) → Settings, or a ConfigError with every mistake at once. Pure but for secrets' files."""

from collections.abc import Sequence

from worker_manager.config.layers import (
    Leaf,
    SinglePool,
    Tree,
    backend_leaves,
    from_file,
    global_leaves,
    pool_defaults,
)
from worker_manager.config.mistakes import mistakes
from worker_manager.config.request import Catalogue, Request
from worker_manager.config.settings import Origin, Settings
from worker_manager.config.yaml_file import Path
from worker_manager.errors import ConfigError


def resolve(request: Request, catalogue: Catalogue) -> Settings:
    document = request.document
    if document is not None and not isinstance(document.value, dict):
        raise ConfigError([f"{document.place(())}: write version: 1, then pools: with a list of pools"])
    tree = _merged(request, catalogue)
    found = mistakes(tree, request, catalogue)
    if found:
        raise ConfigError(found)
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
