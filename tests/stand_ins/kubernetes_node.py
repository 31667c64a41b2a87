"""What the controllers and the one node of the stand-in cluster do: Job → pod → process, and how all of it ends.

A container is a local process in a session of its own. It has no mount namespace: every mount path that stands in its
command or environment is replaced by the folder that plays the volume, so that no root is needed. A Secret's volume is
a folder of mode 0700 with just the keys that the pod names, in the mode it names. When a container's first process has
ended everything that was started in it is killed, as a container runtime does.
"""

import contextlib
import heapq
import itertools
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.stand_ins.kubernetes_store import Store, Thing, now

MARK = "WM_STAND_IN_POD"


class Node:
    """`runs` False: containers are said to run, and nothing is started (for figures of thousands)."""

    def __init__(self, store: Store, root: Path, runs: bool = True) -> None:
        self.store = store
        self.root = root
        self.runs = runs
        self.unschedulable = False  # as if every machine were taken
        self.bad_images: dict[str, str] = {}  # image → reason of the waiting
        self.pod_quota: int | None = None
        self.admission: Callable[[Thing], str] = lambda _pod: ""  # why a pod may not be made
        self.strange = 0  # of so many of the next pods the phase is in no table
        self.evicting = ""  # with these words the next pod is put out as soon as it runs
        self.vanishing = 0  # so many of the next Jobs leave without a trace
        self._names = itertools.count(1)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by the pod's UID
        self._kills: dict[str, float] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="stand-in kubelet", daemon=True)
        self._thread.start()

    # ------------------------------------------------ the Job controller

    def job_made(self, job: Thing) -> None:
        with self.store.lock:
            job["status"] = {"startTime": now()}
            pod = self._pod_of(job)
            no = self.admission(pod)
            live = [p for p in self.store.select("pods") if p["status"].get("phase") in ("Pending", "Running")]
            if self.pod_quota is not None and len(live) >= self.pod_quota:
                no = f"exceeded quota: pods, requested: pods=1, used: pods={len(live)}, limited: pods={self.pod_quota}"
            if no:
                text = f'Error creating: pods "{pod["metadata"]["name"]}" is forbidden: {no}'
                self.event("Job", job, "FailedCreate", text)
                self.store.update("jobs", job)
                return
            self.store.add("pods", pod)
            job["status"] |= {"active": 1, "ready": 0}
            self.store.update("jobs", job)
            self.schedule(pod)
            if self.evicting:
                self.evict(pod, self.evicting)
                self.evicting = ""
            if self.vanishing:
                self.vanishing -= 1
                self._kill(pod["metadata"]["uid"])
                self.store.remove("pods", pod["metadata"]["name"])
                self.store.remove("jobs", job["metadata"]["name"])

    def _pod_of(self, job: Thing) -> Thing:
        template, owner = job["spec"]["template"], job["metadata"]
        their = template.get("metadata") or {}
        labels = {"controller-uid": owner["uid"], "job-name": owner["name"]}
        labels |= {f"batch.kubernetes.io/{name}": value for name, value in labels.items()}
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner["name"], "uid": owner["uid"]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{owner['name']}-{next(self._names):05d}",
                "namespace": owner["namespace"],
                "labels": {**(their.get("labels") or {}), **labels},
                "annotations": their.get("annotations") or {},
                "ownerReferences": [reference | {"controller": True, "blockOwnerDeletion": True}],
            },
            "spec": dict(template["spec"]),
            "status": {"phase": "Pending", "conditions": []},
        }

    def event(self, kind: str, about: Thing, reason: str, message: str) -> None:
        metadata = about["metadata"]
        name = f"{metadata['name']}.{next(self._names):x}"
        whom = {"kind": kind, "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
        words = {"involvedObject": whom, "reason": reason, "message": message, "type": "Warning"}
        self.store.add("events", {"metadata": {"name": name, "namespace": metadata["namespace"]}, **words})

    # ------------------------------------------------ scheduler and kubelet

    def schedule(self, pod: Thing) -> None:
        if self.unschedulable:
            message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            self._condition(pod, "PodScheduled", "False", "Unschedulable", message)
            self.event("Pod", pod, "FailedScheduling", message)
        else:
            pod["spec"]["nodeName"] = "node-1"
            self._condition(pod, "PodScheduled", "True")
            self.start(pod)
        self.store.update("pods", pod)

    def room(self) -> None:
        """There are machines again."""
        with self.store.lock:
            self.unschedulable = False
            for pod in self.store.select("pods"):
                if pod["status"]["phase"] == "Pending" and not pod["spec"].get("nodeName"):
                    self.schedule(pod)

    def secret_made(self) -> None:
        """Pods that waited for it are tried again."""
        with self.store.lock:
            for pod in self.store.select("pods"):
                if pod["status"]["phase"] == "Pending" and pod["spec"].get("nodeName"):
                    self.start(pod)
                    self.store.update("pods", pod)

    def start(self, pod: Thing) -> None:
        container = pod["spec"]["containers"][0]
        if self.strange:
            self.strange -= 1
            pod["status"]["phase"] = "Hibernating"
            return
        if reason := self.bad_images.get(container["image"]):
            message = f'failed to pull and unpack image "{container["image"]}": not found'
            self._state(pod, container, {"waiting": {"reason": reason, "message": message}})
            return
        folders = self._volumes(pod)
        if folders is None:
            self._state(pod, container, {"waiting": {"reason": "ContainerCreating"}})
            return
        if self.runs:
            try:
                self._spawn(pod, container, folders)
            except OSError as failed:
                self._ended(pod, 128, "StartError", str(failed))
                return
        pod["status"] |= {"phase": "Running", "startTime": now()}
        self._state(pod, container, {"running": {"startedAt": now()}})
        self._of_job(pod, {"active": 1, "ready": 1})

    def _volumes(self, pod: Thing) -> dict[str, Path] | None:
        """By name; None while one is not to be had."""
        folder = self.root / "pods" / pod["metadata"]["uid"]
        found = {}
        for volume in pod["spec"].get("volumes") or ():
            place = folder / "volumes" / volume["name"]
            if "secret" in volume:
                secret = self.store.get("secrets", volume["secret"]["secretName"])
                items = volume["secret"].get("items") or ()
                if secret is None or any(item["key"] not in secret["data"] for item in items):
                    return None
                project(place, secret["data"], items, volume["secret"].get("defaultMode", 0o644))
            elif "hostPath" in volume:
                place = Path(volume["hostPath"]["path"])
            elif "persistentVolumeClaim" in volume or "nfs" in volume:
                place = self.root / "shared"
            place.mkdir(parents=True, exist_ok=True)
            found[volume["name"]] = place
        return found

    def _spawn(self, pod: Thing, container: Thing, folders: dict[str, Path]) -> None:
        uid = pod["metadata"]["uid"]
        folder = self.root / "pods" / uid
        folder.mkdir(parents=True, exist_ok=True)
        mounts = {mount["mountPath"]: str(folders[mount["name"]]) for mount in container.get("volumeMounts") or ()}

        def placed(text: str) -> str:
            for path in sorted(mounts, key=len, reverse=True):
                text = text.replace(path, mounts[path])
            return text

        given = {one["name"]: placed(one.get("value", "")) for one in container.get("env") or ()}
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        environment = {"PATH": os.environ["PATH"], "HOSTNAME": pod["metadata"]["name"], MARK: uid, **given}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [placed(expanded(word, given)) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        self._processes[uid] = process
        self._soon(lambda: self._selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ, pod))

    # ------------------------------------------------ ends

    def _ended(self, pod: Thing, code: int, reason: str = "", message: str = "") -> None:
        """Its processes are gone; what the API shows follows."""
        started = (self._current(pod).get("running") or {}).get("startedAt") or now()
        state = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "startedAt": started}
        words = message or (self.log(pod)[-2048:].decode("utf-8", "replace") if code else "")
        state |= {"finishedAt": now()} | ({"message": words} if words else {})
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        self._state(pod, pod["spec"]["containers"][0], {"terminated": state})
        if pod["metadata"].get("deletionTimestamp"):
            self._remove_pod(pod)
        else:
            self.store.update("pods", pod)
            self._job_over(pod, failed=code != 0)

    def _job_over(self, pod: Thing, failed: bool) -> None:
        job = self._job(pod)
        if job is None:
            return
        reached = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        condition = (
            {"type": "Failed", "status": "True", **reached} if failed else {"type": "Complete", "status": "True"}
        )
        job["status"] |= {"active": 0, "ready": 0, "failed" if failed else "succeeded": 1, "conditions": [condition]}
        self.store.update("jobs", job)
        name, uid, ttl = job["metadata"]["name"], job["metadata"]["uid"], job["spec"].get("ttlSecondsAfterFinished")
        if ttl is not None:
            self._later(ttl, lambda: self.delete_job(name, uid, "Foreground"))

    def delete_job(self, name: str, uid: str, policy: str) -> None:
        with self.store.lock:
            job = self.store.get("jobs", name)
            if job is None or job["metadata"]["uid"] != uid:
                return
            pods = [pod for pod in self.store.select("pods") if _owner(pod) == uid]
            if policy == "Foreground" and pods:
                if "deletionTimestamp" not in job["metadata"]:
                    job["metadata"] |= {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
                    self.store.update("jobs", job)
            else:
                self._remove_job(job)
            if policy != "Orphan":
                for pod in pods:
                    if "deletionTimestamp" not in pod["metadata"]:
                        self.delete_pod(pod, None)

    def delete_pod(self, pod: Thing, grace: int | None) -> None:
        with self.store.lock:
            uid = pod["metadata"]["uid"]
            seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
            if uid not in self._processes or seconds == 0:
                self._kill(uid)
                self._remove_pod(pod)
                return
            if "deletionTimestamp" not in pod["metadata"]:
                pod["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": seconds}
                self.store.update("pods", pod)
                with contextlib.suppress(ProcessLookupError):
                    self._processes[uid].send_signal(signal.SIGTERM)
            at = min(self._kills.get(uid, float("inf")), time.monotonic() + seconds)
            self._kills[uid] = at
            self._later(seconds, lambda: self._kill(uid))

    def _remove_pod(self, pod: Thing) -> None:
        self.store.remove("pods", pod["metadata"]["name"])
        job = self._job(pod)
        if job is None:
            return
        if "deletionTimestamp" in job["metadata"]:
            if not [other for other in self.store.select("pods") if _owner(other) == _owner(pod)]:
                self._remove_job(job)
        elif not job["status"].get("conditions"):
            self._job_over(pod, failed=True)

    def _remove_job(self, job: Thing) -> None:
        """And the garbage collector: what belonged to nobody else goes with it."""
        self.store.remove("jobs", job["metadata"]["name"])
        for secret in self.store.select("secrets"):
            owners = secret["metadata"].get("ownerReferences") or []
            left = [owner for owner in owners if owner["uid"] != job["metadata"]["uid"]]
            if owners and not left:
                self.store.remove("secrets", secret["metadata"]["name"])
            elif len(left) < len(owners):
                secret["metadata"]["ownerReferences"] = left
                self.store.update("secrets", secret)

    # ------------------------------------------------ what a cluster does to pods

    def evict(self, pod: Thing, message: str) -> None:
        with self.store.lock:
            self._kill(pod["metadata"]["uid"])
            pod["status"] |= {"phase": "Failed", "reason": "Evicted", "message": message}
            self.store.update("pods", pod)
            self._job_over(pod, failed=True)

    def out_of_memory(self, pod: Thing) -> None:
        with self.store.lock:
            self._kill(pod["metadata"]["uid"])
            self._ended(pod, 137, "OOMKilled")

    def lose(self, pod: Thing) -> None:
        """Its node is silent; whether the worker runs nobody knows."""
        with self.store.lock:
            pod["status"] |= {"phase": "Unknown", "reason": "NodeLost", "message": "Node node-1 is unresponsive"}
            self.store.update("pods", pod)

    # ------------------------------------------------ small parts

    def log(self, pod: Thing) -> bytes:
        try:
            return (self.root / "pods" / pod["metadata"]["uid"] / "log").read_bytes()
        except OSError:
            return b""

    def _kill(self, uid: str) -> None:
        process = self._processes.get(uid)
        if process is not None:
            self._kill_all(uid, process)

    def _kill_all(self, uid: str, process: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        while left := processes_of(uid):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()

    def _state(self, pod: Thing, container: Thing, state: Thing) -> None:
        words = {"name": container["name"], "image": container["image"], "restartCount": 0, "ready": "running" in state}
        pod["status"]["containerStatuses"] = [words | {"state": state}]

    def _current(self, pod: Thing) -> Thing:
        found = pod["status"].get("containerStatuses") or [{}]
        return dict(found[0].get("state") or {})

    def _condition(self, pod: Thing, kind: str, status: str, reason: str = "", message: str = "") -> None:
        others = [one for one in pod["status"]["conditions"] if one["type"] != kind]
        words = {"type": kind, "status": status} | ({"reason": reason, "message": message} if reason else {})
        pod["status"]["conditions"] = [*others, words]

    def _job(self, pod: Thing) -> Thing | None:
        [owner] = pod["metadata"]["ownerReferences"]
        job = self.store.get("jobs", owner["name"])
        return job if job is not None and job["metadata"]["uid"] == owner["uid"] else None

    def _of_job(self, pod: Thing, status: Thing) -> None:
        job = self._job(pod)
        if job is not None:
            job["status"] |= status
            self.store.update("jobs", job)

    # ------------------------------------------------ its thread

    def _loop(self) -> None:
        while not self._closing:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 60.0
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_out, 65536)
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    self._process_ended(key.data)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _process_ended(self, pod: Thing) -> None:
        uid = pod["metadata"]["uid"]
        process = self._processes[uid]
        code = process.wait()
        self._kill_all(uid, process)
        with self.store.lock:
            del self._processes[uid]
            known = self.store.get("pods", pod["metadata"]["name"])
            if known is pod and pod["status"]["phase"] == "Running":
                self._ended(pod, code if code >= 0 else 128 - code)

    def _later(self, seconds: float, what: Callable[[], Any]) -> None:
        with self.store.lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), what))
        os.write(self._wake_in, b"x")

    def _soon(self, what: Callable[[], Any]) -> None:
        self._later(0, what)

    def close(self) -> None:
        self._closing = True
        os.write(self._wake_in, b"x")
        self._thread.join()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        while left := processes_of(*self._processes):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        os.close(self._wake_in)


def processes_of(*uids: str) -> list[int]:
    """Everything that was started in these pods, by what they were started with."""
    marks = {f"{MARK}={uid}".encode() for uid in uids}
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if not marks.isdisjoint((entry / "environ").read_bytes().split(b"\0")):
                found.append(pid)
    return found


def expanded(text: str, variables: dict[str, str]) -> str:
    """As the kubelet reads a command: `$(NAME)` of a variable that there is, `$$` for a dollar, the rest as it is."""

    def one(found: re.Match[str]) -> str:
        whole, name = found.group(0), found.group(1)
        return "$" if whole == "$$" else variables.get(name, whole)

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def project(place: Path, data: dict[str, str], items: Any, mode: int) -> None:
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.chmod(0o700)
    for item in items or [{"key": key, "path": key} for key in data]:
        path = place / item["path"]
        path.write_bytes(b64decode(data[item["key"]]))
        path.chmod(item.get("mode", mode))


def _owner(pod: Thing) -> str:
    return str(next((owner["uid"] for owner in pod["metadata"].get("ownerReferences") or ()), ""))
