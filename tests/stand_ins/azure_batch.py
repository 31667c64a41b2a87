"""A stand-in for Azure Batch, of the standard library: what the official client speaks to, real processes behind it.

It verifies the SharedKey signature (or a bearer token), speaks the OData error envelope, pages with odata.nextLink,
refuses properties that the service does not know, and runs the command lines as processes of this machine. Time passes
only when it is asked something. `calls` counts requests by what they are for.
"""

import base64
import hashlib
import hmac
import json
import re
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate, parsedate_to_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.stand_ins import azure_formula, azure_odata
from tests.stand_ins.azure_machines import Node, Task, complete, kill, processes, start
from tests.stand_ins.azure_wire import JOB, POOL, TASK, VERSION, Call, Fault, Refusal, check, failure, now

_SIGNED = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)


class FakeBatch:
    """`runs`: whether tasks are processes; without, each runs for ever and costs nothing. `slots`: of all nodes."""

    def __init__(
        self, root: Path, *, slots: int = 48, page: int = 1000, runs: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.root, self.page, self.runs = root, page, runs
        self.account, self.key = "wmaccount", base64.b64encode(b"a key of 32 bytes, or about that").decode()
        self.bearer = "a-token-of-entra"
        self.calls: Counter[str] = Counter()
        self.problems: list[str] = []  # of the fake itself
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pools: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, list[Node]] = {}
        self.tasks: dict[str, dict[str, Task]] = {}
        self.faults: deque[Fault] = deque()
        self.hold_next = self.strange_next = self.die_next = self.vanish_next = 0
        self.die_words = "the image cannot be pulled"
        self.closed = threading.Event()
        self._slots = slots
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for tasks in self.tasks.values():
            for task in tasks.values():
                kill(task)

    # ------------------------------------------------ for tests

    def make(self, job: str = "workers", pool: str = "pool-1", **settings: Any) -> None:
        """A job and its pool, of one node."""
        made = {"id": pool, "vmSize": "STANDARD_D4S_V3", "enableAutoScale": True, "taskSlotsPerNode": 4, **settings}
        self.pools[pool] = {"state": "active", "allocationState": "steady", "currentDedicatedNodes": 1, **made}
        self.nodes[pool] = [Node("tvm-1")]
        self.jobs[job] = {"id": job, "state": "active", "poolInfo": {"poolId": pool}}
        self.tasks[job] = {}

    def order(self, purpose: str, does: Callable[[Call], bool]) -> None:
        with self._lock:
            self.faults.append(Fault(purpose, does))

    def refuse(self, purpose: str, refusal: Refusal) -> None:
        def does(call: Call) -> bool:
            call.reply(refusal.status, refusal.body(), refusal.headers)
            return True

        self.order(purpose, does)

    def cut(self, purpose: str, after: bool) -> None:
        """No answer; what was asked was done, or not."""

        def does(call: Call) -> bool:
            if after:
                call.run()
            call.cut()
            return True

        self.order(purpose, does)

    def hang(self, purpose: str) -> None:
        def does(call: Call) -> bool:
            self.closed.wait(30)
            call.cut()
            return True

        self.order(purpose, does)

    def garble(self, purpose: str, body: bytes = b"<html>a proxy's own page</html>") -> None:
        def does(call: Call) -> bool:
            call.reply(200, body)
            return True

        self.order(purpose, does)

    def lose_page(self) -> None:
        """The next listing has one task on its first page, and no second."""

        def first(call: Call) -> bool:
            call.query["maxresults"] = "1"
            return False

        self.order("list", first)
        self.refuse("list", Refusal(500, "InternalError", "the server encountered an internal error"))

    def let_boot(self) -> None:
        with self._lock:
            for task in self._all():
                task.held = False

    def alive(self, job: str, id: str) -> bool:
        task = self.tasks[job].get(id)
        return task is not None and bool(processes(task))

    # ------------------------------------------------ requests

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                with suppress(OSError):
                    fake._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = tuple(unquote(part) for part in parts.path.strip("/").split("/"))
        call = Call(handler, "", path, query, None, lambda: (0, None, {}))
        try:
            self._authenticate(handler, parts.path, query)
            if query.get("api-version") != VERSION:
                raise Refusal(400, "UnsupportedRequestVersion")
            if len(raw) > 1_048_576:
                raise Refusal(413, "RequestBodyTooLarge")
            call.body = json.loads(raw) if raw else None
            self._route(call)
            self.calls[call.purpose] += 1
            fault = self._fault(call.purpose)
            if fault and fault.does(call):
                return
            status, body, headers = call.run()
            call.reply(status, body, headers)
        except Refusal as refusal:
            call.reply(refusal.status, refusal.body(), refusal.headers)
        except Exception as broken:
            self.problems.append(repr(broken))
            call.reply(500, Refusal(500, "InternalError", repr(broken)).body())

    def _fault(self, purpose: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.purpose == purpose:
                    self.faults.remove(fault)
                    return fault
        return None

    def _authenticate(self, handler: BaseHTTPRequestHandler, path: str, query: Mapping[str, str]) -> None:
        given = handler.headers.get("Authorization") or ""
        if given == f"Bearer {self.bearer}":
            return
        if given.startswith("Bearer "):
            raise Refusal(401, "AuthenticationFailed", "the token is not good")
        headers = {name.lower(): value for name, value in handler.headers.items()}
        if handler.command not in ("GET", "HEAD"):
            headers.setdefault("content-length", "0")
        else:
            headers.pop("content-length", None)
        lines = [handler.command, *(headers.get(name, "") for name in _SIGNED)]
        lines += [f"{name}:{value}" for name, value in sorted(headers.items()) if name.startswith("ocp-")]
        lines += [f"/{self.account}{path}", *(f"{name}:{query[name]}" for name in sorted(query) if query[name])]
        digest = hmac.new(base64.b64decode(self.key), "\n".join(lines).encode(), hashlib.sha256).digest()
        expected = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        if not hmac.compare_digest(given, expected):
            raise Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        said = parsedate_to_datetime(headers.get("ocp-date", formatdate(0, usegmt=True)))
        if abs(datetime.now(UTC) - said) > timedelta(minutes=15):
            raise Refusal(403, "AuthenticationFailed", "The date is too far from now.")

    def _route(self, call: Call) -> None:
        method, path = call.handler.command, call.path
        for purpose, verb, pattern, run in _ROUTES:
            if verb == method and len(pattern) == len(path):
                names = [part for part, wanted in zip(path, pattern, strict=True) if wanted == "*"]
                if all(wanted in ("*", part) for part, wanted in zip(path, pattern, strict=True)):
                    call.purpose, call.run = purpose, partial(self._run, run, call, names)
                    return
        raise Refusal(404, "ResourceNotFound", f"{method} {'/'.join(path)}")

    def _run(self, run: Callable[..., Any], call: Call, names: list[str]) -> tuple[int, Any, dict[str, str]]:
        with self._lock:
            self._pass_time()
            status, body, *headers = run(self, call, *names)
            return status, body, headers[0] if headers else {}

    # ------------------------------------------------ jobs and pools

    def _get_job(self, call: Call, job: str) -> tuple[int, Any]:
        return 200, self._job(job)

    def _job(self, job: str) -> dict[str, Any]:
        if job not in self.jobs:
            raise Refusal(404, "JobNotFound", "The specified job does not exist.")
        return self.jobs[job]

    def _post_job(self, call: Call) -> tuple[int, Any]:
        check(call.body, JOB)
        if call.body["id"] in self.jobs:
            raise Refusal(409, "JobExists", "The specified job already exists.")
        self.jobs[call.body["id"]] = {**call.body, "state": "active"}
        self.tasks[call.body["id"]] = {}
        return 201, None

    def _get_pool(self, call: Call, pool: str) -> tuple[int, Any]:
        if pool not in self.pools:
            raise Refusal(404, "PoolNotFound", "The specified pool does not exist.")
        return 200, self.pools[pool]

    def _post_pool(self, call: Call) -> tuple[int, Any]:
        check(call.body, POOL)
        if call.body["id"] in self.pools:
            raise Refusal(409, "PoolExists", "The specified pool already exists.")
        if call.body.get("enableAutoScale"):
            self._formula(call.body.get("autoScaleFormula") or "")
        self.pools[call.body["id"]] = {"state": "active", "allocationState": "steady", **call.body}
        self.nodes[call.body["id"]] = [Node("tvm-1")]
        return 201, None

    def _evaluate(self, call: Call, pool: str) -> tuple[int, Any]:
        found = self._formula(call.body["autoScaleFormula"])
        shown = ";".join(f"{name}={value}" for name, value in found.items() if name in azure_formula.TARGETS)
        return 200, {"timestamp": now(), "results": shown}

    def _formula(self, text: str) -> dict[str, Any]:
        pending = [float(sum(task.state != "completed" for task in self._all()))] * 10
        try:
            return azure_formula.evaluate(text, pending)
        except azure_formula.BadFormula as wrong:
            raise Refusal(400, "AutoScalingFormulaSyntaxError", str(wrong)) from wrong

    def _counts(self, call: Call) -> tuple[int, Any]:
        rows = []
        for pool, nodes in self.nodes.items():
            dedicated: dict[str, int] = Counter(self._state(node) for node in nodes if not node.spot)
            spot: dict[str, int] = Counter(self._state(node) for node in nodes if node.spot)
            kinds = {"dedicated": dedicated, "lowPriority": spot}
            shown = {kind: {**counts, "total": sum(counts.values())} for kind, counts in kinds.items()}
            rows.append({"poolId": pool, **shown})
        return 200, {"value": self._filtered(rows, call, azure_odata.COUNTS)}

    def _state(self, node: Node) -> str:
        busy = any(task.state == "running" and task.node == node.id for task in self._all())
        return "running" if busy and node.state == "idle" else node.state

    def _get_nodes(self, call: Call, pool: str) -> tuple[int, Any]:
        rows = []
        for node in self.nodes.get(pool, []):
            row = {"id": node.id, "state": self._state(node), "errors": node.errors}
            rows.append(row | ({"startTaskInfo": node.start_task} if node.start_task else {}))
        return 200, {"value": self._filtered(rows, call, azure_odata.NODES)}

    # ------------------------------------------------ tasks

    def _add_one(self, call: Call, job: str) -> tuple[int, Any]:
        self._accepts_tasks(job)
        self._make_task(job, call.body)
        return 201, None

    def _add_many(self, call: Call, job: str) -> tuple[int, Any]:
        self._accepts_tasks(job)
        if not 1 <= len(call.body["value"]) <= 100:
            raise Refusal(400, "InvalidRequestBody", "1 to 100 tasks")
        said = []
        for spec in call.body["value"]:
            try:
                self._make_task(job, spec)
                said.append({"status": "success", "taskId": spec["id"], "eTag": '"1"'})
            except Refusal as refusal:
                kind = "servererror" if refusal.status >= 500 else "clienterror"
                said.append({"status": kind, "taskId": spec["id"], "error": refusal.body()})
        return 200, {"value": said}

    def _accepts_tasks(self, job: str) -> None:
        state = self._job(job)["state"]
        if state != "active":
            code = "JobCompleted" if state == "completed" else "JobDisabled" if state == "disabled" else "JobNotActive"
            raise Refusal(409, code, f"The specified job is {state}.")

    def _make_task(self, job: str, spec: dict[str, Any]) -> None:
        check(spec, TASK)
        id = spec["id"]
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id) or len(spec.get("displayName", "")) > 1024:
            raise Refusal(400, "InvalidPropertyValue", f"{id} is no id")
        if fault := self._fault(f"task {id}"):
            fault.does(Call(None, "", (), {}, spec, lambda: (0, None, {})))  # type: ignore[arg-type]
        if id in self.tasks[job]:
            raise Refusal(409, "TaskExists", "The specified task already exists.")
        task = self.tasks[job][id] = Task(spec, self.root / job / id, since=now())
        if self.hold_next:
            self.hold_next, task.held = self.hold_next - 1, True
        if self.strange_next:
            self.strange_next, task.strange = self.strange_next - 1, "hibernating"
        if self.die_next:
            self.die_next -= 1
            complete(task, failed=failure("ContainerInvalidImage", self.die_words))
        if self.vanish_next:
            self.vanish_next -= 1
            del self.tasks[job][id]

    def _list(self, call: Call, job: str) -> tuple[int, Any]:
        self._job(job)
        rows = self._filtered([self._shown(task) for task in self.tasks[job].values()], call, azure_odata.TASKS)
        size = min(int(call.query.get("maxresults") or 1000), self.page)
        first = int(call.query.get("$skiptoken") or 0)
        page: dict[str, Any] = {"value": rows[first : first + size]}
        if first + size < len(rows):
            more = {**call.query, "$skiptoken": str(first + size)}
            page["odata.nextLink"] = f"{self.url}/jobs/{quote(job)}/tasks?{urlencode(more)}"
        return 200, page

    def _filtered(self, rows: list[dict[str, Any]], call: Call, allowed: tuple[str, ...]) -> list[dict[str, Any]]:
        try:
            test = azure_odata.compiled(call.query.get("$filter", ""), allowed)
        except azure_odata.BadFilter as wrong:
            raise Refusal(400, "InvalidQueryParameterValue", str(wrong)) from wrong
        columns = [name for name in call.query.get("$select", "").split(",") if name]
        found = [row for row in rows if test(row)]
        return [{name: row[name] for name in columns if name in row} for row in found] if columns else found

    def _get_task(self, call: Call, job: str, id: str) -> tuple[int, Any]:
        return 200, self._shown(self._task(job, id))

    def _task(self, job: str, id: str) -> Task:
        self._job(job)
        if id not in self.tasks[job]:
            raise Refusal(404, "TaskNotFound", "The specified task does not exist.")
        return self.tasks[job][id]

    def _shown(self, task: Task) -> dict[str, Any]:
        info: dict[str, Any] = {"requeueCount": task.requeues, "retryCount": 0}
        for name, value in (("startTime", task.started), ("endTime", task.ended), ("exitCode", task.exit_code)):
            if value not in ("", None):
                info[name] = value
        if task.failure:
            info["failureInfo"] = task.failure
        if task.state == "completed":
            info["result"] = "failure" if task.failure else "success"
        shown = {**task.spec, "state": task.strange or task.state, "stateTransitionTime": task.since}
        shown |= {
            "executionInfo": info,
            "creationTime": task.since,
            "url": f"{self.url}/tasks/{task.id}",
            "eTag": '"1"',
        }
        return shown | ({"nodeInfo": {"nodeId": task.node, "poolId": "pool-1"}} if task.node else {})

    def _terminate(self, call: Call, job: str, id: str) -> tuple[int, Any]:
        task = self._task(job, id)
        if task.state == "completed":
            raise Refusal(409, "TaskCompleted", "The specified task is already in a completed state.")
        kill(task)
        complete(task, failed=failure("TaskEnded", "Task Was Ended by User Request"))
        return 204, None

    def _delete(self, call: Call, job: str, id: str) -> tuple[int, Any]:
        kill(self._task(job, id))
        del self.tasks[job][id]
        return 200, None

    def _files(self, call: Call, job: str, id: str) -> tuple[int, Any]:
        folder = self._ran(job, id).folder
        paths = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.exists() else []
        rows = [
            {"name": path.name, "isDirectory": False, "properties": {"contentLength": str(path.stat().st_size)}}
            for path in paths
        ]
        return 200, {"value": self._filtered(rows, call, azure_odata.FILES)}

    def _ran(self, job: str, id: str) -> Task:
        task = self._task(job, id)
        if not task.node:
            raise Refusal(409, "TaskFilesUnavailable", "The task has not run.")
        return task

    def _file(self, call: Call, job: str, id: str, name: str) -> tuple[int, Any, dict[str, str]]:
        path = self._ran(job, id).folder / name
        if "/" in name or not path.exists():
            raise Refusal(404, "FileNotFound", "The specified file does not exist.")
        content = path.read_bytes()
        asked = call.handler.headers.get("ocp-range")
        if asked:
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        headers = {"Content-Type": "application/octet-stream", "Last-Modified": formatdate(usegmt=True)}
        headers |= {"ocp-batch-file-isdirectory": "false", "ocp-batch-file-url": self.url + call.handler.path}
        return 200, content, headers | {"ocp-batch-file-mode": "100644"}

    # ------------------------------------------------ processes

    def _all(self) -> list[Task]:
        return [task for tasks in self.tasks.values() for task in tasks.values()]

    def _pass_time(self) -> None:
        """Processes that are over are seen; those that wait get a slot."""
        free = self._slots
        for task in self._all():
            if task.process and task.state == "running" and task.process.poll() is not None:
                status = task.process.returncode
                code = status if status >= 0 else 128 - status
                failed = failure("FailureExitCode", "The task process exited with an unexpected exit code")
                complete(task, code, failed if code else None)
            free -= task.state == "running"
        for job, tasks in self.tasks.items():
            if self.jobs[job]["state"] == "active":
                for task in tasks.values():
                    if task.state == "active" and not task.held and free > 0 and self._has_node(job):
                        self._start(task, self._has_node(job))
                        free -= 1

    def _has_node(self, job: str) -> str:
        nodes = self.nodes.get(self.jobs[job]["poolInfo"]["poolId"], [])
        return next((node.id for node in nodes if node.state in ("idle", "running")), "")

    def _start(self, task: Task, node: str) -> None:
        task.state, task.node, task.started, task.since = "running", node, now(), now()
        if self.runs:
            start(task, node, self.root / "tmp")


_ROUTES: tuple[tuple[str, str, tuple[str, ...], Callable[..., Any]], ...] = (
    ("job", "GET", ("jobs", "*"), FakeBatch._get_job),
    ("make job", "POST", ("jobs",), FakeBatch._post_job),
    ("pool", "GET", ("pools", "*"), FakeBatch._get_pool),
    ("make pool", "POST", ("pools",), FakeBatch._post_pool),
    ("formula", "POST", ("pools", "*", "evaluateautoscale"), FakeBatch._evaluate),
    ("counts", "GET", ("nodecounts",), FakeBatch._counts),
    ("nodes", "GET", ("pools", "*", "nodes"), FakeBatch._get_nodes),
    ("add", "POST", ("jobs", "*", "tasks"), FakeBatch._add_one),
    ("add", "POST", ("jobs", "*", "addtaskcollection"), FakeBatch._add_many),
    ("list", "GET", ("jobs", "*", "tasks"), FakeBatch._list),
    ("task", "GET", ("jobs", "*", "tasks", "*"), FakeBatch._get_task),
    ("terminate", "POST", ("jobs", "*", "tasks", "*", "terminate"), FakeBatch._terminate),
    ("delete", "DELETE", ("jobs", "*", "tasks", "*"), FakeBatch._delete),
    ("file", "GET", ("jobs", "*", "tasks", "*", "files", "*"), FakeBatch._file),
    ("files", "GET", ("jobs", "*", "tasks", "*", "files"), FakeBatch._files),
)
