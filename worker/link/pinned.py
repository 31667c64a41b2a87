"""TLS to a hub that was pinned at launch, or that the system's CAs vouch for.

A hub without certificates of its own makes a CA on first start, and every launch carries the CA's fingerprint. The
agent fetches that CA from the hub itself (nothing secret is said on that connection), holds it against the
fingerprint, and only then speaks over a connection that this CA vouches for, the host's name included. A fingerprint of
the server's own certificate works too.
"""

import hashlib
import hmac
import socket
import ssl
from typing import Dict

from worker.link import http1
from worker.link.address import Endpoint
from worker.link.connection import Unreachable, exchange, plain

CA_PATH = "/v1/ca.pem"

_contexts: Dict[Endpoint, ssl.SSLContext] = {}  # of the CAs that were held against their fingerprint


class NotPinned(OSError):
    """Whoever answers there is not who was meant."""


def connect(to: Endpoint, timeout_s: float) -> socket.socket:
    """A connection whose other end is proved. Raises OSError (ssl.SSLError is one)."""
    if not to.fingerprint:
        return _wrap(to, ssl.create_default_context(), timeout_s)
    if to not in _contexts:
        connection = _wrap(to, _trusting(), timeout_s)
        certificate = connection.getpeercert(binary_form=True) or b""
        if _is(certificate, to.fingerprint):
            return connection
        _contexts[to] = _vouched_by(_fetch_ca(connection, to, timeout_s), to)
    return _wrap(to, _contexts[to], timeout_s)


def _wrap(to: Endpoint, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    raw = plain(to, timeout_s)
    try:
        return context.wrap_socket(raw, server_hostname=to.host)
    except BaseException:
        raw.close()
        raise


def _trusting() -> ssl.SSLContext:
    """Encrypts to anyone: only to look at a certificate, and to fetch one that is checked by its fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _vouched_by(ca: bytes, to: Endpoint) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not _is(ca, to.fingerprint):
        raise NotPinned("its certificate is not the one that was pinned")
    context.load_verify_locations(cadata=ca)
    return context


def _fetch_ca(connection: ssl.SSLSocket, to: Endpoint, timeout_s: float) -> bytes:
    """The hub's own CA as it tells it, unchecked, in DER."""
    asked = "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (to.base + CA_PATH, to.authority)
    try:
        with connection:
            response = exchange(connection, asked.encode("ascii"), timeout_s)
    except Unreachable as error:
        raise OSError(str(error)) from None
    if response.status != 200 or len(response.body) > http1.MAX_HEAD:
        raise NotPinned("its certificate is not the one that was pinned, and it shows no CA of its own")
    try:
        return ssl.PEM_cert_to_DER_cert(response.body.decode("ascii"))
    except ValueError:
        raise NotPinned("what it shows as its CA is no certificate") from None


def _is(certificate: bytes, fingerprint: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), fingerprint)
