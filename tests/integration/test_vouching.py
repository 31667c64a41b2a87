"""How the hub asks the outside who a worker is: bounded in number, time and size, and nowhere but where it should."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from tests.stand_ins.aws_identity import REGION, Cloud, FakeSts, Instance
from worker.link.identity import Keys, signed
from worker_manager.hub.identity import Denied, OwnNames, Proof, proof_of
from worker_manager.hub.vouching import AT_ONCE, REMEMBERED_S, WAITING, Unanswered, Vouching, ask

OWN = OwnNames(("http://127.0.0.1:1",), ())
BOUND = {"x-wm-hub": "http://127.0.0.1:1 -", "x-wm-worker": "n " + "ab" * 32}


def proof(instance: Instance, at: int = 0) -> Proof:
    keys = Keys(instance.access_key, instance.secret_key, instance.session_token, REGION, "amazonaws.com")
    headers = signed(keys, BOUND, at or int(datetime.now(UTC).timestamp()))
    return proof_of({"kind": "aws", "headers": headers}, "n", "ab" * 32, OWN)


@contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and then does as it likes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    thread.join(20)


def test_who_signed_is_asked_once_for_as_long_as_the_signature_is_good() -> None:
    cloud, now = Cloud(), [0.0]
    instance = cloud.instance("i-0123456789abcdef0")
    with FakeSts(cloud) as sts:
        vouching = Vouching(sts.url, lambda: now[0])
        known = proof(instance)
        for _ in range(3):
            names = asyncio.run(vouching.names(known))
            assert names == ("aws:123456789012:workers:i-0123456789abcdef0", "aws:123456789012:i-0123456789abcdef0")
        assert sts.asked == 1
        now[0] = REMEMBERED_S
        asyncio.run(vouching.names(known))
        assert sts.asked == 2
        with pytest.raises(Denied):
            asyncio.run(vouching.names(proof(Instance("i-0123456789abcdef0"))))
        vouching.close()


def test_signed_headers_follow_no_redirect() -> None:
    cloud = Cloud()
    with FakeSts(cloud) as sts:
        moved = f"HTTP/1.1 307 Moved\r\nLocation: {sts.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        with answering(lambda connection: connection.sendall(moved)) as url, pytest.raises(Unanswered):
            ask(url, proof(cloud.instance()))
        assert sts.asked == 0


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    try:
        while True:
            connection.sendall(b"<x>" * 10_000)
    except OSError:
        pass


def silent(connection: socket.socket) -> None:
    connection.settimeout(20)
    connection.recv(1)


def dripping(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    stop = threading.Event()
    try:
        while not stop.wait(0.05):
            connection.sendall(b" ")
    except OSError:
        pass


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize("talk", [endless, silent, dripping, garbage])
def test_whatever_answers_costs_little_and_says_nothing(talk: Callable[[socket.socket], None]) -> None:
    with answering(talk) as url, pytest.raises(Unanswered):
        ask(url, proof(Cloud().instance()), deadline_s=0.5)


def test_more_than_so_many_at_once_are_turned_away() -> None:
    """They come again; what is under way goes on."""
    cloud = Cloud()
    proofs = [proof(cloud.instance()) for _ in range(AT_ONCE + WAITING + 5)]

    async def all_at_once(vouching: Vouching) -> list[object]:
        return await asyncio.gather(*(vouching.names(one) for one in proofs), return_exceptions=True)

    with FakeSts(cloud) as sts:
        vouching = Vouching(sts.url)
        came = asyncio.run(all_at_once(vouching))
        vouching.close()
        assert sum(isinstance(one, Unanswered) for one in came) == 5
        assert sum(isinstance(one, tuple) for one in came) == AT_ONCE + WAITING
        assert sts.asked == AT_ONCE + WAITING
