"""The one way by which managers and clients speak to a hub: HTTP with explicit time-outs, problems turned into errors.

A hub that cannot be reached is `SourceUnavailable`, a hub that says no is `HubError`; both carry a sentence for people
and neither ever carries a token. Only what is safe to repeat is repeated. Safe for use from several threads.
`requests` is imported when the first call is made, so that a command line which never calls starts at once.
"""

import ipaddress
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from worker_manager.errors import HubError, SourceUnavailable, UsageError

if TYPE_CHECKING:
    import requests

SAFE_METHODS = frozenset({"GET", "HEAD"})
TRY_AGAIN = frozenset({429, 502, 503, 504})  # the hub, or a proxy before it, did nothing
LONGEST_PAUSE_S = 10.0
SEND_S = 60.0  # that a body may stand still


@dataclass(frozen=True)
class Stream:
    """A body that is read piece by piece, for as long as the `with` block lasts."""

    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    status: int = 200


class Body(Protocol):
    """What is sent piece by piece: its length is known before."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class HubClient:
    """`token_file` is read anew for each request, so a rotated token needs no restart. `ca` is a file with the hub's
    authority; `fingerprint` is the SHA-256 of the hub's own certificate and then stands in for an authority."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca: str | Path | None = None,
        fingerprint: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        attempts: int = 4,
        allow_plaintext: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._token_file = Path(token_file) if token_file else None
        self._fingerprint = fingerprint.lower().removeprefix("sha256:").replace(":", "") if fingerprint else None
        # A pin is stricter than any authority, so beside one no authority is asked.
        self._verify: bool | str = False if self._fingerprint else str(ca) if ca else True
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._attempts = attempts
        self._loopback = _checked_address(self.url, allow_plaintext)
        self._sessions = threading.local()

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
    ) -> Any:
        """The decoded answer, None where there is no body. `timeout` bounds the wait for an answer to one attempt.
        `idempotent` says that a repeat does no harm; by default that is so for reads only."""

        def once() -> Any:
            reply = self._send(method, path, json, params, headers, timeout, stream=False)
            return _decoded(reply, self.url)

        return self._repeated(once, method in SAFE_METHODS if idempotent is None else idempotent)

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any, **options: Any) -> Any:
        return self.request("POST", path, json=json, **options)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        chunk_size: int = 65_536,
    ) -> Iterator[Stream]:
        """A GET whose body is not JSON and may be long, such as a log."""
        reply = self._repeated(lambda: self._send("GET", path, None, params, None, timeout, stream=True), True)
        try:
            yield Stream(reply.headers, self._chunks(reply, chunk_size))
        finally:
            reply.close()

    def exchange(
        self,
        method: str,
        path: str,
        *,
        body: "Body | bytes" = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, Mapping[str, str]]:
        """One request of which only status and headers of the answer count; never repeated here. A HubError has the
        answer's `Upload-Offset` under `extra["upload_offset"]`."""
        reply = self._send(method, path, None, None, headers, timeout, stream=False, body=body)
        return reply.status_code, reply.headers

    @contextmanager
    def opened(self, path: str, *, headers: Mapping[str, str], timeout: float | None = None) -> Iterator[Stream]:
        """As `stream`, once, with headers of the caller's own; a redirect is an answer, and is not followed."""
        reply = self._send("GET", path, None, None, headers, timeout, stream=True, redirects=True)
        try:
            yield Stream(reply.headers, self._chunks(reply, 262_144), reply.status_code)
        finally:
            reply.close()

    def close(self) -> None:
        """Closes this thread's connection."""
        session = getattr(self._sessions, "session", None)
        if session is not None:
            session.close()
            del self._sessions.session

    # ------------------------------------------------------------ one attempt

    def _send(
        self,
        method: str,
        path: str,
        json: Any,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
        stream: bool,
        body: "Body | bytes" = b"",
        redirects: bool = False,  # are an answer
    ) -> "requests.Response":
        import requests

        known = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            reply = self._session().request(
                method,
                self.url + path,
                json=json,
                data=body,
                params=known,
                headers={**self._credentials(), **(headers or {})},
                # The first of the two bounds sending as well, and the hub may be busy with its disk.
                timeout=(
                    SEND_S if body else self._connect_timeout_s,
                    self._read_timeout_s if timeout is None else timeout,
                ),
                verify=self._verify,  # given each time, or REQUESTS_CA_BUNDLE would take its place
                allow_redirects=False,  # a redirect could carry the token somewhere else
                stream=stream,
            )
        except requests.exceptions.InvalidJSONError:
            raise UsageError("what was to be sent holds a number that JSON does not know: NaN or an infinity") from None
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            raise UsageError("a token or a key is plain letters, digits and signs in one line; this is none") from None
        except (requests.RequestException, OSError) as error:
            raise _Unreached(f"the hub at {self.url} cannot be reached: {_plain(error)}") from None
        if reply.status_code >= 300 and not (redirects and reply.is_redirect):
            raise _problem(reply)
        return reply

    def _chunks(self, reply: "requests.Response", size: int) -> Iterator[bytes]:
        import requests

        try:
            yield from reply.iter_content(size)
        except (requests.RequestException, OSError) as error:
            raise SourceUnavailable(f"the hub at {self.url} broke off: {_plain(error)}") from None

    def _session(self) -> "requests.Session":
        """One for each thread: a long poll never holds up a report."""
        import requests

        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = not self._loopback  # decided once: a proxy is for elsewhere
            session.auth = _no_netrc
            if self._fingerprint:
                session.mount("https://", _pinned(self._fingerprint))
            self._sessions.session = session
        return session

    def _credentials(self) -> dict[str, str]:
        token = self._token
        if self._token_file is not None:
            try:
                token = self._token_file.read_text().strip()
            except OSError as error:
                raise UsageError(f"the token file {self._token_file} cannot be read: {error.strerror}") from None
        return {"Authorization": f"Bearer {token}"} if token else {}

    # ------------------------------------------------------------ repeats

    def _repeated(self, once: Callable[[], Any], idempotent: bool) -> Any:
        if not idempotent or self._attempts == 1:
            return once()
        import tenacity

        backoff = tenacity.wait_exponential_jitter(multiplier=0.05, max=2.0, jitter=0.1)

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.extra.get("retry_after_s") if isinstance(error, HubError) else None
            return min(LONGEST_PAUSE_S, asked) if asked is not None else backoff(state)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=pause,
            reraise=True,
        )(once)


class _Unreached(SourceUnavailable):
    """No answer came. Its public name is SourceUnavailable."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _Unreached) or (isinstance(error, HubError) and error.status in TRY_AGAIN)


def _checked_address(url: str, allow_plaintext: bool) -> bool:
    """Whether it is this machine. Refuses what would send a token in the clear over a network."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not the address of a hub: write https://host:port")
    if parts.username or parts.password:
        raise UsageError("the address of a hub carries no password: give a token file")
    loopback = _is_loopback(parts.hostname)
    if parts.scheme == "http" and not loopback and not allow_plaintext:
        raise UsageError(f"{url} would send the token in the clear: use https:// off this machine")
    return loopback


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pinned(fingerprint: str) -> Any:
    from requests.adapters import HTTPAdapter

    class Pinned(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, assert_fingerprint=fingerprint, **options)

        def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
            return super().proxy_manager_for(*args, assert_fingerprint=fingerprint, **options)

    return Pinned()


def _no_netrc(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    """A ~/.netrc would replace our token."""
    return request


def _decoded(reply: "requests.Response", url: str) -> Any:
    if not reply.content:
        return None
    try:
        return reply.json()
    except ValueError:
        raise SourceUnavailable(f"{url} answered, but not in JSON: is it a hub?") from None


def _problem(reply: "requests.Response") -> HubError:
    """The problem document (RFC 9457) as an error; a proxy's page becomes one as well."""
    try:
        document = reply.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    extra = {name: value for name, value in document.items() if name not in ("status", "code", "detail")}
    pause = _seconds(reply.headers.get("Retry-After"))
    if pause is not None:
        extra["retry_after_s"] = pause
    offset = reply.headers.get("Upload-Offset", "")
    if offset.isascii() and offset.isdigit():
        extra["upload_offset"] = int(offset)
    detail = str(document.get("detail") or document.get("title") or f"the hub answered {reply.status_code}")
    return HubError(reply.status_code, str(document.get("code") or f"http-{reply.status_code}"), detail, extra)


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None  # a date: nobody sends one here


def _plain_tls(text: str) -> str:
    if "ingerprint" in text:
        return "TLS failed: its certificate is not the one with the given fingerprint"
    if found := re.search(r"certificate verify failed: ([^('\"]+)", text):
        hint = "give the file of its authority (--ca) or its fingerprint (--fingerprint)"
        return f"TLS failed: its certificate is not trusted: {found.group(1).strip()}; {hint}"
    return "TLS failed: " + text[:200]


def _plain(error: BaseException) -> str:
    """One short cause instead of the chain of wrappers that the HTTP libraries build."""
    names = {
        "ConnectTimeout": "no connection in time",
        "ReadTimeout": "no answer in time",
    }
    name = type(error).__name__
    if name in names:
        return names[name]
    text = str(error)
    if name == "SSLError":
        return _plain_tls(text)
    for sign, sentence in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "the host's name is unknown"),
        ("Temporary failure in name resolution", "the host's name cannot be resolved now"),
        ("RemoteDisconnected", "it closed the connection without an answer"),
        ("Connection reset", "it cut the connection"),
        ("timed out", "no answer in time"),
    ):
        if sign in text:
            return sentence
    return name
