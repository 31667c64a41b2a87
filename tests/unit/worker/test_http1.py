"""The subset of HTTP that the agent speaks: whole answers however they are cut, garbage never for an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.link.http1 import MAX_HEAD, Garbled, Reader, Response, request

PLAIN = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 9\r\n\r\n{"seq":1}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"se\r\n5;x=y\r\nq":1}\r\n0\r\n\r\n'


def read(data: bytes) -> Response | None:
    return Reader().feed(data)


def test_a_request_carries_its_token_and_its_length() -> None:
    text = request("POST", "/v1/x", "hub:1", "secret", b"{}").decode()
    head, body = text.split("\r\n\r\n")
    assert head.startswith("POST /v1/x HTTP/1.1\r\nHost: hub:1\r\nAuthorization: Bearer secret\r\n")
    assert "Content-Length: 2" in head
    assert body == "{}"


@pytest.mark.parametrize("data", [PLAIN, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN])
def test_an_answer_is_whole_however_it_is_cut(data: bytes) -> None:
    for size in (1, 2, 7, len(data)):
        reader = Reader()
        answers = [reader.feed(data[at : at + size]) for at in range(0, len(data), size)]
        assert answers[:-1] == [None] * (len(answers) - 1)
        assert answers[-1] is not None
        assert json.loads(answers[-1].body) == {"seq": 1}
        assert answers[-1].status == 200


def test_of_many_small_chunks_each_is_looked_at_once() -> None:
    """Else an answer in small pieces would keep the agent from its lease."""
    reader, count = Reader(), 50_000
    assert reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") is None
    for _ in range(count // 100):
        assert reader.feed(b"1\r\nx\r\n" * 100 + b"1") is None
        assert reader._data == b"1"
        assert reader.feed(b"\r\nx\r\n") is None
    answer = reader.feed(b"0\r\n\r\n")
    assert answer is not None
    assert answer.body == b"x" * (count + count // 100)


def test_whether_the_connection_stays() -> None:
    stays = read(PLAIN)
    closes = read(PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    old = read(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert stays is not None and stays.keep
    assert closes is not None and not closes.keep
    assert old is not None and not old.keep


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",  # says no length
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"x" * (MAX_HEAD + 1),
    ],
)
def test_garbage_is_no_answer(data: bytes) -> None:
    with pytest.raises(Garbled):
        read(data)


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_make_it_fail_otherwise(data: bytes, headed: bool) -> None:
    reader = Reader()
    try:
        reader.feed((b"HTTP/1.1 200 OK\r\n" if headed else b"") + data)
    except Garbled:
        return
