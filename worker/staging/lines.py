"""Connections to where files are: to the hub as it was pinned, to everything else by the environment's proxies and CAs.

Kept for a while after use, because many small files come from one place.
"""

import base64
import contextlib
import http.client
import ipaddress
import select
import socket
import ssl
import threading
import time
from typing import Dict, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import SplitResult, unquote, urlsplit

from worker.link import pinned
from worker.link.address import Endpoint
from worker.link.connection import plain
from worker.staging.errors import BrokeOff, Distrusted, Refused, StagingError
from worker.staging.stops import Stop

CONNECT_S = 15.0
TIMEOUT_S = 60.0
IDLE_S = 10.0
IDLE_LINES = 8
# Where clouds tell a machine who it is: what is said there is the worker's and no job's.
METADATA = tuple(map(ipaddress.ip_address, ("fd00:ec2::254", "168.63.129.16", "100.100.100.200")))

Origin = Tuple[str, str, int]


class Line:
    """One connection, for one request at a time."""

    def __init__(self, http: http.client.HTTPConnection, origin: Origin, proxy: "Optional[Proxy]" = None) -> None:
        self.http = http
        self.origin = origin
        self.used_before = False
        self.free_since = 0.0
        self._proxy = proxy

    def target(self, parts: SplitResult) -> str:
        path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        return "%s://%s%s" % (parts.scheme, parts.netloc.rpartition("@")[2], path) if self._by_name else path

    def headers(self) -> Dict[str, str]:
        return dict(self._proxy.headers) if self._proxy and self._by_name else {}

    @property
    def _by_name(self) -> bool:
        """A proxy is told the whole address, unless it only passes the bytes on."""
        return self._proxy is not None and self.origin[0] == "http"


class Proxy:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else "http://" + url)
        if parts.scheme != "http" or not parts.hostname:
            raise Refused("a proxy is named that cannot be used: only http:// is known")
        self.host, self.port = parts.hostname, parts.port or 80
        self.headers: Dict[str, str] = {}
        if parts.username:
            words = "%s:%s" % (unquote(parts.username), unquote(parts.password or ""))
            self.headers["Proxy-Authorization"] = "Basic " + base64.b64encode(words.encode()).decode()


class Lines:
    """Used by many threads."""

    def __init__(
        self,
        hub: Optional[Endpoint] = None,
        env: Optional[Mapping[str, str]] = None,
        timeout_s: float = TIMEOUT_S,
        context: Optional[ssl.SSLContext] = None,
    ) -> None:
        self._hub = hub
        self._env = {name.lower(): value for name, value in (env or {}).items() if value}
        self._timeout_s = timeout_s
        self._context = context
        self._idle: Dict[Origin, List[Line]] = {}
        self._lock = threading.Lock()

    def absolute(self, url: str) -> str:
        """Addresses of the hub come without its name."""
        if not url.startswith("/"):
            return url
        if self._hub is None:
            raise Refused("there is no hub that this could be an address of")
        return str(self._hub) + url

    @contextlib.contextmanager
    def to(self, url: str, stop: Stop) -> Iterator[Line]:
        """A line that the caller may mark as `done_with`; else it is closed. Raises StagingError and Stopped."""
        parts = split(url)
        line = self._reused(_origin(parts)) or self._new(_origin(parts))
        try:
            with stop.ends(line.http.sock):
                yield line
        finally:
            if not line.free_since:
                line.http.close()

    def done_with(self, line: Line, reply: http.client.HTTPResponse) -> None:
        """The reply was read to its end."""
        if reply.will_close or not reply.isclosed() or line.http.sock is None:
            return
        line.free_since = time.monotonic()
        line.used_before = True
        with self._lock:
            idle = self._idle.setdefault(line.origin, [])
            idle.append(line)
            spare = idle.pop(0) if len(idle) > IDLE_LINES else None
        if spare is not None:
            spare.http.close()

    def _reused(self, origin: Origin) -> Optional[Line]:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                line = idle.pop() if idle else None
            if line is None:
                return None
            if time.monotonic() - line.free_since < IDLE_S and _is_quiet(line.http.sock):
                line.free_since = 0.0
                return line
            line.http.close()

    def _new(self, origin: Origin) -> Line:
        scheme, host, port = origin
        if self._hub is not None and origin == (_scheme(self._hub), self._hub.host, self._hub.port):
            http_line = http.client.HTTPConnection(host, port)
            http_line.sock = dial(self._hub)
            http_line.auto_open = 0  # nothing else ever connects it
            http_line.sock.settimeout(self._timeout_s)
            return Line(http_line, origin)
        proxy = self._proxy(scheme, host)
        at, number = (proxy.host, proxy.port) if proxy else (host, port)
        if scheme == "https":
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                at, number, timeout=CONNECT_S, context=self._safe()
            )
        else:
            made = http.client.HTTPConnection(at, number, timeout=CONNECT_S)
        if proxy and scheme == "https":
            made.set_tunnel(host, port, proxy.headers)
        try:
            made.connect()
            if not proxy:
                _must_be_no_metadata(made.sock)
        except ssl.SSLCertVerificationError as error:
            made.close()
            raise Refused("%s://%s:%d: %s" % (*origin, error.verify_message)) from None
        except (OSError, http.client.HTTPException) as error:
            made.close()
            raise BrokeOff("%s://%s:%d: %s" % (*origin, said(error))) from None
        except StagingError:
            made.close()
            raise
        made.sock.settimeout(self._timeout_s)
        made.auto_open = 0
        return Line(made, origin, proxy)

    def _safe(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = ssl.create_default_context(
                    cafile=self._env.get("ssl_cert_file"), capath=self._env.get("ssl_cert_dir")
                )
            except OSError as error:
                raise BrokeOff("the CAs for staging cannot be read: %s" % said(error)) from None
        return self._context

    def _proxy(self, scheme: str, host: str) -> Optional[Proxy]:
        url = self._env.get(scheme + "_proxy") or self._env.get("all_proxy")
        return Proxy(url) if url and not _is_direct(host, self._env.get("no_proxy", "")) else None


def dial(hub: Endpoint, timeout_s: float = CONNECT_S) -> socket.socket:
    """A connection to the hub and nobody else. Raises BrokeOff and Distrusted."""
    try:
        return pinned.connect(hub, timeout_s) if hub.secure else plain(hub, timeout_s)
    except (pinned.NotPinned, ssl.SSLCertVerificationError) as error:
        text = getattr(error, "verify_message", "") or str(error)
        raise Distrusted("the hub at %s is not the one that was pinned: %s" % (hub, text)) from None
    except OSError as error:
        raise BrokeOff("the hub at %s cannot be reached: %s" % (hub, said(error))) from None


def said(error: BaseException) -> str:
    if isinstance(error, socket.timeout):
        return "no answer came in time"
    if isinstance(error, http.client.HTTPException):
        return "what it answers is no HTTP (%s)" % type(error).__name__
    return getattr(error, "strerror", "") or str(error) or type(error).__name__


def split(url: str) -> SplitResult:
    """Raises Refused."""
    try:
        return urlsplit(url)
    except ValueError:
        raise Refused("what is to be fetched has no address that can be one") from None


def _origin(parts: SplitResult) -> Origin:
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise Refused("%s://%s is no address of a file" % (parts.scheme, parts.hostname or ""))
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _scheme(hub: Endpoint) -> str:
    return "https" if hub.secure else "http"


def _is_quiet(connection: Optional[socket.socket]) -> bool:
    """Nothing came on it, not even its end."""
    if connection is None:
        return False
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return not poll.poll(0)


def _must_be_no_metadata(connection: socket.socket) -> None:
    name = str(connection.getpeername()[0]).partition("%")[0]
    peer = ipaddress.ip_address(name)
    peer = getattr(peer, "ipv4_mapped", None) or peer
    if peer.is_link_local or peer in METADATA:
        raise Refused("%s is where this machine's cloud answers, not where files are" % name)


def _is_direct(host: str, no_proxy: str) -> bool:
    for word in no_proxy.lower().replace(",", " ").split():
        name = word.lstrip(".").partition(":")[0]
        if word == "*" or host == name or host.endswith("." + name):
            return True
    return False
