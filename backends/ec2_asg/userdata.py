"""What an instance is started with: volumes, mounts, the site's own lines, and the worker. Pure: text in, text out.

Every instance of a group gets the same, so it names no worker and holds no secret: the agent joins by the identity that
the platform vouches for. Only where the command or its environment asks for the worker's number or name does the
instance wait until its manager has tagged it.

    user data (once, as root)     volumes, mounts, boot lines; writes and enables the service
    run.sh (at every start)       waits while the instance is in store, runs the worker, then lets the instance go
"""

import base64
import gzip
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.base import Submission
from backends.start import Site, finding, script

MOST_BYTES = 16_384  # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html
HOME = "/var/lib/worker-manager"
TAG_SECONDS = 900  # for how long an instance waits to be told which worker it is

_SERVICE = """[Unit]
Description=worker of pool {pool}
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/bin/sh {home}/run.sh
Environment=HOME=/root
KillMode=mixed
TimeoutStopSec={stop}
StandardOutput=journal+console
StandardError=journal+console
[Install]
WantedBy=multi-user.target
"""


# What mounts NFS is not on every image, and mounts come before the site's own lines.
_NFS = """if ! command -v mount.nfs4 >/dev/null; then
    if command -v dnf >/dev/null; then dnf install -y nfs-utils
    elif command -v yum >/dev/null; then yum install -y nfs-utils
    else apt-get update && apt-get install -y nfs-common; fi || exit 1
fi"""


@dataclass(frozen=True)
class Mount:
    """A file system on the network: `SOURCE:TARGET[:OPTIONS]`, as `fs-0123:/jobs` or `nfs.example:/export:/jobs:ro`."""

    source: str
    target: str
    options: str

    @property
    def is_efs(self) -> bool:
        return self.source.startswith("fs-") and "/" not in self.source


class BadMount(ValueError):
    """The message says what is wrong with it."""


def read_mount(text: str) -> Mount:
    source, separator, rest = text.partition(":/")
    if separator and not source.startswith("fs-"):  # HOST:/EXPORT:/TARGET
        export, more, rest = rest.partition(":/")
        source, separator = f"{source}:/{export}", more
    target, _, options = rest.partition(":")
    if not separator or not source or not target or source.startswith(":") or " " in text or "\n" in text:
        raise BadMount(f"{text!r} is neither fs-ID:/FOLDER nor HOST:/EXPORT:/FOLDER")
    return Mount(source, f"/{target}", options or "nfsvers=4.1,hard,timeo=600,retrans=2,_netdev,nofail")


@dataclass(frozen=True)
class Machine:
    """What a person says of the instances of a pool."""

    boot: tuple[str, ...] = ()  # lines of the site, run once before everything of ours
    mounts: tuple[Mount, ...] = ()
    tmp_device: str = ""
    docker_device: str = ""
    swap: int = 0  # bytes
    leaves: bool = True  # an instance whose worker has ended ends itself
    stop_seconds: int = 120
    home: str = HOME


def user_data(submission: Submission, group: str, region: str, machine: Machine) -> str:
    run = run_script(submission, group, machine)
    service = _SERVICE.format(pool=_plain(submission.pool), home=machine.home, stop=machine.stop_seconds)
    lines = [
        "#!/bin/sh",
        f"# worker-manager: pool {_plain(submission.pool)} of manager {_plain(submission.manager)}",
        "umask 022",
        f"WM_HOME=${{WM_HOME:-{machine.home}}}; export WM_HOME",
        'mkdir -p -m 700 "$WM_HOME"',
        *_write("$WM_HOME/on_node.py", _program()),
        *_write("$WM_HOME/run.sh", run),
        *([finding()] if machine.tmp_device or machine.docker_device else []),
        *_volumes(machine, region),
        *([f"mkdir -p -- {shlex.quote(submission.work_dir)}"] if submission.work_dir else []),
        *_boot_lines(machine.boot),
        "if [ -d /run/systemd/system ]; then",
        *_write("/etc/systemd/system/worker-manager.service", service),
        "    systemctl daemon-reload",
        "    exec systemctl enable --now --no-block worker-manager.service",
        "fi",
        'exec /bin/sh "$WM_HOME/run.sh"',
    ]
    return "\n".join(lines) + "\n"


def packed(text: str) -> str:
    """As the launch template holds it: compressed where it would be too long. Raises ValueError when it still is."""
    data = text.encode()
    if len(data) > MOST_BYTES:
        data = gzip.compress(data, 9, mtime=0)
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"the user data has {len(data)} bytes even compressed; {MOST_BYTES} are possible: shorten boot and setup"
        )
    return base64.b64encode(data).decode()


def run_script(submission: Submission, group: str, machine: Machine) -> str:
    """At its end the instance is let go, unless it was told to stop: then it is being shut down anyway."""
    lines = [
        f"WM_HOME=${{WM_HOME:-{machine.home}}}",
        finding(),
        '"$wm_python" "$WM_HOME/on_node.py" await-service || exit 1',
        *_who(submission),
        "wm_stop=",
        'wm_pass_on() { wm_stop=yes; [ -z "$wm_pid" ] || kill -TERM "$wm_pid" 2>/dev/null; }',
        "wm_pid=; trap wm_pass_on TERM INT",
        *_write("$WM_HOME/worker.sh", script(submission, _site(submission))),
        f'{_shell(submission)} "$WM_HOME/worker.sh" &',
        "wm_pid=$!",
        '[ -z "$wm_stop" ] || kill -TERM "$wm_pid"',
        'while :; do wait "$wm_pid"; wm_status=$?; kill -0 "$wm_pid" 2>/dev/null || break; done',
        'echo "wm-run: the worker has ended with status $wm_status"',
    ]
    if machine.leaves:
        lines.append(f'[ -n "$wm_stop" ] || "$wm_python" "$WM_HOME/on_node.py" leave {shlex.quote(group)}')
    return "\n".join([*lines, 'exit "$wm_status"']) + "\n"


def _program() -> str:
    """Without its documentation: user data is short."""
    text = (Path(__file__).parent / "on_node.py").read_text()
    return text.partition('"""\n\n')[2] if text.startswith('"""') else text


def _who(submission: Submission) -> list[str]:
    if not _asks_who(submission):
        return []
    return [
        f'wm_worker=$("$wm_python" "$WM_HOME/on_node.py" worker {TAG_SECONDS}) || exit 1',
        "export wm_worker",
    ]


def _asks_who(submission: Submission) -> bool:
    """The agent learns it at the hub; anything else has to be told."""
    texts = [*submission.command, *submission.environment.values()]
    named = any("{index}" in text or "{worker}" in text for text in texts)
    return named or any("WM_WORKER" in line or "WM_INDEX" in line for line in submission.setup)


def _site(submission: Submission) -> Site:
    if not _asks_who(submission):
        return Site(submission='"instance"', index="0")
    return Site(submission='"${wm_worker%-*}"', index='"${wm_worker##*-}"')


def _shell(submission: Submission) -> str:
    """Set-up lines get bash where there is one, because people write them for it."""
    return '"$(command -v bash || command -v sh)"' if submission.setup else "/bin/sh"


def _volumes(machine: Machine, region: str) -> list[str]:
    lines = []
    for device, target, mode in (
        (machine.tmp_device, "/tmp", "1777"),  # noqa: S108 - the place itself
        (machine.docker_device, "/var/lib/docker", "711"),
    ):
        if device:
            lines += [
                f'wm_disk=$("$wm_python" "$WM_HOME/on_node.py" disk {shlex.quote(device)}) || exit 1',
                '[ -n "$(blkid -o value -s TYPE "$wm_disk")" ] || mkfs.ext4 -q "$wm_disk" || exit 1',
                f"mkdir -p {target}",
                f'echo "UUID=$(blkid -o value -s UUID "$wm_disk") {target} ext4 defaults,nofail 0 2" >> /etc/fstab',
                f"mount {target} && chmod {mode} {target} || exit 1",
            ]
    if machine.swap:
        lines += [
            f"fallocate -l {machine.swap} /swapfile && chmod 600 /swapfile && mkswap -q /swapfile || exit 1",
            "echo '/swapfile none swap sw,nofail 0 0' >> /etc/fstab",
            "swapon /swapfile || exit 1",
        ]
    if machine.mounts:
        lines.append(_NFS)
    for mount in machine.mounts:
        source = f"{mount.source}.efs.{region}.amazonaws.com:/" if mount.is_efs else mount.source
        fields = f"{source} {mount.target} nfs4 {mount.options} 0 0"
        lines += [
            f"mkdir -p {shlex.quote(mount.target)}",
            f"echo {shlex.quote(fields)} >> /etc/fstab",
            f"mount {shlex.quote(mount.target)} || exit 1",
        ]
    return lines


def _boot_lines(lines: Sequence[str]) -> list[str]:
    """In a shell of their own; one that fails ends the boot, because a half-made machine takes jobs and fails them."""
    if not lines:
        return []
    text = shlex.quote("\n".join(lines))
    return [
        f'"$(command -v bash || command -v sh)" -ec {text} || {{ echo "wm-boot: a boot line failed" >&2; exit 1; }}'
    ]


def _write(path: str, text: str) -> list[str]:
    """Exactly this text. The word at its end is none of its lines."""
    end = "WM_END"
    while end in text.split("\n"):
        end += "_"
    return [f"cat > \"{path}\" <<'{end}'", text.removesuffix("\n"), end]


def _plain(text: str) -> str:
    """Fit for a comment or a description: one line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
