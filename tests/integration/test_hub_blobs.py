"""Blobs over real HTTP, to and from a real hub: sent in pieces, resumed, checked, each owner's own."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.blob_wire import Line, Sender, sha
from tests.place import until
from worker_manager.clock import SystemClock
from worker_manager.hub.blobs.grants import Grants, key_in


@pytest.fixture(scope="module")
def alice(shared_hub: Any) -> Sender:
    return Sender(shared_hub)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_001])
def test_a_blob_comes_back_as_it_was_sent(alice: Sender, size: int) -> None:
    data = os.urandom(size)
    digest = sha(data)
    if size:
        assert alice.offset(digest) == 0
    sent = alice.patch(digest, data, 0, size)
    assert (sent.status_code, sent.headers["Upload-Offset"]) == (201, str(size))
    head = alice.head(digest)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(size), b"")
    found = alice.get(digest)
    assert found.status_code == 200 and found.content == data
    assert found.headers["ETag"] == f'"{digest}"'
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["Content-Disposition"].startswith("attachment")
    again = alice.patch(digest, data, 0, size)
    assert (again.status_code, again.headers["Upload-Offset"]) == (201, str(size))


def test_it_is_sent_in_pieces_and_a_wrong_offset_is_told_the_right_one(alice: Sender) -> None:
    data = os.urandom(1_500_000)
    digest = sha(data)
    first = alice.patch(digest, data[:600_000], 0, len(data))
    assert (first.status_code, first.headers["Upload-Offset"], first.content) == (204, "600000", b"")
    assert alice.offset(digest) == 600_000 and "Retry-After" not in alice.head(digest).headers
    for wrong in (0, 599_999, 600_001):
        refused = alice.patch(digest, data[wrong:], wrong, len(data))
        assert (refused.status_code, refused.headers["Upload-Offset"]) == (409, "600000")
        assert refused.json()["code"] == "offset-differs"
    assert alice.patch(digest, data[600_000:], 600_000, len(data)).status_code == 201
    assert alice.get(digest).content == data


def test_what_has_another_digest_is_thrown_away(alice: Sender) -> None:
    data, other = os.urandom(900_000), os.urandom(900_000)
    digest = sha(data)
    assert alice.patch(digest, other[:500_000], 0, len(data)).status_code == 204
    wrong = alice.patch(digest, data[500_000:], 500_000, len(data))
    assert (wrong.status_code, wrong.json()["code"]) == (422, "digest-differs")
    assert wrong.headers["Upload-Offset"] == "0"
    assert alice.get(digest).status_code == 404
    assert alice.offset(digest) == 0
    assert alice.send(data) == digest and alice.get(digest).content == data


def test_what_came_of_another_length_is_no_beginning(alice: Sender) -> None:
    data = os.urandom(100_000)
    digest = sha(data)
    assert alice.patch(digest, data + b"more", 0, len(data) + 100).status_code == 204
    assert alice.patch(digest, data, 0, len(data)).status_code == 201
    assert alice.get(digest).content == data


def test_requests_that_make_no_sense_are_refused_with_what_to_send(alice: Sender) -> None:
    data = b"x" * 1000
    digest = sha(data)
    table: list[tuple[Any, Any, dict[str, str], int, str]] = [
        ("", 1000, {}, 400, "header-refused"),
        (0, "", {}, 400, "header-refused"),
        (-1, 1000, {}, 400, "header-refused"),
        ("0x0", 1000, {}, 400, "header-refused"),
        (0, "9" * 30, {}, 400, "header-refused"),
        (1001, 1000, {}, 400, "header-refused"),
        (0, 999, {}, 413, "body-too-large"),
        (0, 1000, {"Content-Type": "application/json"}, 415, "media-type-refused"),
        (0, 1000, {"Content-Encoding": "gzip"}, 415, "encoding-refused"),
    ]
    for offset, length, headers, status, code in table:
        reply = alice.patch(digest, data, offset, length, **headers)
        assert (reply.status_code, reply.json()["code"]) == (status, code), (offset, length, headers, reply.text)
    chunked = alice.patch(digest, iter([data, b"beyond"]), 0, 1000)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body-too-large")
    for name in ("x", digest[:-1], digest.upper(), "0" * 65):
        for method in ("GET", "HEAD", "PATCH"):
            reply = alice._call(method, name, headers={"Upload-Offset": "0", "Upload-Length": "0"})
            assert reply.status_code == 404, (method, name)


def test_a_body_without_a_length_is_taken_too(alice: Sender) -> None:
    pieces = [os.urandom(300_000) for _ in range(4)]
    data = b"".join(pieces)
    assert alice.patch(sha(data), iter(pieces), 0, len(data)).status_code == 201
    assert alice.get(sha(data)).content == data


# ---------------------------------------------------------------- ranges


def test_ranges(alice: Sender) -> None:
    data = os.urandom(1_000_000)
    digest = alice.send(data)
    table: list[tuple[str, bytes, str]] = [
        ("bytes=0-0", data[:1], "bytes 0-0/1000000"),
        ("bytes=10-19", data[10:20], "bytes 10-19/1000000"),
        ("bytes=999999-", data[-1:], "bytes 999999-999999/1000000"),
        ("bytes=500000-2000000", data[500_000:], "bytes 500000-999999/1000000"),
        ("bytes=-3", data[-3:], "bytes 999997-999999/1000000"),
        ("bytes=-5000000", data, "bytes 0-999999/1000000"),
        ("Bytes = 1 - 2", data[1:3], "bytes 1-2/1000000"),
    ]
    for asked, part, span in table:
        reply = alice.get(digest, Range=asked)
        assert (reply.status_code, reply.headers.get("Content-Range")) == (206, span), asked
        assert reply.content == part and reply.headers["ETag"] == f'"{digest}"'
    for ignored in ("bytes=5-4", "bytes=0-1,3-4", "bytes=x-", "lines=0-1", "bytes=-", "bytes=1"):
        reply = alice.get(digest, Range=ignored)
        assert reply.status_code == 200 and reply.content == data, ignored
    for nothing in ("bytes=1000000-", "bytes=-0"):
        reply = alice.get(digest, Range=nothing)
        assert (reply.status_code, reply.headers["Content-Range"]) == (416, "bytes */1000000")
    assert alice.get(alice.send(b""), Range="bytes=0-").status_code == 416


def test_a_range_of_something_else_is_answered_with_all_of_this(alice: Sender) -> None:
    data = os.urandom(1000)
    digest = alice.send(data)
    same = alice.get(digest, Range="bytes=0-9", **{"If-Range": f'"{digest}"'})
    assert same.status_code == 206 and same.content == data[:10]
    for other in ('"other"', f'W/"{digest}"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        reply = alice.get(digest, Range="bytes=0-9", **{"If-Range": other})
        assert reply.status_code == 200 and reply.content == data


# ---------------------------------------------------------------- whose


def test_another_owners_blob_is_not_there(alice: Sender) -> None:
    bob = Sender(alice.hub, "bob")
    data = os.urandom(200_000)
    digest = alice.send(data)
    unknown = sha(b"nobody has this")
    for method in ("GET", "HEAD"):
        theirs, nobodys = bob._call(method, digest), bob._call(method, unknown)
        assert (theirs.status_code, dict(theirs.headers).keys()) == (404, dict(nobodys.headers).keys())
        assert theirs.headers.get("Upload-Offset") == nobodys.headers.get("Upload-Offset")
        assert theirs.text.replace(digest, unknown) == nobodys.text
    assert bob.patch(digest, data[:1000], 0, len(data)).status_code == 204, "bob must show that he has it"
    assert bob.patch(digest, b"x" * (len(data) - 1000), 1000, len(data)).status_code == 422
    assert bob.head(digest).status_code == 404
    assert alice.get(digest).content == data
    assert bob.send(data) == digest
    assert bob.get(digest).content == data == alice.get(digest).content


def test_one_owner_knows_nothing_of_anothers_upload(alice: Sender) -> None:
    bob = Sender(alice.hub, "bob")
    data = os.urandom(100_000)
    assert alice.patch(sha(data), data[:50_000], 0, len(data)).status_code == 204
    assert bob.offset(sha(data)) == 0
    assert bob.send(data)
    assert alice.offset(sha(data)) == 50_000


@pytest.mark.parametrize("scope", ["read", "worker", "manager"])
def test_tokens_that_may_not_submit_get_no_blob(alice: Sender, scope: str) -> None:
    other = Sender(alice.hub, "alice", scope)
    digest = alice.send(b"a blob")
    assert other.get(digest).status_code == 403
    assert alice.hub.call("GET", f"/v1/blobs/{digest}", by=None).status_code == 401


# ---------------------------------------------------------------- several at once


def test_two_who_send_the_same_blob_do_not_mix_it_up(alice: Sender) -> None:
    data = os.urandom(2_000_000)
    digest = sha(data)
    with Line(alice, digest, 0, len(data)) as first:
        first.send(data[:600_000])
        until(lambda: alice.offset(digest) > 0, "the first to send")

        def second() -> bool:
            first.send(data[600_000:600_001])  # it is not silent
            busy = alice.patch(digest, data, 0, len(data))
            assert (busy.status_code, busy.json()["code"]) == (409, "upload-busy"), busy.text
            assert busy.headers["Retry-After"] == alice.head(digest).headers["Retry-After"] == "1"
            return True

        assert second()
        first.send(data[600_001:])
        assert first.answer()[0] == 201
    assert alice.get(digest).content == data


def test_many_who_send_the_same_blob_at_once_all_have_it_in_the_end(alice: Sender) -> None:
    data = os.urandom(5_000_000)
    digest = sha(data)

    def send(_: int) -> int:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            if alice.head(digest).status_code == 200:
                return 200
            offset = int(alice.head(digest).headers.get("Upload-Offset", 0))
            status = alice.patch(digest, data[offset:], offset, len(data)).status_code
            assert status in (201, 409)
            if status == 201:
                return 201
        return 0

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(send, range(4))) <= {200, 201}
    assert alice.get(digest).content == data


def test_a_silent_sender_makes_way(alice: Sender) -> None:
    data = os.urandom(800_000)
    digest = sha(data)
    with Line(alice, digest, 0, len(data)) as silent:
        silent.send(data[:100_000])

        def overtaken() -> bool:
            offset = int(alice.head(digest).headers["Upload-Offset"])
            reply = alice.patch(digest, data[offset:], offset, len(data))
            assert reply.status_code in (201, 409), reply.text
            return reply.status_code == 201

        until(overtaken, "the silent one to make way")
        status, text = silent.answer()
        assert status == 409 and "upload-busy" in text
    assert alice.get(digest).content == data


# ---------------------------------------------------------------- signed addresses


def test_a_signed_address_needs_no_token_and_is_good_for_nothing_else(alice: Sender) -> None:
    hub = alice.hub
    grants = Grants(key_in(hub.state_dir), SystemClock())
    soon = int(time.time() * 1000) + 60_000
    data = os.urandom(1000)
    digest = sha(data)
    put, get = (grants.address(may, digest, "alice", soon) for may in ("PATCH", "GET"))
    told = {"Upload-Offset": "0", "Upload-Length": "1000"}

    def call(method: str, address: str, **more: Any) -> Any:
        return hub.call(method, address, by=None, **more)

    assert call("HEAD", put).headers["Upload-Offset"] == "0"
    assert call("PATCH", get, headers=told, data=data).status_code == 403
    assert call("PATCH", put, headers=told, data=data).status_code == 201
    assert call("GET", put).status_code == 403
    assert call("GET", get).content == data
    assert call("HEAD", get).status_code == 200
    assert alice.get(digest).content == data, "it is the owner's whose name was signed"
    assert Sender(hub, "bob").get(digest).status_code == 404
    refused = [
        get.replace("owner=alice", "owner=bob"),
        get.replace(f"until={soon}", f"until={soon + 1}"),
        get.replace(digest, sha(b"another")),
        grants.address("GET", digest, "alice", soon - 120_000),
        f"/v1/blobs/{digest}?owner=signature=",
        f"/v1/blobs/{digest}?signature=",
    ]
    for address in refused:
        for by in (None, alice.token):
            assert hub.call("GET", address, by=by).status_code == 403, address
    assert call("GET", f"/v1/blobs/{digest}?owner=alice&until={soon}&may=GET").status_code == 401
    assert call("GET", f"{get}&more=1").status_code == 422
