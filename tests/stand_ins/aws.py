"""AWS on this machine: moto behind real HTTP, with every call counted and faults that can be ordered.

    with AwsStandIn() as aws:
        aws.order(Fault("batch", "SubmitJob", Answer("TooManyRequestsException", 429)))
        boto3.client("batch", endpoint_url=aws.url)
        aws.calls["batch", "submitjob"]

Credentials are not checked: `aws.credentials` are those to be put into the environment. moto keeps its accounts in
this process, so there is one stand-in at a time; it begins empty.
"""

import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs

from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


@dataclass(frozen=True)
class Answer:
    """An error that AWS says before it does anything."""

    code: str
    status: int = 400
    text: str = "as was ordered"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Garbage:
    """A page of HTML from something in between, with status 200."""

    body: bytes = b"<html><body>login please</body></html>"


@dataclass(frozen=True)
class CutBefore:
    """The connection is cut, and nothing was done."""


@dataclass(frozen=True)
class CutAfter:
    """It is done, and the connection is cut."""


@dataclass(frozen=True)
class Hang:
    """No answer comes, and nothing is done."""


What = Answer | Garbage | CutBefore | CutAfter | Hang


@dataclass
class Fault:
    service: str  # as in the signature: batch, autoscaling, ec2, sqs, logs, sts
    action: str
    what: What
    times: int = 1
    after: int = 0  # so many calls are served first
    only: Callable[[bytes], bool] = lambda _body: True

    def meets(self, service: str, action: str, body: bytes) -> bool:
        return (self.service, self.action.lower()) == (service, action) and self.only(body)


class AwsStandIn:
    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()  # by (service, action in lower case)
        self.bodies: list[tuple[str, str, bytes]] = []  # every request, as it came
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._closing = threading.Event()
        self._moto: Application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    credentials: Mapping[str, str] = {
        "AWS_ACCESS_KEY_ID": "AKIASTANDIN",
        "AWS_SECRET_ACCESS_KEY": "stand-in",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        moto_api_backend.reset()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        moto_api_backend.reset()

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """For the test's own look at things; its calls are counted like all others."""
        import boto3

        if (service, region) not in self._clients:
            self._clients[service, region] = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id="AKIASTANDIN",
                aws_secret_access_key="stand-in",
            )
        return self._clients[service, region]

    def forget(self) -> None:
        """As it was at the beginning: for the next test, because a server of its own takes longer than most tests."""
        self.relent()
        moto_api_backend.reset()
        self.calls.clear()
        self.bodies.clear()

    def order(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def relent(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def count(self, service: str) -> int:
        return sum(number for (name, _), number in self.calls.items() if name == service)

    # ------------------------------------------------ one request

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        service, action = _asked(environ, body)
        with self._lock:
            self.calls[service, action] += 1
            self.bodies.append((service, action, body))
            fault = self._due(service, action, body)
        if fault is None:
            return self._moto(environ, start_response)
        return self._spoil(fault, service, environ, start_response)

    def _due(self, service: str, action: str, body: bytes) -> What | None:
        for fault in self._faults:
            if not fault.meets(service, action, body):
                continue
            if fault.after:
                fault.after -= 1
                return None
            fault.times -= 1
            if not fault.times:
                self._faults.remove(fault)
            return fault.what
        return None

    def _spoil(self, what: What, service: str, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        if isinstance(what, Answer):
            return _refuse(what, service, start)
        if isinstance(what, Garbage):
            start("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(what.body)))])
            return [what.body]
        if isinstance(what, CutAfter):
            for _ in self._moto(environ, lambda *_: lambda _data: None):
                pass
        if isinstance(what, Hang):
            self._closing.wait(60)
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start("500 Cut", [("Content-Length", "0")])
        return [b""]


class _Quiet(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _asked(environ: Environ, body: bytes) -> tuple[str, str]:
    """(service, action), from the signature and from wherever that service's protocol says what is wanted."""
    words = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
    service = words[3] if len(words) > 3 else ""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return service, target.rpartition(".")[2].lower()
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return service, parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0].lower()
    return service, environ.get("PATH_INFO", "").strip("/").partition("/")[2].partition("/")[0].lower()


def _refuse(answer: Answer, service: str, start: StartResponse) -> Iterable[bytes]:
    """In the words of the service's protocol."""
    if service in ("ec2", "autoscaling", "sts", "iam", "cloudformation"):
        error = f"<Error><Code>{answer.code}</Code><Message>{answer.text}</Message></Error>"
        inner = f"<Errors>{error}</Errors>" if service == "ec2" else error
        outer = "Response" if service == "ec2" else "ErrorResponse"
        kind, text = "text/xml", f"<{outer}>{inner}<RequestID>0</RequestID></{outer}>"
    else:
        kind, text = "application/json", json.dumps({"__type": answer.code, "message": answer.text})
    body = text.encode()
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), "x-amzn-ErrorType": answer.code}
    start(f"{answer.status} Ordered", list((headers | dict(answer.headers)).items()))
    return [body]
