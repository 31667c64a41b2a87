"""Who may import whom. A room that needs more than it may have is built in the wrong place."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("worker", "backends", "worker_manager")
STDLIB = sys.stdlib_module_names

# room → (our modules it may import, third-party packages it may import). The longest matching room counts.
# "*" means everything. A module may always import its own package.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "worker.protocol": (set(), set()),
    "worker.files": (set(), set()),
    "worker": ({"worker"}, set()),
    "backends.base": ({"worker.protocol"}, set()),
    "backends": (
        {"backends.base", "backends.sound", "backends.start", "backends.tools", "backends.aws", "worker.protocol"},
        set(),
    ),
    "backends.registry": ({"backends.base", "backends.options", "backends.registry"}, set()),
    "worker_manager.errors": (set(), set()),
    "worker_manager.clock": (set(), set()),
    "worker_manager.places": ({"worker_manager.errors"}, set()),
    "worker_manager.policy": ({"worker_manager.policy", "worker.protocol"}, set()),
    "worker_manager.hub": (
        {
            "worker_manager.hub",
            "worker_manager.errors",
            "worker_manager.clock",
            "worker_manager.places",
            "worker.files",
            "worker.protocol",
        },
        {"alembic", "cryptography", "prometheus_client", "pydantic", "sqlalchemy", "starlette", "uvicorn", "structlog"},
    ),
    # An object storage is asked in one file, which is imported when the first job needs it.
    "worker_manager.hub.storages.azure": (
        {"worker_manager.hub.storages.base", "worker_manager.hub.files.names"},
        {"azure"},
    ),
    "worker_manager.hub.storages.gcs": (
        {"worker_manager.hub.storages.base", "worker_manager.hub.files.names"},
        {"google", "requests"},
    ),
    "worker_manager.hub.storages.s3": (
        {"worker_manager.hub.storages.base", "worker_manager.hub.files.names"},
        {"boto3", "botocore"},
    ),
    "worker_manager.hub_client": (
        {"worker_manager.errors", "worker.protocol"},
        {"requests", "tenacity", "urllib3"},
    ),
    "worker_manager.blob_client": (
        {"worker_manager.errors", "worker_manager.hub_client"},
        {"requests"},
    ),
    "worker_manager.sources": (
        {
            "worker_manager.sources",
            "worker_manager.policy.model",
            "worker_manager.policy.facts",
            "worker_manager.policy.reasons",
            "worker_manager.errors",
            "worker_manager.hub_client",
            "worker.protocol",
        },
        set(),
    ),
    "worker_manager.control": (
        {
            "worker_manager.control",
            "worker_manager.policy",
            "worker_manager.sources.base",
            "worker_manager.errors",
            "worker_manager.clock",
            "worker_manager.places",
            "backends.base",
            "worker.protocol",
        },
        {"sqlalchemy", "structlog"},
    ),
    "worker_manager.simulate": (
        {
            "worker_manager.simulate",
            "worker_manager.policy",
            "worker_manager.clock",
            "backends.base",
            "backends.memory",
            "worker.protocol",
        },
        set(),
    ),
    "worker_manager.config": (
        {"worker_manager", "backends", "worker.protocol"},
        {"pydantic", "yaml"},
    ),
    "worker_manager.agent_file": ({"worker_manager.hub_client", "worker_manager.hub.pyz", "backends.base"}, set()),
    "worker_manager.hub_access": (
        {
            "worker_manager.agent_file",
            "worker_manager.config",
            "worker_manager.errors",
            "worker_manager.hub",
            "worker_manager.hub_client",
            "backends.base",
            "backends.registry",
        },
        set(),
    ),
    "worker_manager.assemble": ({"worker_manager", "backends", "worker"}, {"structlog"}),
    "worker_manager.cli": (
        {"worker_manager", "backends", "worker"},
        {"click", "rich", "yaml", "structlog", "uvicorn"},
    ),
}

# Optional tools of the agent, each allowed in one file only, and never at import time.
AGENT_OPTIONAL = {"psutil", "pynvml", "obstore", "filelock"}


def modules() -> Iterator[tuple[str, Path]]:
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports_of(name: str, path: Path) -> set[str]:
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            known = {name for name, _ in ALL}
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return found


ALL = list(modules())


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def rule_for(module: str) -> tuple[str, set[str], set[str]]:
    rooms = [room for room in RULES if within(module, room)]
    assert rooms, f"{module} belongs to no room: add it to RULES, or put it where it belongs"
    room = max(rooms, key=len)
    return (room, *RULES[room])


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_a_module_imports_only_what_its_room_may(module: str, path: Path) -> None:
    if module in ("worker_manager", "worker_manager.__main__"):
        return
    room, ours, third = rule_for(module)
    own_package = ".".join(module.split(".")[:2]) if room == "backends" else room
    wrong = []
    for name in sorted(imports_of(module, path)):
        top = name.partition(".")[0]
        if top in STDLIB:
            continue
        if top in OURS:
            if not any(within(name, allowed) for allowed in {*ours, own_package}):
                wrong.append(name)
        elif room == "backends":
            continue  # a backend's own SDK; that it is imported lazily is tested below
        elif top not in third and not (room == "worker" and top in AGENT_OPTIONAL):
            wrong.append(name)
    assert not wrong, f"{module} (room {room}) may not import {', '.join(wrong)}"


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_slow_libraries_are_never_imported_at_the_top_of_agent_or_backends(module: str, path: Path) -> None:
    if not (within(module, "worker") or within(module, "backends")):
        return
    top_level = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in top_level if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in top_level if isinstance(n, ast.ImportFrom) and not n.level}
    slow = {n for n in names if n.partition(".")[0] not in STDLIB and n.partition(".")[0] not in OURS}
    assert not slow, f"{module} imports {', '.join(slow)} when it is loaded; do it where it is first used"


def test_the_policy_reads_no_clock_and_does_no_io() -> None:
    forbidden = {"time", "datetime", "os", "socket", "logging", "random", "pathlib", "threading", "subprocess"}
    for module, path in ALL:
        if within(module, "worker_manager.policy"):
            used = {name.partition(".")[0] for name in imports_of(module, path)} & forbidden
            assert not used, f"{module} imports {', '.join(used)}: `now` and every effect come from outside"
