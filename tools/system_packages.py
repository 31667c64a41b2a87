"""Installs the system packages that tests use, where it may; says which are missing where it may not.

As root with apt: installs. Otherwise a line for each missing one, and its tests skip with the same name.
With CI=true and root, a package that cannot be had is a failure: a skipped test must not look like a passed one.
"""

import os
import shutil
import subprocess
import sys

# program → (Debian package, what is tested with it)
NEEDED = {
    "slurmctld": ("slurmctld", "a real Slurm cluster"),
    "slurmd": ("slurmd", "a real Slurm cluster"),
    "slurmdbd": ("slurmdbd", "Slurm's accounting"),
    "mariadbd": ("mariadb-server", "Slurm's accounting"),
    "dockerd": ("docker.io", "the container images"),
    "ssh": ("openssh-client", "workers on hosts"),
    "sshd": ("openssh-server", "workers on hosts"),
    "bwrap": ("bubblewrap", "jobs in a sandbox"),
    "podman": ("podman", "jobs in containers"),
    "catatonit": ("catatonit", "jobs in containers of podman"),
    "ip": ("iproute2", "workers that are cut off"),
    "iptables": ("iptables", "workers that are cut off in one direction"),
    "strace": ("strace", "crash points and failing system calls"),
}


def missing() -> dict[str, tuple[str, str]]:
    return {program: entry for program, entry in NEEDED.items() if shutil.which(program) is None}


def install(packages: list[str]) -> None:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update"], check=False, env=environment, **quiet)
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    subprocess.run(command, check=False, env=environment, **quiet)


def main() -> int:
    wanted = missing()
    is_root = os.geteuid() == 0
    if wanted and is_root and shutil.which("apt-get"):
        install([package for package, _ in wanted.values()])
    left = missing()
    for program, (package, use) in left.items():
        print(f"not installed: {program} ({use}); its tests skip. Install it with: apt-get install {package}")
    return 1 if left and is_root and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
