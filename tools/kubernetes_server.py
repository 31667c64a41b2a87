"""Builds a real Kubernetes API server for the tests, from the source package that Debian has of it.

No package of Debian carries kube-apiserver or kube-controller-manager, but the source of its `kubernetes` package does.
Downloads it with apt-get, compiles the two with Debian's Go, and leaves them in a folder (default: the one in which
the tests look). As root on Debian 12; takes about ten minutes on two cores and 3 GB of disk while it runs.

    python -m tools.kubernetes_server [FOLDER]
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "worker-manager" / "kubernetes-server"
PROGRAMS = ("kube-apiserver", "kube-controller-manager")
PACKAGES = ("golang-1.19-go", "etcd-server", "etcd-client", "dpkg-dev", "make", "rsync")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")

# What the build of the source asks git for, where there is no git.
_VERSION = """KUBE_GIT_COMMIT='0'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='v1.20.2'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
"""


def main(folder: Path) -> int:
    if os.geteuid() != 0 or not SOURCES.exists():
        print("this wants root on Debian 12", file=sys.stderr)
        return 1
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    with TemporaryDirectory(prefix="kubernetes-server-", dir="/var/tmp") as temporary:
        for program in build(source(Path(temporary))):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, folder)
    print(f"built: {', '.join(str(folder / name) for name in PROGRAMS)}")
    return 0


def source(folder: Path) -> Path:
    """Unpacked and patched. The machine's own lists of packages stay as they are."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "src.sources").write_text(SOURCES.read_text().replace("Types: deb\n", "Types: deb-src\n"))
    places = {"sourcelist": folder / "src.sources", "sourceparts": "/nonexistent"}
    options = [f"-oDir::Etc::{name}={place}" for name, place in places.items()]
    options += [f"-oDir::State::lists={folder / 'lists'}"]
    subprocess.run(["apt-get", *options, "update"], cwd=folder, check=True)
    subprocess.run(["apt-get", *options, "source", "kubernetes"], cwd=folder, check=True)
    [unpacked] = [path for path in folder.glob("kubernetes-*") if path.is_dir()]
    return unpacked


def build(unpacked: Path) -> list[Path]:
    home = unpacked / ".go" / "src" / "k8s.io"
    home.mkdir(parents=True)
    (home / "kubernetes").symlink_to("../../..")
    (unpacked / "version").write_text(_VERSION)
    environment = {
        **os.environ,
        "PATH": f"/usr/lib/go-1.19/bin:{os.environ['PATH']}",
        "GOPATH": str(unpacked / ".go"),
        "GOCACHE": str(unpacked / ".cache"),
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "GOLDFLAGS": "-s -w",
        "KUBE_GIT_VERSION_FILE": str(unpacked / "version"),
    }
    what = " ".join(f"cmd/{name}" for name in PROGRAMS)
    subprocess.run(["nice", "make", f"WHAT={what}"], cwd=unpacked, check=True, env=environment)
    return [unpacked / "_output" / "bin" / name for name in PROGRAMS]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
