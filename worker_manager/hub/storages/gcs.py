"""Google Cloud Storage: V4 signed URLs, made with google-auth's signer, and its JSON API to look and to list.

Who signs: a service account's key where the hub has one (`GOOGLE_APPLICATION_CREDENTIALS`), else the service account
that the machine has, which then asks IAM for each signature (`iam.serviceAccounts.signBlob` on itself).
`STORAGE_EMULATOR_HOST` names another address, as for Google's own libraries.

What is sent has its SHA-256 in the signature (`x-goog-content-sha256`), and again beside the object
(`x-goog-meta-sha256`), where whoever fetches it finds it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from os import environ
from threading import Lock
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import google.auth
import requests
from google.auth import exceptions as google_errors
from google.auth import iam
from google.auth.transport.requests import AuthorizedSession, Request

from worker_manager.hub.files.names import Source
from worker_manager.hub.storages.base import (
    CONNECT_S,
    READ_S,
    Address,
    Object,
    StorageRefuses,
    forbidden,
    missing,
    no_identity,
    unavailable,
)

T = TypeVar("T")
HOST = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
GET, LIST, SIGN = "storage.objects.get", "storage.objects.list", "iam.serviceAccounts.signBlob on itself"
DIGEST = "x-goog-meta-sha256"
PAYLOAD = "x-goog-content-sha256"
FIELDS = "name,size,etag,metadata"


class Identity(NamedTuple):
    email: str
    sign: Callable[[bytes], bytes]
    session: Any  # requests', with the hub's own authority


class GoogleStorage:
    largest_put = 5 * 2**40

    def __init__(self, identity: Identity | None = None, variables: Mapping[str, str] = environ) -> None:
        self._identity = identity
        self._lock = Lock()
        named = variables.get("STORAGE_EMULATOR_HOST", "")
        self._host = (named if "://" in named or not named else f"http://{named}").rstrip("/") or HOST

    def look(self, source: Source) -> Object:
        found = self._json(source, GET, f"/o/{quote(source.key, safe='')}", {"fields": FIELDS})
        return _object(found)

    def below(self, source: Source) -> Iterator[Object]:
        asked = {"prefix": source.key, "fields": f"items({FIELDS}),nextPageToken", "maxResults": "1000"}
        while True:
            page = self._json(source, LIST, "/o", asked)
            yield from (_object(each) for each in page.get("items", ()))
            if not page.get("nextPageToken"):
                return
            asked["pageToken"] = str(page["nextPageToken"])

    def to_get(self, source: Source, life_s: int) -> Address:
        return Address(self._signed("GET", source, {}, life_s))

    def to_put(self, source: Source, size: int, sha256: str, life_s: int) -> Address:
        headers = {"content-length": str(size), DIGEST: sha256, PAYLOAD: sha256}
        return Address(self._signed("PUT", source, headers, life_s), headers)

    # ------------------------------------------------------------ signing

    def _signed(self, method: str, source: Source, headers: Mapping[str, str], life_s: int) -> str:
        who = self._who(source)
        return signed_url(
            method,
            self._host,
            f"/{source.where}/{quote(source.key, safe='/~')}",
            headers,
            email=who.email,
            sign=lambda data: _said(source, SIGN, lambda: who.sign(data)),
            at=datetime.now(UTC),
            life_s=life_s,
        )

    def _json(self, source: Source, right: str, path: str, asked: Mapping[str, str]) -> Any:
        url = f"{self._host}/storage/v1/b/{quote(source.where, safe='')}{path}"
        session = self._who(source).session

        def ask() -> Any:
            reply = session.get(url, params=asked, timeout=(CONNECT_S, READ_S))
            if reply.status_code >= 300:
                raise _refusal(source, right, reply)
            return reply.json()

        return _said(source, right, ask)

    def _who(self, source: Source) -> Identity:
        with self._lock:
            if self._identity is None:
                self._identity = _said(source, SIGN, _own_identity)
            return self._identity


def _own_identity() -> Identity:
    credentials: Any
    credentials, _ = google.auth.default(scopes=[SCOPE])
    session = AuthorizedSession(credentials)
    if hasattr(credentials, "sign_bytes") and not _of_the_machine(credentials):
        return Identity(str(credentials.signer_email), credentials.sign_bytes, session)
    credentials.refresh(Request())  # tells the machine's account its name
    email = str(getattr(credentials, "service_account_email", "") or "")
    if not email or email == "default":
        raise google_errors.DefaultCredentialsError(
            "these credentials are a person's: signing needs a service account's"
        )
    return Identity(email, iam.Signer(Request(), credentials, email).sign, session)


def _of_the_machine(credentials: Any) -> bool:
    return type(credentials).__module__.startswith("google.auth.compute_engine")


def signed_url(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    *,
    email: str,
    sign: Callable[[bytes], bytes],
    at: datetime,
    life_s: int,
) -> str:
    """V4, as https://cloud.google.com/storage/docs/authentication/signatures has it. `headers` are all signed."""
    day, moment = at.strftime("%Y%m%d"), at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day}/auto/storage/goog4_request"
    signed = {**{name.lower(): " ".join(value.split()) for name, value in headers.items()}}
    signed["host"] = host.partition("://")[2]
    names = ";".join(sorted(signed))
    query = {
        "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
        "X-Goog-Credential": f"{email}/{scope}",
        "X-Goog-Date": moment,
        "X-Goog-Expires": str(life_s),
        "X-Goog-SignedHeaders": names,
    }
    asked = "&".join(f"{quote(name, safe='~')}={quote(query[name], safe='~')}" for name in sorted(query))
    payload = signed.get(PAYLOAD, "UNSIGNED-PAYLOAD")
    canonical = "\n".join(
        [method, path, asked, *(f"{name}:{signed[name]}" for name in sorted(signed)), "", names, payload]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = sign("\n".join(["GOOG4-RSA-SHA256", moment, scope, digest]).encode()).hex()
    return f"{host}{path}?{asked}&X-Goog-Signature={signature}"


# ---------------------------------------------------------------- answers


def _object(found: Mapping[str, Any]) -> Object:
    told = str((found.get("metadata") or {}).get("sha256", ""))
    digest = told if len(told) == 64 and not set(told) - set("0123456789abcdef") else ""
    return Object(str(found["name"]), int(found["size"]), str(found["etag"]), digest)


def _said(source: Source, right: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (google_errors.DefaultCredentialsError, google_errors.RefreshError) as error:
        raise no_identity(source, str(error)[:300]) from None
    except google_errors.TransportError as error:
        if "PERMISSION_DENIED" in str(error) or "403" in str(error):
            raise forbidden(source, right, "IAM answers 403") from None
        raise unavailable(source, str(error)[:300]) from None
    except (requests.RequestException, OSError) as error:
        raise unavailable(source, type(error).__name__) from None


def _refusal(source: Source, right: str, reply: "requests.Response") -> StorageRefuses:
    if reply.status_code == 404:
        return missing(source)
    if reply.status_code in (401, 403):
        return forbidden(source, right, f"it answers {reply.status_code}")
    if reply.status_code < 500 and reply.status_code not in (408, 429):
        return StorageRefuses("storage-refuses", f"{source}: its storage answers {reply.status_code}")
    return unavailable(source, f"it answers {reply.status_code}")
