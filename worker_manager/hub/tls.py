"""TLS for a hub off loopback: its own authority, made at the first start, or certificates that it is given.

What launches pin is the SHA-256 of the authority, which the hub shows to anyone, or, of a certificate that came from
outside, of that. The authority lives ten years, the certificate one; it is renewed at a start with less than 30 days
left, and no agent loses the hub by that. `cryptography` is imported only where something is made.
"""

import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from worker_manager.errors import ConfigError
from worker_manager.hub.settings import HubSettings

RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class Identity:
    certificate: Path
    key: Path
    authority: Path | None  # to be given to clients; None when the certificate came from outside
    fingerprint: str  # SHA-256 of the certificate, hex

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def identity_for(settings: HubSettings, names: tuple[str, ...]) -> Identity | None:
    """None means plaintext, which is for loopback only (or behind a proxy that says so)."""
    loopback = is_loopback(settings.host)
    if settings.tls not in ("auto", "own", "given", "off"):
        raise ConfigError([f"tls: {settings.tls!r} is not one of auto, own, given, off"])
    if settings.tls == "given" or settings.tls_certificate or settings.tls_key:
        return _given(settings)
    if settings.tls == "own" or (settings.tls == "auto" and not loopback and not settings.behind_proxy):
        return own(settings.state_dir / "tls", names)
    if not loopback and not settings.behind_proxy:
        raise ConfigError(
            [f"listen: {settings.listen} is not loopback, and tokens must not travel in plaintext: use TLS or a proxy"]
        )
    return None


def _given(settings: HubSettings) -> Identity:
    problems = []
    for name in ("tls_certificate", "tls_key"):
        path = getattr(settings, name)
        if not path:
            problems.append(f"{name}: give both the certificate and its key")
        elif not os.access(path, os.R_OK):
            problems.append(f"{name}: {path} cannot be read")
    if problems:
        raise ConfigError(problems)
    certificate, key = Path(settings.tls_certificate), Path(settings.tls_key)
    try:
        identity = Identity(certificate, key, None, fingerprint_of(certificate))
        identity.context()
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError([f"tls_certificate, tls_key: they cannot be used together: {error}"]) from None
    return identity


def fingerprint_of(certificate: Path) -> str:
    """Of the first certificate in a PEM file."""
    text = certificate.read_text()
    end = "-----END CERTIFICATE-----"
    first = text[: text.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN") :])).hexdigest()


def own(folder: Path, names: tuple[str, ...], now: datetime | None = None) -> Identity:
    """The hub's own certificate, made or renewed when needed, signed by its own authority."""
    from worker_manager.hub import authority

    now = now or datetime.now(UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root, certificate, key = folder / "ca.pem", folder / "hub.pem", folder / "hub.key"
    if not root.exists():
        authority.make_root(root, folder / "ca.key", now)
    if not (certificate.exists() and key.exists() and authority.still_good(certificate, names, now + RENEW_BEFORE)):
        authority.make_certificate(root, folder / "ca.key", certificate, key, names, now)
    return Identity(certificate, key, root, fingerprint_of(certificate))
