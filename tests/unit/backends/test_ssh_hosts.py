"""What a person writes about hosts → hosts."""

from dataclasses import replace

import pytest

from backends.ssh.hosts import BadHost, Host, from_key, lines, parse


@pytest.mark.parametrize(
    ("text", "host", "key"),
    [
        ("gpu1", Host("gpu1", 3), "gpu1"),
        ("gpu1:4", Host("gpu1", 4), "gpu1"),
        ("me@gpu2.example:2", Host("gpu2.example", 2, "me"), "me@gpu2.example"),
        ("[fe80::1]:4", Host("fe80::1", 4), "fe80::1"),
        ("gpu1 slots=4 user=me port=2222", Host("gpu1", 4, "me", 2222), "me@gpu1,2222"),
        ("gpu1:0", Host("gpu1", 0), "gpu1"),
        ("gpu1:gone", Host("gpu1", 0, gone=True), "gpu1"),
        ("host$@x", None, ""),
        ("svc$@gpu1", Host("gpu1", 3, "svc$"), "svc$@gpu1"),
    ],
)
def test_a_host(text: str, host: Host | None, key: str) -> None:
    if host is None:
        assert parse([text], 3)[0].user == "host$"
        return
    assert parse([text], 3) == (host,)
    assert host.key == key
    again = from_key(key)
    assert again is not None
    assert again == replace(host, slots=0, gone=False)


def test_several_in_one_text() -> None:
    assert [host.key for host in parse(["a:1, b:2", "c"], 1)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=id",
        "a b",
        "$(id)",
        "a;id",
        "a:x",
        "a:-1",
        "a:99999",
        "a:٣",
        "fe80::1",
        "a slots=1 slots=2",
        "a:1 slots=2",
        "a colour=red",
        "-x@a",
        "a port=0",
        "a port=70000",
        "me@",
        "[a b]:1",
        "x" * 300,
        "a%h",
        "../a",
        "a\0b",
    ],
)
def test_what_makes_no_sense_is_refused_and_named(text: str) -> None:
    with pytest.raises(BadHost) as wrong:
        parse([text], 1)
    assert repr(text.strip())[1:10] in str(wrong.value) or not text


def test_a_host_named_twice_is_refused() -> None:
    with pytest.raises(BadHost, match="twice"):
        parse(["a:1", "a:2"], 1)
    assert len(parse(["a:1", "me@a:2", "a port=22"], 1)) == 3


def test_a_file_has_a_host_to_a_line() -> None:
    assert lines("# all of ours\n\n gpu1 slots=4 # the old one\ngpu2\n") == ["gpu1 slots=4", "gpu2"]


@pytest.mark.parametrize("key", ["", "..", "a/b", "-x", "a b", "a,b", "x@y@z"])
def test_what_is_no_key(key: str) -> None:
    assert from_key(key) is None
