"""Whom the agent believes over TLS: a pinned certificate, a pinned CA that the hub shows, and nobody else."""

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from worker.link import pinned
from worker.link.address import Endpoint
from worker.link.client import dial
from worker.link.connection import Unreachable
from worker_manager.hub import authority


class Hub:
    """Serves a certificate, and its CA over HTTP. Remembers what it was told."""

    def __init__(self, folder: Path, name: str, shows: Path | None = None) -> None:
        now = datetime.now(UTC)
        self.ca, self.certificate = folder / f"{name}-ca.pem", folder / f"{name}.pem"
        keys = folder / f"{name}-ca.key", folder / f"{name}.key"
        authority.make_root(self.ca, keys[0], now)
        authority.make_certificate(self.ca, keys[0], self.certificate, keys[1], ("127.0.0.1",), now)
        self.shows = shows or self.ca
        self.heard: list[bytes] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, keys[1])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listening.accept()
                with self._context.wrap_socket(raw, server_side=True) as connection:
                    asked = connection.recv(4096)
                    if asked:
                        self.heard.append(asked)
                        body = self.shows.read_bytes()
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            except ssl.SSLError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self._listening.close()


def fingerprint(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    hubs: list[Hub] = []

    def start(name: str, shows: Path | None = None) -> Hub:
        hubs.append(Hub(tmp_path, name, shows))
        return hubs[-1]

    yield start
    for each in hubs:
        each.close()


def to(hub: Hub, pin: str, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(True, host, hub.port, "", pin)


def test_its_own_certificate_may_be_pinned(hub: Callable[..., Hub]) -> None:
    one = hub("one")
    dial(to(one, fingerprint(one.certificate))).close()
    assert one.heard == []


def test_its_ca_may_be_pinned_and_is_asked_for_once(hub: Callable[..., Hub]) -> None:
    one = hub("one")
    for _ in range(2):
        dial(to(one, fingerprint(one.ca))).close()
    assert [line.split(b"\r\n")[0] for line in one.heard] == [f"GET {pinned.CA_PATH} HTTP/1.1".encode()]
    assert b"Authorization" not in one.heard[0]


def test_another_hub_is_refused_even_when_it_shows_the_pinned_ca(hub: Callable[..., Hub]) -> None:
    one = hub("one")
    impostor = hub("impostor", shows=one.ca)
    for pin in (fingerprint(one.certificate), fingerprint(one.ca)):
        with pytest.raises(Unreachable):
            dial(to(impostor, pin))
    assert all(line.startswith(b"GET /v1/ca.pem ") for line in impostor.heard), "nothing else was said to it"


def test_the_right_ca_for_another_name_is_refused(hub: Callable[..., Hub]) -> None:
    one = hub("one")
    with pytest.raises(Unreachable):
        dial(to(one, fingerprint(one.ca), host="localhost"))


def test_without_a_pin_the_systems_cas_count(hub: Callable[..., Hub]) -> None:
    with pytest.raises(Unreachable, match="certificate verify failed"):
        dial(to(hub("one"), ""))
