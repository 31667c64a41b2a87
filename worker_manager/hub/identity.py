"""Who a worker without a token is, by the word of its platform: pure.

The worker signs an `sts:GetCallerIdentity` and sends the signed headers; the hub puts the request together, sends it to
AWS and reads who signed it. Only the hub's own choice of method, path and body is ever sent, only to AWS, and only
when the signature covers our name and the worker's credential: a proof that was made for another hub, or that somebody
overheard, is worth nothing here.
https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from worker.protocol import HUB_HEADER, IDENTITY_BODY, JOIN_HEADERS, WORKER_HEADER

KINDS = ("aws",)
HOST = re.compile(r"sts(?:-fips)?(?:\.[a-z]{2}(?:-[a-z]+)+-[0-9])?\.amazonaws\.com(?:\.cn)?", re.ASCII)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[A-Z0-9]{16,128}/[0-9]{8}/[a-z0-9-]{2,32}/sts/aws4_request, ?"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]{1,500}), ?Signature=[0-9a-f]{64}",
    re.ASCII,
)
_NEEDED = frozenset({"host", "x-amz-date", *JOIN_HEADERS})
_ALLOWED = _NEEDED | {"authorization", "content-type", "x-amz-security-token"}
_LONGEST = 8192
_ROLE = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):sts::(?P<account>[0-9]{12}):assumed-role/(?P<role>[\w+=,.@-]{1,64})/(?P<session>.+)"
)
_INSTANCE = re.compile(r"i-[0-9a-f]{8,32}", re.ASCII)
_LATER = frozenset({"Throttling", "ThrottlingException", "RequestThrottled", "ServiceUnavailable", "InternalFailure"})
_ERROR_KEPT = 300


class BadProof(Exception):
    """What the worker sent proves nothing: what is wrong with it."""


@dataclass(frozen=True)
class Proof:
    """A signed request that is fit to be sent."""

    host: str
    headers: Mapping[str, str]

    body = IDENTITY_BODY.encode()

    @property
    def signature(self) -> str:
        """Names the proof: the same for a repeat, and for nothing else."""
        return self.headers["authorization"]


def proof_of(identity: Any, nonce: str, credential_sha256: str, own: "OwnNames") -> Proof:
    """Raises BadProof."""
    if not isinstance(identity, dict) or identity.get("kind") not in KINDS:
        raise BadProof(f"say by which platform you are vouched for: {', '.join(KINDS)}")
    headers = identity.get("headers")
    if not isinstance(headers, dict) or not all(_is_plain(name, value) for name, value in headers.items()):
        raise BadProof("its headers are no short texts")
    if not _NEEDED | {"authorization"} <= headers.keys() <= _ALLOWED:
        missing = sorted((_NEEDED | {"authorization"}) - headers.keys()) or sorted(headers.keys() - _ALLOWED)
        raise BadProof(f"its headers are not those of such a request: {', '.join(missing)[:200]}")
    if not HOST.fullmatch(headers["host"]):
        raise BadProof(f"{headers['host'][:100]!r} is not AWS STS")
    signed = _AUTHORIZATION.fullmatch(headers["authorization"])
    if signed is None:
        raise BadProof("its authorization is not one of AWS, signature version 4, for sts")
    unsigned = (headers.keys() & (_NEEDED | {"x-amz-security-token"})) - set(signed["signed"].split(";"))
    if unsigned:
        raise BadProof(f"its signature does not cover {', '.join(sorted(unsigned))}")
    if headers[WORKER_HEADER] != f"{nonce} {credential_sha256}":
        raise BadProof("it was signed for another registration")
    if not own.know(headers[HUB_HEADER]):
        raise BadProof(f"it was signed for the hub {headers[HUB_HEADER][:200]!r}, and this one is {own}")
    return Proof(headers["host"], headers)


def _is_plain(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and value.isascii()
        and value.isprintable()
        and len(value) <= _LONGEST
    )


@dataclass(frozen=True)
class OwnNames:
    """As whom workers may know this hub: by an address that is ours, or by what they pin of our certificates."""

    urls: Sequence[str]
    fingerprints: Sequence[str]  # SHA-256, hex

    def know(self, told: str) -> bool:
        url, _, pin = told.partition(" ")
        ours = {_plain_url(own) for own in self.urls} - {None}
        return _plain_url(url) in ours or pin.removeprefix("sha256:") in self.fingerprints

    def __str__(self) -> str:
        return " or ".join(self.urls)


def _plain_url(url: str) -> tuple[str, str, int, str] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


# ---------------------------------------------------------------- the answer


class BadAnswer(Exception):
    """What came back is no answer of the service."""


class Denied(Exception):
    """The service does not vouch for the worker: in its own words."""


def names_of(status: int, body: bytes) -> tuple[str, ...]:
    """By which the worker may be known, the surest first. Raises Denied and BadAnswer."""
    document = _xml(body)
    if status in (400, 403):
        code = _text(document, "Code")
        words = f"{code or status}: {_text(document, 'Message')[:_ERROR_KEPT]}"
        raise BadAnswer(words) if code in _LATER else Denied(words)
    if status != 200:
        raise BadAnswer(f"it answers {status}")
    arn, account = _text(document, "Arn"), _text(document, "Account")
    found = _ROLE.fullmatch(arn)
    if found is None or found["account"] != account:
        raise Denied(f"{arn[:200]} is no instance's role")
    instance = found["session"]
    if not _INSTANCE.fullmatch(instance) or not _text(document, "UserId").endswith(f":{instance}"):
        raise Denied(f"{arn[:200]} is a role, but not as an instance holds it")
    return f"aws:{account}:{found['role']}:{instance}", f"aws:{account}:{instance}"


def _xml(body: bytes) -> ElementTree.Element:
    if b"<!" in body:
        raise BadAnswer("its answer declares types")  # entities: no answer of AWS has any
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - bounded, and without entities
    except ElementTree.ParseError:
        raise BadAnswer("its answer is no XML") from None


def _text(document: ElementTree.Element, name: str) -> str:
    """Of the first element of this name, whichever its namespace."""
    for element in document.iter():
        if element.tag.rpartition("}")[2] == name:
            return (element.text or "").strip()
    return ""
