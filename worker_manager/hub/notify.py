"""sd_notify: one datagram to the service manager, where one listens."""

import contextlib
import os
import socket


def send(state: str) -> None:
    """`READY=1`, `STOPPING=1`. Nothing happens where no service manager started us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
