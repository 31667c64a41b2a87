"""A hub whose certificate changes under a worker that pinned it: renewed by its own authority nobody notices; any other
hears no word of the worker's, which says so and goes on trying."""

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker_manager.hub import authority

NAMES = ("127.0.0.1",)


@dataclass
class Authority:
    """What a hub makes at its first start, and what it does with it."""

    folder: Path
    issued: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        authority.make_root(self.root, self.folder / "ca.key", datetime.now(UTC))

    @property
    def root(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.root)

    def newest(self) -> Path:
        return self.folder / f"{self.issued}.pem"

    def certificate(self) -> ssl.SSLContext:
        """Another one each time, with another key."""
        self.issued += 1
        certificate, key = self.newest(), self.folder / f"{self.issued}.key"
        authority.make_certificate(self.root, self.folder / "ca.key", certificate, key, NAMES, datetime.now(UTC))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


def fingerprint(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def again(hub: Any, certificate: ssl.SSLContext, shows: Path) -> None:
    """On the same port, at once."""
    hub.down()
    hub.tls, hub.ca = certificate, shows.read_bytes()
    hub.up()


@pytest.fixture
def own(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "own")


@pytest.fixture
def secure(fake_hub: Any, own: Authority, start_agent: Any, eventually: Any, tmp_path: Path) -> Callable[[str], Any]:
    """`secure(pin)`: an agent that pinned that, and runs `long` until the file `go` is there."""
    fake_hub.down()
    fake_hub.port = 0
    fake_hub.heartbeat_ms, fake_hub.poll_ms = 100, 100
    again(fake_hub, own.certificate(), own.root)

    def start(pin: str) -> Any:
        agent = start_agent("--ca-fingerprint", pin)
        line = f"echo begins; while ! test -e {tmp_path}/go; do sleep 0.02; done; echo ends"
        fake_hub.assign(fake_hub.job("long", "sh", "-c", line))
        eventually(lambda: ("long", 1) in fake_hub.started, "it to run")
        return agent

    return start


def arrives_once(hub: Any, agent: Any, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    assert hub.result("long")["outcome"] == "succeeded"
    assert hub.logs["long", 1] == b"begins\nends\n"
    assert hub.started == [("long", 1)]
    assert len(hub.registrations) == 1
    assert not agent.said("fenced")
    assert agent.process.poll() is None


def test_a_renewal_by_its_own_authority_costs_nothing(
    fake_hub: Any, own: Authority, secure: Any, tmp_path: Path
) -> None:
    agent = secure(own.fingerprint)
    again(fake_hub, own.certificate(), own.root)
    arrives_once(fake_hub, agent, tmp_path)


@pytest.mark.parametrize("pinned", ["authority", "certificate"])
@pytest.mark.parametrize("shows", ["the right authority", "its own authority"])
def test_another_hub_in_its_place_is_told_nothing(
    fake_hub: Any, own: Authority, secure: Any, eventually: Any, tmp_path: Path, pinned: str, shows: str
) -> None:
    agent = secure(own.fingerprint if pinned == "authority" else fingerprint(own.newest()))
    right, other = fake_hub.tls, Authority(tmp_path / "other")
    wrong = other.certificate()
    again(fake_hub, wrong, own.root if shows == "the right authority" else other.root)
    tries = fake_hub.connections
    eventually(lambda: fake_hub.connections >= tries + 4, "it to go on trying")
    assert fake_hub.calls[right] > 0 == fake_hub.calls[wrong], "no call, hence no credential, reached the other"
    complaints = [line["text"] for line in agent.said("hub-unreachable") if "certificate" in line["text"]]
    assert len(complaints) == 1, agent.journal()
    again(fake_hub, right, own.root)
    arrives_once(fake_hub, agent, tmp_path)
    assert agent.said("hub-reached")


def test_a_hub_with_another_authority_gets_the_work_done_by_workers_that_know_it(
    start_hub: Any, join: Any, eventually: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """As the docs tell to replace it, but with a worker that nobody drained: it ends its job in time, and leaves."""
    hub = start_hub(tls="own", lease_ms=3000)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.state_dir / "tls" / "ca.pem"))
    flags = (
        "--dead-man-seconds",
        "1s",
        "--pool",
        "old",
        "--ca-fingerprint",
        fingerprint(hub.state_dir / "tls" / "ca.pem"),
    )
    old = join(hub, hub.token("worker"), *flags)
    script = "case $WM_ATTEMPT in *.1) sleep 1000;; esac; echo $WM_ATTEMPT"
    job = hub.submit("sh", "-c", script)
    eventually(lambda: hub.get(f"/v1/jobs/{job}")["state"] == "running", "it to run")

    port = hub.found.url.rsplit(":", 1)[1]
    object.__setattr__(hub.settings, "listen", f"127.0.0.1:{port}")
    (hub.state_dir / "tls").rename(tmp_path / "tls-before")
    hub.restart()
    assert fingerprint(hub.state_dir / "tls" / "ca.pem") != fingerprint(tmp_path / "tls-before" / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.state_dir / "tls" / "ca.pem"))
    assert old.wait(30) == 1, "it could not hand its job back to a hub that it does not know"
    pin = fingerprint(hub.state_dir / "tls" / "ca.pem")
    join(hub, hub.token("worker"), "--worker-id", "new", "--ca-fingerprint", pin)
    shown = eventually(lambda: (told := hub.get(f"/v1/jobs/{job}"))["state"] == "succeeded" and told, "it", 40)
    assert (shown["worker"], shown["attempt"]) == ("new", 2)
