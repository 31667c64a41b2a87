"""A real API server and controller manager on an etcd of their own, on loopback. There is no node: a test plays it.

Users: `admin`, and `manager`, who has only the rights that the test gives.
"""

import contextlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tools.kubernetes_server import FOLDER, PROGRAMS

# As Kubernetes 1.20 has it, which is what Debian has the source of. Older than anything that is still supported, and
# so a lower bound for what we send.
GATES = "--feature-gates=TTLAfterFinished=true"


def programs() -> dict[str, str] | None:
    """By name, where they are; None: they are not to be had here."""
    path = f"{FOLDER}{os.pathsep}{os.environ.get('PATH', '')}"
    found = {name: shutil.which(name, path=path) for name in (*PROGRAMS, "etcd", "etcdctl", "openssl")}
    return {name: str(place) for name, place in found.items()} if all(found.values()) else None


class Server:
    def __init__(self, folder: Path, where: dict[str, str]) -> None:
        self.folder = folder
        self._where = where
        self._processes: list[subprocess.Popen[bytes]] = []
        self.etcd, self.port = _port(), _port()
        self.kubeconfig = folder / "kubeconfig"

    def start(self) -> None:
        folder, local = self.folder, "127.0.0.1"
        key = folder / "sa.key"
        subprocess.run([self._where["openssl"], "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text("admin-token,admin,u1,system:masters\nmanager-token,manager,u2\n")
        client, peer = f"http://{local}:{self.etcd}", f"http://{local}:{_port()}"
        listen = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        self._run("etcd", "--data-dir", str(folder / "etcd"), *listen, "--unsafe-no-fsync")
        self._run(
            "kube-apiserver",
            f"--etcd-servers={client}",
            f"--cert-dir={folder / 'certificates'}",
            f"--secure-port={self.port}",
            f"--bind-address={local}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            GATES,
        )
        self._until_ready()
        self._write_kubeconfig()
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--controllers=job,garbagecollector,namespace,resourcequota,serviceaccount,ttl-after-finished",
            "--leader-elect=false",
            "--port=0",  # else every manager of a machine wants the same one, and all but the first stop
            "--secure-port=0",
            "--resource-quota-sync-period=1s",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-gc-syncs=50",
            GATES,
        )

    def _run(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            argv = [self._where[name], *words]
            self._processes.append(subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log))

    def _until_ready(self) -> None:
        url, deadline = f"https://127.0.0.1:{self.port}/readyz", time.monotonic() + 120
        request = urllib.request.Request(url, headers={"Authorization": "Bearer admin-token"})
        anyone = ssl._create_unverified_context()  # noqa: S323 -- it makes its certificate now
        while True:
            try:
                with urllib.request.urlopen(request, context=anyone, timeout=5) as reply:  # noqa: S310
                    assert reply.status == 200
                    return
            except OSError as failed:
                log = (self.folder / "kube-apiserver.log").read_text()[-2000:]
                gone = [process.args for process in self._processes if process.poll() is not None]
                assert time.monotonic() < deadline and not gone, f"{failed}, {gone}: {log}"
                time.sleep(0.1)

    def _write_kubeconfig(self) -> None:
        cluster = {"server": f"https://127.0.0.1:{self.port}"}
        cluster["certificate-authority"] = str(self.folder / "certificates" / "apiserver.crt")
        users = [{"name": name, "user": {"token": f"{name}-token"}} for name in ("admin", "manager")]
        contexts = [
            {"name": user["name"], "context": {"cluster": "c", "user": user["name"], "namespace": "workers"}}
            for user in users
        ]
        whole: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "admin"}
        whole |= {"clusters": [{"name": "c", "cluster": cluster}], "users": users, "contexts": contexts}
        self.kubeconfig.write_text(yaml.safe_dump(whole))

    def compact(self) -> None:
        """Everything before now is forgotten, as it is every five minutes in a real cluster."""
        words = [self._where["etcdctl"], f"--endpoints=http://127.0.0.1:{self.etcd}"]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        shown = subprocess.run([*words, "get", "x", "-w", "fields"], capture_output=True, text=True, env=environment)
        [revision] = [line.split(":")[1].strip() for line in shown.stdout.splitlines() if '"Revision"' in line]
        subprocess.run([*words, "compact", revision], check=True, capture_output=True, env=environment)

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()


def _port() -> int:
    """A free one below those which the system gives to connections: nobody takes it before the server has it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10000, lowest)  # noqa: S311
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
