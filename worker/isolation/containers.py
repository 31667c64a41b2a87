"""`docker` and `podman`: the job's command in an image, with its directory, its share of the machine and its user.

The main process of such an attempt is the engine's client: TERM goes through it to the container, and its exit status
is the command's. When the client does not end by itself, the container is removed by its name, and the attempt is not
over before. What an agent and keeper that were killed together left carries the keeper's lock file as a label: who
can lock that file knows that nobody else will remove it.

Nothing of the job's environment is in an argument: it goes by a private file.
"""

from __future__ import annotations

import fcntl
import os
import re

from worker.isolation.ways import PODMAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Sequence

LOCK_LABEL, KEEPER_LABEL = "wm.lock", "wm.keeper"
KILLED = 137  # that of a container whose main process was killed
NOT_CREATED = 125  # the client's exit status when it could not even create the container
MISSING, UNREACHABLE = "missing", "unreachable"

# $1 the client, $2 the image, $3 a file for what went wrong; then what creates and runs the container. An image that is
# here is not asked for again. What the registry says of a failed pull is the job's to read.
RUN = """
client=$1 image=$2 note=$3
shift 3
if ! "$client" image inspect "$image" >/dev/null 2>&1; then
    echo "[worker: pulling image $image]"
    if ! "$client" pull "$image" 2>"$note"; then
        cat "$note"
        exit 125
    fi
    rm -f "$note"
    echo "[worker: image $image is here]"
fi
exec "$client" "$@"
"""

# $1 the client, $2 the container, $3 a file for whether its engine saw it run out of memory, $4 how often to ask again:
# dockerd hears of that and of the container's end in two ways, and the second may be the faster.
INQUEST = """
again=$4
while "$1" inspect --format '{{.State.OOMKilled}}' "$2" >"$3" 2>/dev/null; do
    read -r told <"$3"
    if [ "$told" = true ] || [ "$again" -le 0 ]; then break; fi
    again=$((again - 1))
    sleep 0.2
done
exec "$1" rm --force --volumes "$2" >/dev/null 2>&1
"""

# What registries and engines say of an image that is not there, or not for us: asking again does not help.
_NO_SUCH_IMAGE = re.compile(
    r"manifest unknown|manifest for .* not found|name unknown|not found: manifest|repository does not exist"
    r"|pull access denied|requested access to the resource is denied|unauthorized|invalid reference format"
    r"|no matching manifest|repository name not known",
    re.IGNORECASE,
)


class Share:
    """What of the machine the container may use; 0: no limit."""

    __slots__ = ("cpus", "files", "gpus", "memory", "processes")

    def __init__(self, cpus: int, memory: int, gpus: Sequence[str], processes: int = 0, files: int = 0) -> None:
        self.cpus = cpus  # milli-CPUs
        self.memory = memory
        self.gpus = gpus
        self.processes = processes
        self.files = files


def name_of(attempt: str, keeper: str) -> str:
    """The container's. Two agents may run attempts of two hubs that are called alike."""
    return "wm-%s-%s" % (attempt.replace(".", "-"), keeper[:8])


def run(
    engine: str,
    name: str,
    image: str,
    argv: Sequence[str],
    directory: str,
    env_file: str,
    share: Share,
    user: tuple[int, int],
    network: bool,
    labels: Mapping[str, str],
    note: str,
    readable: Sequence[str] = (),
    rootless: bool = False,
    writable: Sequence[str] = (),
) -> list[str]:
    """What is started, by `sh`. `engine` is the path of the client; `rootless`: it is not root's. A container whose
    memory is limited stays until its engine was asked how it ended."""
    words = ["run", *([] if share.memory else ["--rm"]), "--pull=never", "--name", name, "--hostname", "job"]
    for label, value in sorted(labels.items()):
        words += ["--label", "%s=%s" % (label, value)]
    words += ["--user", "%d:%d" % user, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--mount", mount(directory, False), "--workdir", directory, "--env-file", env_file]
    if rootless and os.path.basename(engine) == PODMAN:
        words.append("--userns=keep-id")  # else our number would be another one's in there
    for path in (*readable, *writable):
        words += ["--mount", mount(path, path in readable)]
    words += ["--cpus", "%d.%03d" % divmod(share.cpus, 1000)] if share.cpus else []
    words += ["--memory", str(share.memory), "--memory-swap", str(share.memory)] if share.memory else []
    words += ["--pids-limit", str(share.processes)] if share.processes else []
    words += ["--ulimit", "nofile=%d:%d" % (share.files, share.files)] if share.files else []
    words += gpu_words(engine, share.gpus)
    words += [] if network else ["--network", "none"]
    # An init, because a first process that does not say what TERM does to it is deaf to it.
    words += ["--init", "--entrypoint", argv[0], image, *argv[1:]]
    return ["/bin/sh", "-c", RUN, "run", engine, image, note, *words]


def gpu_words(engine: str, gpus: Sequence[str]) -> list[str]:
    if not gpus:
        return []
    if os.path.basename(engine) == PODMAN:
        return [word for gpu in gpus for word in ("--device", "nvidia.com/gpu=" + gpu)]
    return ["--gpus", '"device=%s"' % ",".join(gpus)]


def mount(path: str, read_only: bool) -> str:
    """A field with a comma or a quote stands in quotes: it is a line of CSV."""
    fields = ["type=bind", "source=" + path, "target=" + path, *(["readonly"] if read_only else [])]
    quoted = ['"%s"' % f.replace('"', '""') if set(f) & set(',"\n') else f for f in fields]
    return ",".join(quoted)


def env_text(env: Mapping[str, str]) -> str:
    """The file for --env-file, which has no way to write a line break. Raises ValueError."""
    for name, value in env.items():
        if "\n" in value or "\r" in value:
            raise ValueError("%s holds a line break, which no container's environment can be given" % name)
    return "".join("%s=%s\n" % pair for pair in env.items())


def pull_failure(text: str) -> str:
    """Whose fault it is that the image did not come: the job's (`missing`), or of the way to it (`unreachable`)."""
    return MISSING if _NO_SUCH_IMAGE.search(text) else UNREACHABLE


def asked_again(status: int) -> int:
    """How often, of a job with this wait status that ended by itself."""
    code = status >> 8
    return 0 if not code or status & 0x7F else 5 if code == KILLED else 1


def inquire(engine: str, name: str, note: str, again: int) -> list[str]:
    """What is started for a container that was not to be removed at its end, because its engine knows how it ended."""
    return ["/bin/sh", "-c", INQUEST, "inquest", engine, name, note, str(again)]


def remove(engine: str, names: Sequence[str]) -> list[str]:
    return [engine, "rm", "--force", "--volumes", *names]


def listing(engine: str, label: str) -> list[str]:
    """All that carry the label: a line with its id and its keeper's lock for each."""
    return [engine, "ps", "--all", "--filter", "label=" + label, "--format", '{{.ID}} {{.Label "%s"}}' % LOCK_LABEL]


def all_of(lines: str) -> list[str]:
    return [line.partition(" ")[0] for line in lines.splitlines() if line]


def abandoned(lines: str) -> list[str]:
    """The ids of those whose keeper is dead: nobody holds its lock, or its directory is gone."""
    pairs = [line.partition(" ")[::2] for line in lines.splitlines()]
    return [ident for ident, lock in pairs if lock and not is_locked(lock)]


def is_locked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's: not for us to judge
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
