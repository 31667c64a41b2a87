"""The global options: name, type, meaning, and their place in the schema.

CodaLab's worker manager has most of these names, and they keep its meaning and its defaults, so that an existing
command line goes on working. What has no meaning here is accepted and said so (`note`). Each is a variable too:
`--max-workers` is `WORKER_MANAGER_MAX_WORKERS`. Nothing but the standard library is imported: the help needs this.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

PREFIX = "WORKER_MANAGER_"


@dataclass(frozen=True, slots=True)
class Flag:
    name: str
    place: tuple[str, ...]  # in the schema; begins with `pool` for what belongs to a pool; empty: see `note`
    help: str
    kind: str = "text"  # text | int | number | switch | off-switch | words | size (CodaLab's 10g)
    codalab: str = ""  # the default that a single pool has for CodaLab's sake, as text
    note: str = ""

    @property
    def variable(self) -> str:
        return variable(self.name)

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


def variable(*names: str) -> str:
    return PREFIX + "_".join(names).upper().replace("-", "_").replace(".", "_")


def _unused(name: str, note: str, kind: str = "text") -> Flag:
    return Flag(name, (), "Accepted for CodaLab's command lines.", kind, note=note)


CONNECTION: tuple[Flag, ...] = (
    Flag("server", ("hub", "server"), "URL of the hub; without it, the embedded hub of the state directory."),
    Flag("token-file", ("hub", "token-file"), "File that holds the token for the hub."),
    Flag("ca", ("hub", "ca"), "File with the authority that signed the hub's certificate."),
    Flag("fingerprint", ("hub", "fingerprint"), "SHA-256 of the hub's certificate, instead of an authority."),
    Flag(
        "advertise-url",
        ("hub", "advertise-url"),
        "Where workers on other machines reach the hub that is started here, such as https://login1.example:8443. It "
        "then listens there, with a certificate of its own.",
    ),
    Flag(
        "state-dir",
        ("manager", "state-dir"),
        "Where manager and embedded hub keep their data (a local disk). Default: ~/.local/state/worker-manager.",
    ),
)

POOL: tuple[Flag, ...] = (
    Flag("min-workers", ("pool", "min-workers"), "Workers kept at all times.", "int", codalab="1"),
    Flag("max-workers", ("pool", "max-workers"), "Workers at most.", "int", codalab="10"),
    Flag(
        "min-seconds-between-workers",
        ("pool", "limits", "cooldown-up"),
        "Seconds between two launches, but from zero and below the minimum at once.",
        "number",
        codalab="60",
    ),
    Flag(
        "law",
        ("pool", "law"),
        "How many workers a backlog wants: pack, step (one at a time, as CodaLab), backlog or idle.",
    ),
    Flag("queue", ("pool", "queues"), "Serve only this queue (repeatable).", "words"),
    Flag(
        "owner",
        ("pool", "owners"),
        "Serve this owner's jobs, * everyone's (repeatable; default: the manager's own).",
        "words",
    ),
    Flag(
        "stabilise-seconds",
        ("pool", "limits", "stabilise"),
        "A worker goes only when it was not wanted for this long.",
        "number",
    ),
    Flag("worker-tag", ("pool", "shape", "tags"), "Tag that the workers offer (repeatable).", "words"),
    Flag("worker-tag-exclusive", ("pool", "shape", "exclusive"), "Run only jobs that ask for the tag.", "switch"),
    Flag(
        "worker-work-dir-prefix",
        ("pool", "worker", "work-dir"),
        "Folder in which each worker makes its work directory.",
    ),
    Flag(
        "worker-delete-work-dir-on-exit",
        ("pool", "worker", "delete-work-dir"),
        "Remove the work directory when a worker exits.",
        "switch",
    ),
    Flag(
        "worker-idle-seconds",
        ("pool", "limits", "idle"),
        "A worker idle for this long, and not wanted, goes.",
        "number",
        codalab="600",
    ),
    Flag("worker-exit-after-num-runs", ("pool", "worker", "max-runs"), "A worker exits after this many jobs.", "int"),
    Flag(
        "worker-max-work-dir-size",
        ("pool", "worker", "max-work-dir-size"),
        "Disk that a worker offers to jobs at most, such as 10GiB.",
        "size",
    ),
    Flag(
        "worker-cache-dir",
        ("pool", "worker", "cache-dir"),
        "Where workers keep inputs for other jobs; those that name the same folder share it.",
    ),
    Flag(
        "worker-cache-size",
        ("pool", "worker", "cache-size"),
        "How much is kept there at most, such as 200GiB (default: a quarter of its disk).",
        "size",
    ),
    Flag("worker-no-cache", ("pool", "worker", "no-cache"), "Keep no inputs: each job fetches its own.", "switch"),
    Flag(
        "worker-input-path",
        ("pool", "worker", "input-path"),
        "Folder of the workers' machines from which jobs may take inputs (repeatable).",
        "words",
    ),
    Flag(
        "worker-transfers", ("pool", "worker", "transfers"), "How many files of jobs a worker moves at a time.", "int"
    ),
    Flag(
        "worker-pass-down-termination",
        ("pool", "worker", "pass-down-termination"),
        "A worker that is told to end ends its jobs at once and gives them back.",
        "switch",
    ),
    Flag(
        "worker-exit-on-exception",
        ("pool", "worker", "exit-on-exception"),
        "A worker exits on an error of its own instead of going on.",
        "switch",
    ),
    Flag(
        "worker-checkin-frequency-seconds",
        ("pool", "worker", "checkin"),
        "A worker gives a sign of life at least this often.",
        "number",
    ),
    Flag(
        "worker-share",
        ("pool", "worker", "share"),
        "Workers of one machine share it: each offers what the others' jobs leave.",
        "switch",
    ),
    Flag(
        "worker-executable",
        ("pool", "worker", "executable"),
        "Command that starts the agent, instead of the one that belongs to this program.",
    ),
)

MANAGER: tuple[Flag, ...] = (
    Flag("manager", ("manager", "id"), "Name of this manager; one ledger and one lease each. Default: main."),
    Flag(
        "sleep-time",
        ("manager", "tick"),
        "Seconds between two looks at most; events come through at once.",
        "number",
        codalab="5",
    ),
    Flag(
        "storage",
        ("hub", "storages"),
        "Below s3://bucket/prefix (or az://, gs://) the hub that is started here lets jobs take and keep files "
        "(repeatable).",
        "words",
    ),
    Flag("restart-after-seconds", ("manager", "restart-after"), "Start the program anew after this long.", "number"),
)

UNUSED: tuple[Flag, ...] = (
    _unused("temp-session", "the token is read from --token-file; there is no session to keep", "off-switch"),
    _unused("search", "jobs are chosen by --queue, --owner and --worker-tag", "words"),
    _unused(
        "no-prefilter", "every job group is compared with every pool's shape; explain shows which fit nowhere", "switch"
    ),
    _unused("worker-group", "there are no worker groups; --owner says whose jobs the pool serves"),
    _unused(
        "worker-preemptible", "jobs of a lost worker always go back to the queue, without spending a retry", "switch"
    ),
    _unused("worker-download-dependencies-max-retries", "a job that fails is tried again as its --retries say"),
    _unused("worker-shared-memory-size-gb", "jobs run as plain processes, with the machine's shared memory"),
)

# What CodaLab's own backends take besides, after the backend's name.
UNUSED_OF: Mapping[str, tuple[Flag, ...]] = {
    "slurm": (
        _unused("user", "the token is read from --token-file; a worker gets one of its own, good for one registration"),
        _unused("password-file", "the token is read from --token-file"),
        _unused("exit-after-num-failed", "after ten failed starts one is tried at a time (limits: breaker-after)"),
    ),
    "kubernetes": (_unused("bundle-runtime", "jobs run as plain processes of the worker"),),
}

GLOBAL: tuple[Flag, ...] = (*CONNECTION, *POOL, *MANAGER, *UNUSED)


def by_key() -> Mapping[str, Flag]:
    return {flag.key: flag for flag in GLOBAL}


# The resources of a backend's workers; they stand after the backend's name, as CodaLab has them.
SHAPE: tuple[Flag, ...] = (
    Flag("cpus", ("pool", "shape", "cpus"), "CPUs of a worker.", codalab="1"),
    Flag("gpus", ("pool", "shape", "gpus"), "GPUs of a worker.", "int", codalab="0"),
    Flag("memory-mb", ("pool", "shape", "memory"), "Memory of a worker in MiB.", "mib", codalab="2048"),
    Flag("memory", ("pool", "shape", "memory"), "The same with a unit, such as 64GiB."),
    Flag("gpu-type", ("pool", "shape", "gpu-type"), "Type of those GPUs."),
    Flag("disk", ("pool", "shape", "disk"), "Disk of a worker, such as 100GiB."),
    Flag("walltime", ("pool", "shape", "walltime"), "How long a worker may live, such as 10h."),
)


def notes_for(given: Mapping[str, object], flags: Iterable[Flag] = UNUSED) -> Iterator[str]:
    """One line for each given option that means nothing here."""
    for flag in flags:
        if flag.key in given:
            yield f"--{flag.name} has no effect here: {flag.note}"
