"""Blobs over real HTTP, to and from a real hub: sent in pieces, resumed, checked, each owner's own."""

import hashlib
import os
from typing import Any

import pytest
import requests


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Sender:
    """A client of one owner."""

    def __init__(self, hub: Any, owner: str = "alice", *scopes: str) -> None:
        self.hub = hub
        self.token = hub.token(*(scopes or ("submit",)), owner=owner)

    def head(self, digest: str) -> requests.Response:
        return self.hub.call("HEAD", f"/v1/blobs/{digest}", by=self.token)  # type: ignore[no-any-return]

    def get(self, digest: str, **headers: str) -> requests.Response:
        return self.hub.call("GET", f"/v1/blobs/{digest}", by=self.token, headers=headers)  # type: ignore[no-any-return]

    def patch(self, digest: str, data: bytes, offset: int, length: int, **headers: str) -> requests.Response:
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(length), **headers}
        return self.hub.call("PATCH", f"/v1/blobs/{digest}", by=self.token, headers=headers, data=data)  # type: ignore[no-any-return]

    def send(self, data: bytes) -> str:
        reply = self.patch(sha(data), data, 0, len(data))
        assert reply.status_code == 201, reply.text
        return sha(data)

    def offset(self, digest: str) -> int:
        reply = self.head(digest)
        assert reply.status_code == 404
        return int(reply.headers["Upload-Offset"])


@pytest.fixture(scope="module")
def alice(shared_hub: Any) -> Sender:
    return Sender(shared_hub)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_001])
def test_a_blob_comes_back_as_it_was_sent(alice: Sender, size: int) -> None:
    data = os.urandom(size)
    digest = sha(data)
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
    assert alice.offset(digest) == 600_000
    for wrong in (0, 599_999, 600_001):
        refused = alice.patch(digest, data[wrong:], wrong, len(data))
        assert (refused.status_code, refused.headers["Upload-Offset"]) == (409, "600000")
        assert refused.json()["code"] == "offset-differs"
    assert alice.patch(digest, data[600_000:], 600_000, len(data)).status_code == 201
    assert alice.get(digest).content == data
