"""What a test needs of the machine beyond Python. Where it is missing the test skips with a line that names it; with
CI=true and root it fails, so that a test that was skipped never looks like one that passed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest

IS_ROOT = os.geteuid() == 0


def missing(what: str) -> NoReturn:
    """`what` names it and how it is had: `strace: apt-get install strace`."""
    if os.environ.get("CI") == "true" and IS_ROOT:
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")


def root() -> None:
    if not IS_ROOT:
        missing("root")


def sshd() -> None:
    """OpenSSH, both sides."""
    for program, package in (("ssh", "openssh-client"), ("sshd", "openssh-server")):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            missing(f"{program}: apt-get install {package}")


def sandbox() -> None:
    """bubblewrap, able to make a sandbox here."""
    problem = _no_sandbox()
    if problem:
        missing(problem)


@cache
def _no_sandbox() -> str:
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap: apt-get install bubblewrap"
    words = ["--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true"]
    probe = subprocess.run([program, *words], capture_output=True, text=True)
    return f"the right to make a sandbox ({probe.stderr.strip()})" if probe.returncode != 0 else ""


def strace() -> str:
    """The program, able to trace and to inject faults here."""
    found, problem = _strace()
    if problem:
        missing(problem)
    return found


@cache
def _strace() -> tuple[str, str]:
    program = shutil.which("strace")
    if program is None:
        return "", "strace: apt-get install strace"
    probe = [program, "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "/bin/true"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        return "", "the right to trace processes (ptrace)"
    return program, ""


def network_namespaces() -> None:
    """Able to make them, to join them by cables, and to drop what goes one way."""
    for program, package in (("ip", "iproute2"), ("iptables", "iptables")):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            missing(f"{program}: apt-get install {package}")
    if _no_namespaces():
        missing(_no_namespaces())


@cache
def _no_namespaces() -> str:
    name = f"wm-probe-{os.getpid()}"
    try:
        for words in (
            ["ip", "netns", "add", name],
            ["ip", "netns", "exec", name, "iptables", "-A", "INPUT", "-j", "DROP"],
        ):
            probe = subprocess.run(words, capture_output=True, text=True)
            if probe.returncode != 0:
                return f"the right to make network namespaces ({probe.stderr.strip()})"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return ""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled."""
    problem = _no_mounts()
    if problem:
        missing(problem)
    folder.mkdir(parents=True, exist_ok=True)
    _mount(folder, size).check_returncode()
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@cache
def _no_mounts() -> str:
    if not IS_ROOT:
        return "root, to mount a small tmpfs"
    with TemporaryDirectory() as probe:
        if _mount(Path(probe), "64k").returncode != 0:
            return "the right to mount a tmpfs (CAP_SYS_ADMIN)"
        subprocess.run(["umount", "-l", probe], check=True)
    return ""


def _mount(folder: Path, size: str) -> "subprocess.CompletedProcess[bytes]":
    options = f"size={size},mode=700"
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
