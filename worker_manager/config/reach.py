"""From the address that workers elsewhere are told to what a hub of our own listens on. Pure.

    https://login1.example:8443   every interface of this machine, port 8443, with a certificate of the hub's own
    https://127.0.0.1:8443        this machine alone, with that certificate
    http://127.0.0.1:8080         this machine alone, in plaintext: where workers are only tried out, or come by ssh
Behind a proxy the address is the proxy's, and says nothing about where the hub listens.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

EXAMPLE = "https://HOST:8443"


class Address(NamedTuple):
    scheme: str
    host: str
    port: int
    base: str  # in front of every path

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_anywhere(host: str) -> bool:
    """An address to listen on, which nobody can connect to."""
    try:
        return ipaddress.ip_address(host or "0.0.0.0").is_unspecified  # noqa: S104 - named here, not bound
    except ValueError:
        return False


def address_of(url: str, behind_proxy: bool = False) -> Address:
    """Raises ValueError with what to write instead."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r} is no URL: write {EXAMPLE}") from None
    scheme, host = parts.scheme, parts.hostname or ""
    strange = parts.username is not None or parts.query or parts.fragment or not url.isascii() or " " in url
    if scheme not in ("http", "https") or not host or strange or not url.isprintable() or port == 0:
        raise ValueError(f"{url!r} is no address of a hub: write {EXAMPLE}")
    if is_anywhere(host):
        raise ValueError(f"nobody can connect to {host}: write a name or address of this machine, as in {EXAMPLE}")
    if scheme == "http" and not is_loopback(host):
        raise ValueError(f"tokens must not travel in plaintext: write https, as in {EXAMPLE}")
    base = parts.path.rstrip("/")
    if base and not behind_proxy:
        raise ValueError(f"the hub serves no path {base!r}: only behind a proxy (hub: behind-proxy) may it have one")
    return Address(scheme, host, port or (443 if scheme == "https" else 80), base)


def own_hub(own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a hub that we start, completed: without `listen` it listens where its address says."""
    url = own.get("advertise_url")
    if not url:
        return dict(own)
    behind_proxy = bool(own.get("behind_proxy"))
    address = address_of(url, behind_proxy)
    completed = {**own, "advertise_url": url.rstrip("/")}
    if behind_proxy:
        return completed
    if not own.get("listen"):
        anywhere = "[::]" if ":" in address.host else "0.0.0.0"  # noqa: S104 - for workers on other machines
        here = f"[{address.host}]" if ":" in address.host else address.host
        completed["listen"] = f"{here if address.loopback else anywhere}:{address.port}"
    if address.scheme == "https" and own.get("tls", "auto") == "auto" and not own.get("tls_certificate"):
        completed["tls"] = "own"
    return completed


def same(one: str, other: str) -> bool:
    """The same address, however written. What is no address is the same as nothing."""
    try:
        return address_of(one, True) == address_of(other, True)
    except ValueError:
        return False


def reachable(own: Mapping[str, Any]) -> bool:
    """Whether workers elsewhere are told something that may lead to a hub with these settings: an address that a
    person gave, or one made from `listen` that is neither this machine alone nor all of its interfaces."""
    if own.get("advertise_url"):
        return True
    host = str(own.get("listen") or "127.0.0.1:0").rpartition(":")[0].strip("[]")
    return not is_loopback(host) and not is_anywhere(host)
