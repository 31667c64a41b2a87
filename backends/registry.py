"""Which backends there are, by name. Nothing is imported before it is asked for, and no SDK to read options.

A backend of ours is one line in BACKENDS. One of others is an entry point in the group `worker_manager.backends`
whose name is the backend's and whose value is its module:

    [project.entry-points."worker_manager.backends"]
    my-cloud = "my_package.my_cloud"
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from backends.base import Backend, BackendUnusable, Capabilities, Context, Option
from backends.options import complete, masked, near_miss, read

GROUP = "worker_manager.backends"


@dataclass(frozen=True)
class Entry:
    module: str
    summary: str
    aliases: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # modules of its SDK
    install: str = ""  # what brings them


BACKENDS: Mapping[str, Entry] = {
    "aws-batch": Entry(
        "backends.aws_batch",
        "jobs of AWS Batch, on EC2 or Fargate",
        needs=("boto3",),
        install="pip install 'worker-manager[aws]'",
    ),
    "azure-batch": Entry(
        "backends.azure_batch",
        "tasks of an Azure Batch job",
        ("azure",),
        ("azure.batch", "azure.identity", "azure.storage.blob"),
        "pip install 'worker-manager[azure]'",
    ),
    "ec2-asg": Entry(
        "backends.ec2_asg",
        "instances of an EC2 Auto Scaling group",
        ("asg",),
        needs=("boto3",),
        install="pip install 'worker-manager[aws]'",
    ),
    "kubernetes": Entry(
        "backends.kubernetes",
        "Jobs of a Kubernetes cluster",
        ("k8s",),
        needs=("kubernetes",),
        install="pip install 'worker-manager[kubernetes]'",
    ),
    "local": Entry("backends.local", "processes on this machine"),
    "memory": Entry("backends.memory", "virtual workers in this process, for trying out and for tests", ("fake",)),
    "slurm": Entry("backends.slurm", "jobs of a Slurm cluster", ("slurm-batch",)),
    "ssh": Entry("backends.ssh", "processes on hosts that are reached by ssh"),
}


class UnknownBackend(BackendUnusable):
    """No backend has this name."""


@dataclass(frozen=True)
class Kind:
    """A backend that is loaded: what it can do and what may be set. No SDK is imported yet."""

    name: str
    entry: Entry
    options: tuple[Option, ...]
    capabilities: Capabilities

    def read(self, given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Typed values, or OptionErrors with every mistake."""
        return read(self.options, given, environment)

    def masked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return masked(self.options, values)

    def create(self, values: Mapping[str, Any], context: Context) -> Backend:
        """The backend itself, from values that `read` has typed. Raises BackendUnusable: wrong options, or an SDK
        that is not installed."""
        whole = complete(self.options, values)
        try:
            return cast(Backend, import_module(self.entry.module).create(whole, context))
        except ModuleNotFoundError as missing:
            raise _not_installed(self.name, self.entry, missing.name) from missing


@dataclass(frozen=True)
class Usable:
    """One line of the list of backends."""

    name: str
    summary: str
    ok: bool
    hint: str = ""  # the line that installs what is missing


def load(name: str, catalogue: Mapping[str, Entry] = BACKENDS) -> Kind:
    """The backend of that name or alias, its options and capabilities. Raises UnknownBackend or BackendUnusable."""
    name, entry = find(name, catalogue)
    try:
        module = import_module(entry.module)
    except ModuleNotFoundError as missing:
        raise _not_installed(name, entry, missing.name) from missing
    absent = [word for word in ("OPTIONS", "CAPABILITIES", "create") if not hasattr(module, word)]
    if absent:
        raise BackendUnusable(f"the backend {name} ({entry.module}) lacks {', '.join(absent)}")
    return Kind(name, entry, tuple(module.OPTIONS), module.CAPABILITIES)


def create(name: str, values: Mapping[str, Any], context: Context) -> Backend:
    return load(name).create(values, context)


def find(name: str, catalogue: Mapping[str, Entry] = BACKENDS) -> tuple[str, Entry]:
    """The proper name and where it is. Looks among the packages of others only when none of ours has the name."""
    if name in catalogue:
        return name, catalogue[name]
    for proper, entry in catalogue.items():
        if name in entry.aliases:
            return proper, entry
    others = third_parties()
    if name in others:
        return name, others[name]
    known = sorted({*catalogue, *others, *(alias for entry in catalogue.values() for alias in entry.aliases)})
    hint = near_miss(name, known) or f" There are: {', '.join(known)}."
    raise UnknownBackend(f"there is no backend {name!r}.{hint}")


def names(catalogue: Mapping[str, Entry] = BACKENDS) -> tuple[str, ...]:
    return tuple(sorted({*catalogue, *third_parties()}))


def usable(catalogue: Mapping[str, Entry] = BACKENDS) -> tuple[Usable, ...]:
    """Every backend, and whether what it needs is installed. Imports neither it nor its SDK."""
    everything = {**third_parties(), **catalogue}
    return tuple(_usable(name, entry) for name, entry in sorted(everything.items()))


def third_parties() -> dict[str, Entry]:
    from importlib.metadata import entry_points  # costs more than the rest of this file, and is seldom needed

    found = {}
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist else "an unknown package"
        found[point.name] = Entry(point.module, f"from the package {package}", install=f"pip install {package}")
    return found


def _usable(name: str, entry: Entry) -> Usable:
    missing = [module for module in (entry.module, *entry.needs) if not _is_there(module)]
    return Usable(name, entry.summary, not missing, _hint(entry, missing) if missing else "")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # a parent is missing
        return False


def _not_installed(name: str, entry: Entry, module: str | None) -> BackendUnusable:
    return BackendUnusable(f"the backend {name} needs {module}, which is not installed: {_hint(entry, [str(module)])}")


def _hint(entry: Entry, missing: Sequence[str]) -> str:
    return entry.install or f"install the package that has {', '.join(missing)}"
