"""The node of a real API server: binds pods, runs their containers as local processes, reports what became of them.

How a container is run here is that of the stand-in's node (kubernetes_node.py): a process in a session of its own, the
mount paths in its words replaced by folders.
"""

import contextlib
import os
import signal
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

from backends.kubernetes.api import Answer, Api, NoAnswer
from tests.stand_ins.kubernetes_node import MARK, expanded, processes_of, project
from tests.stand_ins.kubernetes_store import now

Thing = dict[str, Any]
PAUSE_S = 0.05


class Kubelet:
    """Scheduler and kubelet in one thread, for every namespace."""

    def __init__(self, api: Api, root: Path) -> None:
        self.root = root
        self.full = False  # no node has room
        self.vanishing = ""  # the Job that leaves with its pod, without a trace
        self.strange = 0  # of so many of the next pods the phase is in no table
        self._api = api
        self._running: dict[str, subprocess.Popen[bytes]] = {}  # by the pod's UID
        self._began: dict[str, str] = {}
        self._kills: dict[str, float] = {}
        self._over: dict[str, int] = {}
        self._uids: dict[str, str] = {}  # by the pod's name
        self._closing = False
        self._logs = _serve_logs(self)
        self._register()
        self._thread = threading.Thread(target=self._loop, name="kubelet", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._logs.shutdown()
        self._logs.server_close()
        for uid, process in self._running.items():
            _kill(uid, process)
            process.wait()

    def log(self, pod: str) -> bytes:
        with contextlib.suppress(OSError, KeyError):
            return (self.root / self._uids[pod] / "log").read_bytes()
        return b""

    def _register(self) -> None:
        """The server asks us for logs; where, it takes from here."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
        made = self._call("POST", "/api/v1/nodes", node).thing()
        has = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
        made["status"] = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.server_address[1]}},
            "capacity": has,
            "allocatable": has,
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        answer = self._call("PUT", "/api/v1/nodes/node-1/status", made)
        assert answer.good, answer.words()

    # ------------------------------------------------ its loop

    def _loop(self) -> None:
        while not self._closing:
            with contextlib.suppress(NoAnswer):  # the server goes first at the end
                found = self._call("GET", "/api/v1/pods").thing().get("items") or []
                for pod in found:
                    self._look_after(pod)
            time.sleep(PAUSE_S)

    def _look_after(self, pod: Thing) -> None:
        uid, phase = pod["metadata"]["uid"], pod["status"]["phase"]
        self._uids[pod["metadata"]["name"]] = uid
        self._reap(uid)
        if pod["metadata"]["labels"].get("job-name") == self.vanishing:
            self._forget(pod)
            return
        if pod["metadata"].get("deletionTimestamp"):
            self._end(pod, uid)
        elif phase in ("Succeeded", "Failed", "Hibernating"):
            return
        elif uid in self._over:
            self._report(pod, _ended(self._over[uid], self._began.get(uid, now())))
        elif uid in self._running:
            if phase != "Running":
                self._report(pod, _runs(self._began[uid]))
        elif not pod["spec"].get("nodeName"):
            self._schedule(pod)
        else:
            self._start(pod, uid)

    def _schedule(self, pod: Thing) -> None:
        place = _place(pod)
        if self.full:
            words = {"reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}
            if not pod["status"].get("conditions"):
                self._report(pod, {"conditions": [{"type": "PodScheduled", "status": "False", **words}]})
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
        metadata = {"name": pod["metadata"]["name"]}
        self._call(
            "POST", f"{place}/binding", {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        )

    def _start(self, pod: Thing, uid: str) -> None:
        if self.strange:
            self.strange -= 1
            self._report(pod, {"phase": "Hibernating"})
            return
        folders = self._volumes(pod, uid)
        if folders is None:
            return
        container = pod["spec"]["containers"][0]
        mounts = {mount["mountPath"]: str(folders[mount["name"]]) for mount in container.get("volumeMounts") or ()}
        try:
            self._running[uid] = _spawn(container, mounts, self.root / uid, uid)
            self._began[uid] = now()
        except OSError:
            self._over[uid] = 128

    def _volumes(self, pod: Thing, uid: str) -> dict[str, Path] | None:
        found = {}
        for volume in pod["spec"].get("volumes") or ():
            place = self.root / uid / "volumes" / volume["name"]
            if "secret" in volume:
                path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets/{volume['secret']['secretName']}"
                answer = self._call("GET", path)
                if not answer.good:
                    return None
                items, mode = volume["secret"].get("items") or (), volume["secret"].get("defaultMode", 0o644)
                project(place, answer.thing()["data"], items, mode)
            place.mkdir(parents=True, exist_ok=True)
            found[volume["name"]] = place
        return found

    def _reap(self, uid: str) -> None:
        process = self._running.get(uid)
        if process is not None and uid in self._kills and time.monotonic() > self._kills[uid]:
            _kill(uid, process)
        if process is not None and process.poll() is not None:
            _kill(uid, process)
            code = process.returncode
            self._over[uid] = code if code >= 0 else 128 - code
            del self._running[uid]

    def _end(self, pod: Thing, uid: str) -> None:
        """Asked once; when nothing runs any more, that is confirmed."""
        process = self._running.get(uid)
        if process is None:
            options = {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": uid},
            }
            self._call("DELETE", _place(pod), options)
            return
        grace = time.monotonic() + pod["metadata"].get("deletionGracePeriodSeconds", 30)
        if uid not in self._kills:
            process.send_signal(signal.SIGTERM)
        self._kills[uid] = min(self._kills.get(uid, grace), grace)

    def _forget(self, pod: Thing) -> None:
        """As an administrator who cleans up by force."""
        [job] = pod["metadata"]["ownerReferences"]
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        of_jobs = f"/apis/batch/v1/namespaces/{pod['metadata']['namespace']}/jobs/{job['name']}"
        self._call("DELETE", of_jobs, options | {"propagationPolicy": "Background"})
        self._call("DELETE", _place(pod), options)

    # ------------------------------------------------ to the server

    def _call(self, method: str, path: str, body: Thing | None = None) -> Answer:
        return self._api.call(method, path, time.monotonic() + 20, body=body)

    def _report(self, pod: Thing, status: Thing) -> None:
        self._call("PUT", f"{_place(pod)}/status", {**pod, "status": {**pod["status"], **status}})


def _serve_logs(kubelet: Kubelet) -> ThreadingHTTPServer:
    """/containerLogs/NAMESPACE/POD/CONTAINER, over TLS as the server wants it; it does not ask for our name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            lines = kubelet.log(parts.path.split("/")[3]).splitlines(keepends=True)
            text = b"".join(lines[-int(parse_qs(parts.query).get("tailLines", ["1000000"])[0]) :])
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), name="logs of the kubelet", daemon=True).start()
    return server


def _place(pod: Thing) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _spawn(container: Thing, mounts: dict[str, str], folder: Path, uid: str) -> "subprocess.Popen[bytes]":
    def placed(text: str) -> str:
        for path in sorted(mounts, key=len, reverse=True):
            text = text.replace(path, mounts[path])
        return text

    folder.mkdir(parents=True, exist_ok=True)
    given = {one["name"]: placed(one.get("value", "")) for one in container.get("env") or ()}
    environment = {"PATH": os.environ["PATH"], MARK: uid, **given}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [placed(expanded(word, given)) for word in container["command"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )


def _kill(uid: str, process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    while left := processes_of(uid):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()


def _shown(state: Thing) -> Thing:
    words = {"name": "worker", "image": "x", "imageID": "x", "ready": "running" in state, "restartCount": 0}
    return {"containerStatuses": [words | {"state": state}]}


def _runs(began: str) -> Thing:
    ready = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}
    return {"phase": "Running", "startTime": began, **ready, **_shown({"running": {"startedAt": began}})}


def _ended(code: int, began: str) -> Thing:
    reason = "Error" if code else "Completed"
    state = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now()}
    return {"phase": "Failed" if code else "Succeeded", **_shown({"terminated": state})}
