"""Where state may be kept. SQLite's write-ahead log needs shared memory between processes, which network file systems
do not give: a database there is damaged sooner or later, so it is refused at once."""

import re
from pathlib import Path

from worker_manager.errors import StoreError

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "lustre", "cifs", "smb3", "smbfs", "glusterfs", "ceph", "gpfs", "beegfs", "fuse.sshfs", "afs", "9p"}
)
MOUNTS = Path("/proc/mounts")


def refuse_network_file_system(folder: Path, mounts: Path = MOUNTS) -> None:
    """Raises StoreError, with what to do. A machine that lists no mounts is trusted."""
    place = folder.expanduser().resolve()
    kind = file_system_of(place, mounts.read_text()) if mounts.exists() else ""
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{folder} is on {kind}, where SQLite's write-ahead log does not work: "
            "choose a state directory on a local disk (--state-dir), or use PostgreSQL"
        )


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`, from the text of /proc/mounts; '' when it is not there."""
    best, kind = "", ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[1])
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, words[2]
    return kind
