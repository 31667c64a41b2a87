"""Frames between agent and keeper."""

import os
import socket

import pytest

from worker.channel import Channel


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    return Channel(ours.detach()), Channel(theirs.detach())


def test_messages_arrive_as_they_were_sent(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    first = [("start", "j1", 1, {"ü": "\udcff"}, (("cpus", 1),), None), ("end",)]
    assert here.send(first)
    assert here.send([("output", b"\0\xff")])
    assert there.receive() == [*first, ("output", b"\0\xff")]
    assert there.receive() == []
    assert not there.closed


def test_a_frame_that_is_larger_than_the_socket_arrives_in_parts(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    message = ("output", b"x" * 5_000_000)
    assert not here.send([message])
    assert here.waiting
    received = []
    while not received:
        received += there.receive()
        here.flush()
    assert received == [message]
    assert here.waiting == 0


def test_what_was_sent_before_the_end_is_received(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    here.send([("last",)])
    here.close()
    assert there.receive() == [("last",)]
    assert there.receive() == []
    assert there.closed


def test_half_a_frame_is_not_a_message(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    os.write(here.fd, b"\x10\0\0\0half")
    assert there.receive() == []
    here.close()
    assert there.receive() == []
    assert there.closed


def test_sending_to_one_who_is_gone_keeps_nothing(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    there.close()
    here.send([("lost",)])
    assert here.send([("lost",)])
    assert here.waiting == 0
    assert here.receive() == []
    assert here.closed
