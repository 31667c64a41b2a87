"""Where the hub is: a URL as people write it, read once and checked."""

from typing import NamedTuple


class BadAddress(ValueError):
    """The hub's address cannot be used."""


class Endpoint(NamedTuple):
    """Where the hub is and how to know that it is the right one."""

    secure: bool
    host: str
    port: int
    base: str  # in front of every path, without a slash at its end
    fingerprint: str = ""  # SHA-256 of the certificate (the hub's own or its CA's), hex; "": the system's CAs

    @property
    def authority(self) -> str:
        host = "[%s]" % self.host if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else "%s:%d" % (host, self.port)

    def __str__(self) -> str:
        return "%s://%s%s" % ("https" if self.secure else "http", self.authority, self.base)


def endpoint(url: str, fingerprint: str = "") -> Endpoint:
    """From `http://host:port/base` or `https://…`; plain http only with this machine itself."""
    scheme, found, rest = url.partition("://")
    authority, _, base = rest.partition("/")
    if not found or scheme not in ("http", "https") or not authority or "@" in authority:
        raise BadAddress("%r is no address of a hub: write http://HOST:PORT or https://HOST[:PORT]" % url)
    if not url.isascii() or not url.isprintable() or set(url) & set(" ?#"):
        raise BadAddress("%r has characters that an address of a hub cannot have" % url)
    host, port = _host_and_port(authority, 443 if scheme == "https" else 80, url)
    base = ("/" + base).rstrip("/")
    if scheme == "http" and not _is_loopback(host):
        raise BadAddress("%s is not this machine, so the hub must be spoken to by https" % host)
    if fingerprint and scheme != "https":
        raise BadAddress("a CA fingerprint means nothing with http")
    return Endpoint(scheme == "https", host, port, base, _fingerprint(fingerprint))


def _host_and_port(authority: str, port: int, url: str) -> "tuple[str, int]":
    host, colon, text = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
    if not colon:
        host = authority
    elif not text.isdigit() or not 0 < int(text) < 65536:
        raise BadAddress("%r has no usable port" % url)
    else:
        port = int(text)
    return host.strip("[]").lower(), port


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


def _fingerprint(text: str) -> str:
    digits = text.lower()
    if digits.startswith("sha256:"):
        digits = digits[7:]
    digits = digits.replace(":", "")
    if digits and (len(digits) != 64 or set(digits) - set("0123456789abcdef")):
        raise BadAddress("a CA fingerprint is sha256: and 64 hex digits")
    return digits
