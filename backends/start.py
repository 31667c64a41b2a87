"""A submission → the shell script that starts one of its workers on a node that has nothing of ours.

The node needs a POSIX shell and Python ≥ 3.9. The script finds that Python, fetches the agent from the hub, holds it
against the digest that the launch named, keeps it for the next worker of this node, and becomes the agent.
Pure: text in, text out. A backend says by a Site what its platform is like.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from backends.base import AGENT, AgentFile, Submission

FETCH_SECONDS = 300  # a hub that is being restarted is waited for

# Run by the node's Python: $1 URL, $2 SHA-256, $3 seconds. Prints the file's path. No certificate is checked: nothing
# secret is sent, and only what has the digest is kept. The folder is used only when nobody else can write to it.
_FETCH = """
import hashlib, os, ssl, stat, sys, tempfile, time, urllib.request
url, digest, patience = sys.argv[1], sys.argv[2], float(sys.argv[3])
folder = os.path.join(tempfile.gettempdir(), "worker-manager-agent-%d" % os.getuid())
try:
    os.makedirs(folder, 0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError("is not ours alone")
except OSError:
    folder = tempfile.mkdtemp(prefix="worker-manager-agent-")
path = os.path.join(folder, digest + ".pyz")
def good(data):
    return hashlib.sha256(data).hexdigest() == digest
try:
    with open(path, "rb") as file:
        if good(file.read()):
            print(path)
            sys.exit(0)
except OSError:
    pass
line = ssl.create_default_context()
line.check_hostname = False
line.verify_mode = ssl.CERT_NONE
handlers = [urllib.request.HTTPSHandler(context=line)]
if url.startswith("http:"):
    handlers.append(urllib.request.ProxyHandler({}))
opener = urllib.request.build_opener(*handlers)
end, pause = time.monotonic() + patience, 0.5
while True:
    try:
        with opener.open(url, timeout=30) as reply:
            data = reply.read(64 << 20)
        if good(data):
            break
        trouble = "what came from there is not the agent that this launch named (%d bytes)" % len(data)
    except (OSError, ValueError) as error:
        trouble = str(error)
    if time.monotonic() + pause > end:
        sys.exit("wm-start: the agent cannot be fetched from %s: %s" % (url, trouble))
    print("wm-start: %s: %s; again in %.1f s" % (url, trouble, pause), file=sys.stderr, flush=True)
    time.sleep(pause)
    pause = min(pause * 2, 15)
handle, temporary = tempfile.mkstemp(dir=folder)
with os.fdopen(handle, "wb") as file:
    file.write(data)
os.replace(temporary, path)
print(path)
"""

_FIND = """wm_python=
for wm_try in %(candidates)s; do
    if "$wm_try" -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then wm_python=$wm_try; break; fi
done
if [ -z "$wm_python" ]; then
    echo "wm-start: there is no Python 3.9 or newer here (looked for: %(candidates)s)" >&2
    exit 127
fi
"""

CANDIDATES = (
    "python3",
    *(f"python3.{minor}" for minor in range(14, 8, -1)),
    "/usr/bin/python3",
    "/usr/local/bin/python3",
)


@dataclass(frozen=True)
class Site:
    """What differs between platforms, as pieces of shell. `submission` and `index` are words that the shell expands
    on the node, such as `"$WM_SUBMISSION"` or `"${SLURM_ARRAY_TASK_ID:-0}"`; left out, they are the plain values."""

    submission: str = ""
    index: str = "0"
    token: tuple[str, ...] = ()  # lines that export WM_JOIN_TOKEN_FILE or WM_JOIN_TOKEN; they may use $WM_INDEX
    python: tuple[str, ...] = ()  # looked for first
    fetch_seconds: int = FETCH_SECONDS
    agent: str = ""  # a word that names the agent's file, brought there and checked already: then nothing is fetched


def script(submission: Submission, site: Site = Site()) -> str:
    """Without a shebang. Ends by becoming the worker, so its process, signals and exit status are the worker's."""
    return "\n".join(
        (
            "umask 077",
            f"WM_INDEX={site.index}",
            f'WM_WORKER={site.submission or shlex.quote(submission.id)}-"$WM_INDEX"',
            f"WM_MANAGER={shlex.quote(submission.manager)}",
            "export WM_INDEX WM_WORKER WM_MANAGER",
            *site.token,
            *(f"export {name}={word(value)}" for name, value in submission.environment.items()),
            *_setup(submission.setup),
            *_become(submission, site),
            "",
        )
    )


def word(text: str) -> str:
    """One word of shell: the text as it is, but for `{index}` and `{worker}`, which are filled in on the node."""
    pieces = re.split(r"(\{index\}|\{worker\})", text)
    variables = {"{index}": '"$WM_INDEX"', "{worker}": '"$WM_WORKER"'}
    return "".join(variables.get(piece) or shlex.quote(piece) for piece in pieces if piece) or "''"


def finding(python: Sequence[str] = ()) -> str:
    """Lines that set `wm_python` to the first Python ≥ 3.9 of the node, or end the script."""
    candidates = " ".join(map(shlex.quote, dict.fromkeys((*python, *CANDIDATES))))
    return (_FIND % {"candidates": candidates}).rstrip("\n")


def shell(text: str, setup: Sequence[str] = ()) -> tuple[str, ...]:
    """The argv that runs a script. Set-up lines get bash where there is one, because people write them for it."""
    if not setup:
        return ("/bin/sh", "-c", text)
    return ("/bin/sh", "-c", 'exec "$(command -v bash || command -v sh)" -c "$0"', text)


def _setup(lines: Sequence[str]) -> tuple[str, ...]:
    """In this very shell, so that a module or an environment that they load holds for the worker. One that fails ends
    the start with its status; one that is no shell at all fails alone, not the script around it."""
    return ("set -e", f"eval {shlex.quote(chr(10).join(lines))}", "set +e") if lines else ()


def _become(submission: Submission, site: Site) -> tuple[str, ...]:
    program, *arguments = submission.command
    words = " ".join(map(word, arguments))
    if submission.agent is None or program != AGENT:
        return (f"exec {word(program)} {words}",)
    if site.agent:
        return (finding(site.python), f'exec "$wm_python" {site.agent} {words}')
    return (
        finding(site.python),
        f"wm_agent=$(\"$wm_python\" - {_fetch_words(submission.agent, site)} <<'WM_FETCH'{_FETCH}WM_FETCH",
        ") || exit 1",
        f'exec "$wm_python" "$wm_agent" {words}',
    )


def _fetch_words(agent: AgentFile, site: Site) -> str:
    return f"{shlex.quote(agent.url)} {shlex.quote(agent.sha256)} {site.fetch_seconds}"
