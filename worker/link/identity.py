"""Who this worker is, by the word of its platform: for workers that share what they are started with, and so can hold
no token of their own.

On EC2 the instance has the credentials of its role. With them the agent signs an `sts:GetCallerIdentity`, which the hub
sends on, and so learns from AWS which instance has signed. The keys never leave this process, and the signature covers
the hub's name and this registration: nobody else, and no other hub, can use it.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import json
import os
import time
from typing import Any, Callable, Dict, Mapping, NamedTuple

from worker import metadata
from worker.link.address import Endpoint
from worker.link.connection import Unreachable
from worker.protocol import HUB_HEADER, IDENTITY_BODY, WORKER_HEADER, Identity

SIGNED_AGAIN_MS = 120_000  # AWS takes a signature for five minutes; until then a repeat costs it nothing
CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"


class Keys(NamedTuple):
    """Of the instance's role, and where it is."""

    access_key: str
    secret_key: str
    session_token: str
    region: str
    domain: str  # amazonaws.com, in China amazonaws.com.cn

    def __repr__(self) -> str:
        return "Keys(region=%s)" % self.region  # they are nobody's business


class Identification:
    """Says who we are, anew when the last word is getting old."""

    def __init__(
        self,
        hub: Endpoint,
        nonce: str,
        credential_sha256: str,
        env: Mapping[str, str],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._metadata = metadata.aws_at(env)
        self._bound_to = {HUB_HEADER: name_of(hub), WORKER_HEADER: "%s %s" % (nonce, credential_sha256)}
        self._now_ms = now_ms
        self._signed_at = 0
        self._last: Identity = {}

    def now(self) -> Identity:
        """Raises Unreachable, and is to be asked again, while the instance does not tell its role."""
        now = self._now_ms()
        if not self._last or not 0 <= now - self._signed_at < SIGNED_AGAIN_MS:
            self._last = {"kind": "aws", "headers": signed(keys_of(self._metadata), self._bound_to, now // 1000)}
            self._signed_at = now
        return self._last

    def forget(self) -> None:
        """It was not believed: the next word is a new one, with new keys."""
        self._last = {}


def name_of(hub: Endpoint) -> str:
    """As whom we know the hub: where it is, and what we pin of its certificates."""
    return "%s %s" % (hub, "sha256:" + hub.fingerprint if hub.fingerprint else "-")


# ---------------------------------------------------------------- the signature


def signed(keys: Keys, bound_to: Mapping[str, str], at_s: int) -> Dict[str, str]:
    """The headers of `POST / Action=GetCallerIdentity`, by signature version 4, all of them signed."""
    host = "sts.%s.%s" % (keys.region, keys.domain)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))
    headers = {"content-type": CONTENT_TYPE, "host": host, "x-amz-date": stamp, **bound_to}
    if keys.session_token:
        headers["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(headers))
    lines = "".join("%s:%s\n" % (name, headers[name]) for name in sorted(headers))
    request = "POST\n/\n\n%s\n%s\n%s" % (lines, names, _sha256(IDENTITY_BODY))
    scope = "%s/%s/sts/aws4_request" % (stamp[:8], keys.region)
    to_sign = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (stamp, scope, _sha256(request))
    key = ("AWS4" + keys.secret_key).encode()
    for part in (stamp[:8], keys.region, "sts", "aws4_request"):
        key = _hmac(key, part)
    headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        keys.access_key,
        scope,
        names,
        _hmac(key, to_sign).hex(),
    )
    return headers


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


# ---------------------------------------------------------------- the instance


def keys_of(at: str) -> Keys:
    """By version 2 of the instance's metadata service. Raises Unreachable."""
    token = _ask(at, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    by = {"X-aws-ec2-metadata-token": token}
    roles = "/latest/meta-data/iam/security-credentials/"
    role = _ask(at, "GET", roles, by).splitlines()
    if not role:
        raise Unreachable("this instance has no role: give its launch template an instance profile")
    told = _object(_ask(at, "GET", roles + role[0].strip(), by))
    region = _ask(at, "GET", "/latest/meta-data/placement/region", by).strip()
    domain = _ask(at, "GET", "/latest/meta-data/services/domain", by).strip()
    access_key, secret_key, session_token = (
        str(told.get(n) or "") for n in ("AccessKeyId", "SecretAccessKey", "Token")
    )
    keys = Keys(access_key, secret_key, session_token, region, domain)
    if told.get("Code", "Success") != "Success" or not all((keys.access_key, keys.secret_key, keys.region)):
        raise Unreachable("the keys of this instance's role are not there: %s" % str(told.get("Code"))[:100])
    return keys


def _ask(at: str, method: str, path: str, headers: Mapping[str, str]) -> str:
    try:
        status, text = metadata.ask(at, method, path, headers)
    except Unreachable as error:
        raise Unreachable(
            "the metadata service of this instance does not answer (%s); from within a container it needs a hop limit "
            "of 2" % error
        ) from None
    if status == 404 and path.endswith("security-credentials/"):
        return ""
    if status != 200:
        raise Unreachable("the metadata service of this instance answers %d to %s" % (status, path))
    return text


def _object(text: str) -> Dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Unreachable("the metadata service of this instance answers with something else than keys")
    return value


def identification(hub: Endpoint, nonce: str, credential_sha256: str) -> Identification:
    return Identification(hub, nonce, credential_sha256, os.environ)
