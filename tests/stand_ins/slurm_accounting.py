"""Accounting for a cluster of tests: a MariaDB of its own, and slurmdbd between it and the controller."""

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from tests import needs

if TYPE_CHECKING:
    from tests.stand_ins.slurm import SlurmCluster

_SBIN = ("/usr/sbin", "/sbin")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])

_CONF = """
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
DbdHost=localhost
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
CommitDelay=1
"""


@dataclass
class Accounting:
    """A database server; `serve` puts slurmdbd of one cluster in front of it."""

    root: Path
    database: int
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def lines(self, cluster: "SlurmCluster") -> tuple[str, ...]:
        """For slurm.conf."""
        return (
            f"AccountingStoragePass={cluster.root}/munge.sock",
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={self.port}",
            "AccountingStorageEnforce=associations,limits,qos",
        )

    def start(self) -> None:
        data = self.root / "data"
        user = pwd.getpwuid(os.getuid()).pw_name
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={user}", "--skip-test-db"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "PATH": _PATH}
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, env=environment, **quiet)
        words = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={self.root}/db.sock", f"--user={user}"]
        words += ["--bind-address=127.0.0.1", f"--port={self.database}", "--innodb-flush-log-at-trx-commit=0"]
        words += ["--innodb-buffer-pool-size=32M", f"--pid-file={self.root}/db.pid"]
        self.processes.append(subprocess.Popen(words, env=environment, **quiet))
        _until(lambda: self._sql("SELECT 1"), "the database")
        assert self._sql(
            "CREATE DATABASE slurm; CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';"
            "CREATE USER slurm@localhost IDENTIFIED BY 'slurm';"
            "GRANT ALL ON slurm.* TO slurm@'127.0.0.1'; GRANT ALL ON slurm.* TO slurm@localhost;"
        )

    def _sql(self, text: str) -> bool:
        words = ["mariadb", "--no-defaults", f"--socket={self.root}/db.sock", "--user=root", "-e", text]
        return subprocess.run(words, capture_output=True).returncode == 0

    def serve(self, cluster: "SlurmCluster") -> None:
        user = pwd.getpwuid(os.getuid()).pw_name
        file = cluster.root / "slurmdbd.conf"
        file.write_text(_CONF.format(root=cluster.root, port=self.port, database=self.database, user=user))
        file.chmod(0o600)
        cluster.daemon("slurmdbd")
        _until(lambda: self._known(cluster), "slurmdbd")
        cluster.run("sacctmgr", "-i", "add", "account", "home", "description=home", "organization=home")
        cluster.run("sacctmgr", "-i", "add", "user", user, "account=home", "adminlevel=Admin")

    @staticmethod
    def _known(cluster: "SlurmCluster") -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.run("sacctmgr", "-i", "add", "cluster", "wm", check=False, timeout=10)
            return "wm" in cluster.run("sacctmgr", "-n", "list", "cluster", check=False, timeout=10)
        return False

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def an_accounting() -> Iterator[Accounting]:
    """Nothing of it is left."""
    from tests.stand_ins.slurm import free_ports

    absent = [name for name in ("slurmdbd", "mariadbd") if shutil.which(name, path=_PATH) is None]
    if absent:
        needs.missing(f"{', '.join(absent)}: apt-get install --no-install-recommends slurmdbd mariadb-server")
    database, port = free_ports(2)
    accounting = Accounting(Path(mkdtemp(prefix="wm-slurmdbd-")), database, port)
    try:
        accounting.start()
        yield accounting
    finally:
        accounting.stop()


def _until(condition, what: str, seconds: float = 60) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)
