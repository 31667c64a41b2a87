"""A stand-in for a Kubernetes cluster: an API server over real HTTP, with what a node and the controllers do behind it.

What it can: create, get, list (selectors, limit and continue), watch (resourceVersion, bookmarks, 410), delete (UID
preconditions, propagation, grace), delete of a collection, pod logs, access reviews, dryRun=All, strict validation
against the real schemas, RBAC rules of a Role. It counts every call. Faults are ordered one call at a time.
"""

import contextlib
import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.stand_ins.kubernetes_node import Node
from tests.stand_ins.kubernetes_store import Expired, Store, Thing

SCHEMA = "1.34"
ENOUGH = 25  # objects of a kind that are held against the schema: what comes after looks the same, and each takes 8 ms
NAMES = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret"), "events": ("v1", "Event")}
_PATH = re.compile(r"/(api/v1|apis/[^/]+/[^/]+)(?:/namespaces/([^/]+))?/([^/]+)(?:/([^/]+))?(?:/([^/]+))?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti|e\d+)?")


class Say(Exception):
    """The answer to a request, from wherever it is found."""

    def __init__(self, status: int, reason: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
        self.body["code"] = status  # type: ignore[assignment]


@dataclass
class Fault:
    """For the next request that it fits. `do`: a Say, or one of cut-before, cut-after, hang, garbage."""

    verb: str
    kind: str
    do: Say | str
    times: int = 1
    continues: bool = False  # only the later pages of a list


@dataclass
class Asked:
    verb: str
    group: str
    kind: str
    name: str
    sub: str
    query: dict[str, str]
    body: Thing = field(default_factory=dict)
    warning: str = ""  # goes back with the answer


class Cluster:
    def __init__(
        self, root: Path, *, runs: bool = True, validates: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.store = Store()
        self.node = Node(self.store, root, runs)
        self.validates = validates
        self._checked: Counter[str] = Counter()
        self.tokens: set[str] | None = None  # None: everybody may
        self.rules: list[Thing] | None = None  # of a Role; None: everything is allowed
        self.namespaces = {"default"}
        self.faults: list[Fault] = []
        self.calls: Counter[str] = Counter()
        self.used: set[tuple[str, str]] = set()  # (verb, resource), for a Role with least rights
        self.before: Callable[[Asked], None] = lambda _asked: None
        self.closing = threading.Event()
        self.watch_generation = 0
        self.longest_watch_s = 3600.0
        self._add_nodes()
        cluster = self

        class Bound(_Handler):
            pass

        Bound.cluster = cluster
        self._server = _Server(("127.0.0.1", 0), Bound)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.closing.set()
        self.drop_watches()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.node.close()

    def drop_watches(self) -> None:
        """As a server that goes down: their connections break."""
        with self.store.lock:
            self.watch_generation += 1
            self.store.changed.notify_all()

    def pod_of(self, job: str) -> Thing:
        return self.store.select("pods", f"job-name={job}")[0]

    def _add_nodes(self) -> None:
        has = {"cpu": "63500m", "memory": "251Gi", "ephemeral-storage": "900Gi", "pods": "110", "nvidia.com/gpu": "8"}
        labels = {"kubernetes.io/os": "linux"}
        ready = [{"type": "Ready", "status": "True"}]
        self.store.add("nodes", {"metadata": {"name": "node-1", "labels": labels}, "spec": {}, "status": {
            "allocatable": has, "capacity": has | {"cpu": "64", "memory": "256Gi"}, "conditions": ready}})  # fmt: skip

    # ------------------------------------------------ one request

    def answer(self, asked: Asked) -> Any:
        """A thing, or bytes, or a Say that is raised."""
        if asked.kind == "version":
            return {"major": "1", "minor": SCHEMA.partition(".")[2], "gitVersion": f"v{SCHEMA}.0-stand-in"}
        if asked.kind == "selfsubjectaccessreviews":
            return self._review(asked)
        if asked.sub == "log":
            return self._log(asked)
        do = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }[asked.verb]
        return do(asked)

    def allowed(self, verb: str, group: str, resource: str) -> bool:
        if self.rules is None or resource == "selfsubjectaccessreviews":
            return True
        return any(
            verb in rule["verbs"] and resource in rule["resources"] and group in rule["apiGroups"]
            for rule in self.rules
        )

    def _review(self, asked: Asked) -> Thing:
        wanted = asked.body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
        fine = self.allowed(wanted["verb"], wanted.get("group", ""), resource)
        return {**asked.body, "status": {"allowed": fine, "reason": "" if fine else "no RBAC rule allows it"}}

    def _get(self, asked: Asked) -> bytes:
        raw = self.store.raw(asked.kind, asked.name)
        if raw is None:
            raise Say(404, "NotFound", f'{asked.kind} "{asked.name}" not found')
        return raw

    def _list(self, asked: Asked) -> bytes:
        query = asked.query
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        try:
            items, following, version = self.store.page(
                asked.kind, labels, fields, int(query.get("limit", 0)), query.get("continue", "")
            )
        except Expired:
            raise Say(410, "Expired", "The provided continue parameter is too old") from None
        metadata = {"resourceVersion": str(version)} | ({"continue": following} if following else {})
        kind = NAMES.get(asked.kind, ("v1", asked.kind.capitalize()))
        head = json.dumps({"apiVersion": kind[0], "kind": f"{kind[1]}List", "metadata": metadata})[:-1]
        return head.encode() + b', "items": [' + b",".join(items) + b"]}"

    def _create(self, asked: Asked) -> Thing:
        thing = asked.body
        if self.validates and self._checked[asked.kind] < ENOUGH:
            self._checked[asked.kind] += 1
            _validate(thing)
        name = thing.get("metadata", {}).get("name", "")
        if self.store.get(asked.kind, name):
            raise Say(409, "AlreadyExists", f'{asked.kind} "{name}" already exists')
        thing["metadata"]["namespace"] = "default"
        if asked.kind == "jobs" and (why := self.node.admission({**thing["spec"]["template"]})):
            asked.warning = f'299 - "would be forbidden: {why}"'
        if asked.query.get("dryRun") == "All":
            return {**thing, "metadata": {**thing["metadata"], "uid": str(uuid.uuid4())}}
        with self.store.lock:
            self.store.add(asked.kind, thing)
            if asked.kind == "jobs":
                self.node.job_made(thing)
            elif asked.kind == "secrets":
                self.node.secret_made()
            return json.loads(json.dumps(thing))  # type: ignore[no-any-return]

    def _delete(self, asked: Asked) -> Thing:
        with self.store.lock:
            thing = self.store.get(asked.kind, asked.name)
            if thing is None:
                raise Say(404, "NotFound", f'{asked.kind} "{asked.name}" not found')
            wanted = (asked.body.get("preconditions") or {}).get("uid", thing["metadata"]["uid"])
            if wanted != thing["metadata"]["uid"]:
                raise Say(409, "Conflict", f"Precondition failed: UID in precondition: {wanted}")
            self._remove(asked, thing)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _delete_all(self, asked: Asked) -> Thing:
        with self.store.lock:
            for thing in self.store.select(asked.kind, asked.query.get("labelSelector", "")):
                self._remove(asked, thing)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _remove(self, asked: Asked, thing: Thing) -> None:
        metadata = thing["metadata"]
        if asked.kind == "jobs":
            self.node.delete_job(metadata["name"], metadata["uid"], asked.body.get("propagationPolicy", "Background"))
        elif asked.kind == "pods":
            self.node.delete_pod(thing, asked.body.get("gracePeriodSeconds"))
        else:
            self.store.remove(asked.kind, metadata["name"])

    def _log(self, asked: Asked) -> bytes:
        pod = self.store.get("pods", asked.name)
        if pod is None:
            raise Say(404, "NotFound", f'pods "{asked.name}" not found')
        if not pod["status"].get("containerStatuses") or "waiting" in pod["status"]["containerStatuses"][0]["state"]:
            raise Say(400, "BadRequest", f'container "worker" in pod "{asked.name}" is waiting to start')
        text = self.node.log(pod)
        lines = text.splitlines(keepends=True)
        return b"".join(lines[-int(asked.query["tailLines"]) :]) if "tailLines" in asked.query else text


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        try:
            asked = self._asked(body)
            self.cluster.calls[f"{asked.verb} {asked.kind}"] += 1
            self._admitted(asked)
            fault = self._fault(asked)
            if fault in ("cut-before", "hang"):
                if fault == "hang":
                    self.cluster.closing.wait(60)
                return self._cut()
            if fault == "garbage":
                return self._send(200, b"<html>502 Bad Gateway</html>")
            if asked.verb == "watch":
                return self._watch(asked)
            answer = self.cluster.answer(asked)
            if fault == "cut-after":
                return self._cut()
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            warning = {"Warning": asked.warning} if asked.warning else {}
            self._send(201 if asked.verb == "create" else 200, raw, warning)
        except Say as said:
            self._send(said.status, json.dumps(said.body).encode(), said.headers)
        return None

    def _asked(self, body: Thing) -> Asked:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/version":
            return Asked("get", "", "version", "", "", query)
        found = _PATH.fullmatch(unquote(parts.path))
        if found is None:
            raise Say(404, "NotFound", "the server could not find the requested resource")
        group, namespace, kind, name, sub = (text or "" for text in found.groups())
        verb = {"POST": "create", "DELETE": "delete" if name else "deletecollection", "PUT": "update"}.get(
            self.command, "get" if name else "watch" if query.get("watch") else "list"
        )
        if namespace and namespace not in self.cluster.namespaces and verb == "create":
            raise Say(404, "NotFound", f'namespaces "{namespace}" not found')
        return Asked(
            verb, group.removeprefix("apis/").rpartition("/")[0].removeprefix("api"), kind, name, sub, query, body
        )

    def _admitted(self, asked: Asked) -> None:
        cluster = self.cluster
        token = self.headers.get("Authorization", "").partition(" ")[2]
        if cluster.tokens is not None and token not in cluster.tokens:
            raise Say(401, "Unauthorized", "Unauthorized")
        if asked.kind == "version":
            return
        resource = "/".join(filter(None, (asked.kind, asked.sub)))
        cluster.used.add((asked.verb, resource))
        if not cluster.allowed(asked.verb, asked.group, resource):
            raise Say(
                403, "Forbidden", f'User "x" cannot {asked.verb} resource "{resource}" in API group "{asked.group}"'
            )
        cluster.before(asked)

    def _fault(self, asked: Asked) -> str:
        with self.cluster.store.lock:
            for fault in self.cluster.faults:
                if (fault.verb, fault.kind) == (asked.verb, asked.kind) and (
                    not fault.continues or "continue" in asked.query
                ):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.cluster.faults.remove(fault)
                    if isinstance(fault.do, Say):
                        raise fault.do
                    return fault.do
        return ""

    def _watch(self, asked: Asked) -> None:
        cluster, store = self.cluster, self.cluster.store
        version = int(asked.query.get("resourceVersion") or store.version)
        end = time.monotonic() + min(float(asked.query.get("timeoutSeconds", 1800)), cluster.longest_watch_s)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        with store.lock:
            generation = cluster.watch_generation
        while True:
            with store.lock:
                try:
                    events, version = store.since(asked.kind, version, asked.query.get("labelSelector", ""))
                except Expired:
                    body = Say(410, "Expired", "too old resource version").body
                    self._chunk(json.dumps({"type": "ERROR", "object": body}).encode() + b"\n")
                    return self._last_chunk()
                if generation != cluster.watch_generation:
                    return self._cut()
                if not events:
                    left = end - time.monotonic()
                    if left <= 0:
                        break
                    store.changed.wait(left)
                    continue
            for _, what, raw in events:
                self._chunk(b'{"type": "' + what.encode() + b'", "object": ' + raw + b"}\n")
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}
        self._chunk(json.dumps(bookmark).encode() + b"\n")
        return self._last_chunk()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _last_chunk(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


# ---------------------------------------------------------------- what a real server refuses


def _validate(thing: Thing) -> None:
    import kubernetes_validate

    checked = json.loads(json.dumps(thing))
    try:
        kubernetes_validate.validate(checked, SCHEMA, strict=True)
    except kubernetes_validate.ValidationError as wrong:
        raise Say(422, "Invalid", f"{thing.get('kind')} is invalid: {wrong.message}") from None
    metadata = thing.get("metadata") or {}
    _must(_NAME.fullmatch(metadata.get("name", "")), f"metadata.name: {metadata.get('name')!r}")
    for labels in (metadata.get("labels"), thing.get("spec", {}).get("template", {}).get("metadata", {}).get("labels")):
        for name, value in (labels or {}).items():
            _must(_LABEL.fullmatch(value), f"metadata.labels: {name}: {value!r}")
    if thing.get("kind") == "Job":
        _validate_pod(thing["spec"]["template"]["spec"])


def _validate_pod(spec: Thing) -> None:
    _must(spec.get("restartPolicy") in ("Never", "OnFailure"), "spec.template.spec.restartPolicy")
    volumes = {volume["name"] for volume in spec.get("volumes") or ()}
    for container in spec["containers"]:
        paths = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
        _must(len(paths) == len(set(paths)), "volumeMounts: must be unique")
        for mount in container.get("volumeMounts") or ():
            _must(mount["name"] in volumes, f"volumeMounts[].name: Not found: {mount['name']!r}")
        resources = container.get("resources") or {}
        for amounts in resources.values():
            for name, amount in amounts.items():
                _must(_QUANTITY.fullmatch(str(amount)), f"resources: {name}: {amount!r}")


def _must(fine: object, what: str) -> None:
    if not fine:
        raise Say(422, "Invalid", f"is invalid: {what}")
