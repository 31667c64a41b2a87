"""A container engine of a test's own, without a network, and a base image made of this machine's own Python.

No registry is needed: the root file system is a handful of programs, the libraries they are linked with, and the
standard library. Packages that are installed here become wheels again.
"""

import base64
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

PROGRAMS = ("sh", "mkdir", "chown", "chmod", "cp", "ls", "cat", "env", "sleep", "id")
_SKIPPED = {"__pycache__", "test", "tests", "idlelib", "ensurepip", "site-packages", "dist-packages", "lib2to3"}


class Engine:
    """dockerd on a socket and in folders of its own. Raises OSError or subprocess errors where it cannot run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._socket = f"unix://{root}/docker.sock"
        root.mkdir(mode=0o700, parents=True)
        command = ["dockerd", "--data-root", f"{root}/data", "--exec-root", f"{root}/exec"]
        command += ["--pidfile", f"{root}/pid", "-H", self._socket, "--iptables=false", "--ip6tables=false"]
        log = (root / "log").open("wb")
        with log:
            self._process = subprocess.Popen([*command, "--bridge=none"], stdout=log, stderr=log)
        try:
            self._until_it_answers()
        except BaseException:
            self.close()
            raise

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        while self.call("info", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError((self._root / "log").read_text()[-500:])
            time.sleep(0.05)

    def call(self, *words: str, check: bool = True, **more: Any) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            ["docker", "-H", self._socket, *words], capture_output=True, text=True, env=environment, timeout=300, **more
        )
        assert not check or done.returncode == 0, (
            f"docker {' '.join(words)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
        return done

    def take(self, archive: Path, name: str) -> None:
        self.call("import", str(archive), name)

    @property
    def host(self) -> str:
        """What DOCKER_HOST is to be."""
        return self._socket

    def close(self) -> None:
        if self._process.poll() is None:
            for id in self.call("ps", "-aq", check=False).stdout.split():
                self.call("rm", "-f", id, check=False)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for line in Path("/proc/mounts").read_text().splitlines():
            if str(self._root) in line:
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)
        with contextlib.suppress(OSError):
            shutil.rmtree(self._root)


# ---------------------------------------------------------------- a base image


def base_image(archive: Path, wheels: Iterable[Path]) -> None:
    """A root file system with a shell, Python and pip, as a tar file; able to load what is in the wheels."""
    python = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(sysconfig.get_path("stdlib"))
    programs = [Path(path) for name in PROGRAMS if (path := shutil.which(name, path="/bin:/usr/bin"))]
    with tarfile.open(archive, "w") as tar:
        for folder in (
            "bin",
            "usr/local/bin",
            "etc",
            "tmp",
            "var/tmp",
            "var/lib",
            "home",
            "root",
            "opt",
            "proc",
            "dev",
        ):
            _folder(tar, folder, 0o1777 if folder.endswith("tmp") else 0o755)
        _text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        _text(tar, "etc/group", "root:x:0:\n")
        for program in programs:
            tar.add(os.path.realpath(program), f"bin/{program.name}")
        tar.add(python, f"usr/local/bin/{version}")
        for name in ("python3", "python"):
            _link(tar, f"usr/local/bin/{name}", version)
        _link(tar, "usr/bin", "../bin")
        tar.add(standard, f"usr/local/lib/{version}", filter=_wanted)
        pip = Path(str(distribution("pip").locate_file("pip")))
        tar.add(pip, f"usr/local/lib/{version}/site-packages/pip", filter=_not_compiled)
        extensions = [*(standard / "lib-dynload").glob("*.so"), *_extensions(wheels)]
        for library in sorted(libraries([python, *programs, *extensions])):
            tar.add(os.path.realpath(library), library.lstrip("/"))


def small_image(archive: Path, *more: str) -> None:
    """A root file system with a shell and a few programs."""
    programs = [Path(path) for name in (*PROGRAMS, *more) if (path := shutil.which(name, path="/bin:/usr/bin"))]
    with tarfile.open(archive, "w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "dev"):
            _folder(tar, folder, 0o1777 if folder == "tmp" else 0o755)
        for program in programs:
            tar.add(os.path.realpath(program), f"bin/{program.name}")
        for library in sorted(libraries(programs)):
            tar.add(os.path.realpath(library), library.lstrip("/"))


def libraries(files: Iterable[Path]) -> set[str]:
    """Shared libraries of the system that these need, the loader included."""
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE))


def _extensions(wheels: Iterable[Path]) -> Iterator[Path]:
    """As they lie here, installed."""
    for wheel in wheels:
        for file in distribution(wheel.name.split("-")[0]).files or ():
            if file.name.endswith(".so") or ".so." in file.name:
                yield Path(str(file.locate()))


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    skipped = Path(entry.name).name in _SKIPPED or Path(entry.name).name.startswith("config-")
    return None if skipped else _not_compiled(entry)


def _not_compiled(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    return None if "__pycache__" in entry.name else entry


def _folder(tar: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _text(tar: tarfile.TarFile, name: str, text: str) -> None:
    import io

    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    tar.addfile(entry, io.BytesIO(text.encode()))


# ---------------------------------------------------------------- wheels of what is installed here


def pins(lock: str) -> list[tuple[str, str]]:
    """The names and versions of a requirements file."""
    return re.findall(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", lock, re.MULTILINE)


def wheel_of(name: str, folder: Path) -> Path:
    """The installed package as a wheel again."""
    found = distribution(name)
    told = found.read_text("WHEEL") or ""
    tag = re.findall(r"^Tag: (\S+)", told, re.MULTILINE)[0]
    title = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    path = folder / f"{title}-{found.version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        rows = []
        for inner, data in _contents(found):
            archive.writestr(inner, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{inner},sha256={digest},{len(data)}")
        record = next(row.partition(",")[0] for row in rows if ".dist-info/" in row).partition("/")[0] + "/RECORD"
        archive.writestr(record, "\n".join([*rows, f"{record},,"]) + "\n")
    return path


def _contents(found: Distribution) -> Iterator[tuple[str, bytes]]:
    ours = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    for file in found.files or ():
        inner = file.as_posix()
        in_dist_info = ".dist-info/" in inner and file.name in ours
        if not inner.startswith("..") and "__pycache__" not in inner and not in_dist_info:
            yield inner, Path(str(file.locate())).read_bytes()


def locked(wheel: Path) -> str:
    """Its line of a requirements file, with its hash."""
    title, version, *_ = wheel.name.split("-")
    return f"{title}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
