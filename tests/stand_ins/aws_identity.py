"""What an EC2 instance and its hub need of AWS to say who is who: instance metadata, and STS.

    cloud = Cloud()
    instance = cloud.instance("i-0abc…", role="workers")
    with FakeSts(cloud) as sts, FakeMetadata(instance) as metadata: …

STS checks signatures with botocore's own signer, the time of signing and what it was asked. Metadata: version 2 only.
"""

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

ACCOUNT = "123456789012"
REGION = "eu-west-1"
GOOD_FOR = timedelta(minutes=5)


@dataclass(frozen=True)
class Instance:
    """One that holds the credentials of its role."""

    id: str
    account: str = ACCOUNT
    role: str = "workers"
    access_key: str = field(default_factory=lambda: "ASIA" + secrets.token_hex(8).upper())
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    session_token: str = field(default_factory=lambda: secrets.token_urlsafe(300))

    @property
    def arn(self) -> str:
        return f"arn:aws:sts::{self.account}:assumed-role/{self.role}/{self.id}"


class Cloud:
    """Who there is."""

    def __init__(self) -> None:
        self.by_key: dict[str, Instance] = {}

    def instance(self, id: str = "", **more: str) -> Instance:
        one = Instance(id or f"i-{secrets.token_hex(8)}0", **more)
        self.by_key[one.access_key] = one
        return one


class _Server(AbstractContextManager[Any]):
    """On loopback, in threads that end with it."""

    def __init__(self, answer: Callable[["_Asked"], tuple[int, str]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, text = answer(_Asked(self.command, self.path, headers, body))
                self.send_response(status)
                data = text.encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True)
class _Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


# ---------------------------------------------------------------- STS


class FakeSts(_Server):
    """`asked` counts its requests. While `down` is set it answers nothing but that; `now` is its clock."""

    def __init__(self, cloud: Cloud, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.cloud = cloud
        self.now = now
        self.down = ""
        self.asked = 0
        super().__init__(self._answer)

    def _answer(self, asked: _Asked) -> tuple[int, str]:
        self.asked += 1
        if self.down:
            return 503, self.down
        try:
            return 200, _identity_xml(self._caller(asked))
        except _Wrong as wrong:
            return 403, _error_xml(wrong.code, str(wrong))

    def _caller(self, asked: _Asked) -> Instance:
        wanted = {"Action": "GetCallerIdentity", "Version": "2011-06-15"}
        if asked.method != "POST" or asked.path != "/" or dict(parse_qsl(asked.body.decode())) != wanted:
            raise _Wrong("InvalidAction", f"{asked.method} {asked.path} {asked.body[:100]!r}")
        scheme, _, rest = asked.headers.get("authorization", "").partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        if scheme != "AWS4-HMAC-SHA256" or parts.keys() != {"Credential", "SignedHeaders", "Signature"}:
            raise _Wrong("IncompleteSignature", "the authorization header is not one")
        key, day, region, service, end = parts["Credential"].split("/")
        caller = self.cloud.by_key.get(key)
        if caller is None or asked.headers.get("x-amz-security-token") != caller.session_token:
            raise _Wrong("InvalidClientTokenId", "The security token included in the request is invalid.")
        self._refuse_stale(asked.headers.get("x-amz-date", ""), day)
        signed = {name: asked.headers[name] for name in parts["SignedHeaders"].split(";")}
        if {"host", "x-amz-date"} - signed.keys() or (service, end) != ("sts", "aws4_request"):
            raise _Wrong("SignatureDoesNotMatch", "the signature does not cover what it must")
        if parts["Signature"] != signature_by_botocore(caller, region, signed, asked.body):
            raise _Wrong("SignatureDoesNotMatch", "The request signature we calculated does not match.")
        return caller

    def _refuse_stale(self, stamp: str, day: str) -> None:
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(self.now() - at) > GOOD_FOR or not stamp.startswith(day):
            raise _Wrong("SignatureDoesNotMatch", f"Signature expired: {stamp}")


class _Wrong(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def signature_by_botocore(caller: Instance, region: str, headers: Mapping[str, str], body: bytes) -> str:
    """What AWS's own signer makes of exactly these headers."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("POST", f"https://{headers['host']}/", headers=dict(headers), data=body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(caller.access_key, caller.secret_key, caller.session_token), "sts", region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _identity_xml(caller: Instance) -> str:
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>{caller.arn}</Arn><UserId>AROA3XFRBF535EXAMPLE:{caller.id}</UserId><Account>{caller.account}</Account>"
        "</GetCallerIdentityResult><ResponseMetadata><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>"
        "</ResponseMetadata></GetCallerIdentityResponse>"
    )


def _error_xml(code: str, text: str) -> str:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{text}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )


# ---------------------------------------------------------------- the instance's own metadata


class FakeMetadata(_Server):
    """Version 2: nothing without a session token. `missing` paths are not there (yet)."""

    def __init__(self, instance: Instance, region: str = REGION) -> None:
        self.instance = instance
        self.region = region
        self.missing: set[str] = set()
        self._sessions: set[str] = set()
        super().__init__(self._answer)

    def _answer(self, asked: _Asked) -> tuple[int, str]:
        if asked.method == "PUT" and asked.path == "/latest/api/token":
            if not 0 < int(asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "0")) <= 21_600:
                return 400, ""
            session = secrets.token_urlsafe(40)
            self._sessions.add(session)
            return 200, session
        if asked.headers.get("x-aws-ec2-metadata-token") not in self._sessions:
            return 401, ""
        text = self._tree().get(asked.path)
        return (404, "") if text is None or asked.path in self.missing else (200, text)

    def _tree(self) -> dict[str, str]:
        one, keys = self.instance, "/latest/meta-data/iam/security-credentials/"
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": one.access_key,
            "SecretAccessKey": one.secret_key,
            "Token": one.session_token,
            "Expiration": (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return {
            keys: one.role,
            keys + one.role: json.dumps(credentials),
            "/latest/meta-data/instance-id": one.id,
            "/latest/meta-data/placement/region": self.region,
            "/latest/meta-data/services/domain": "amazonaws.com",
        }
