"""From the address that workers are told to what the hub listens on."""

from typing import Any

import pytest

from tests.unit.config.catalogue import settings_of
from worker_manager.config.reach import address_of, own_hub, reachable, same
from worker_manager.errors import ConfigError

URL = "https://login1.example:8443"


@pytest.mark.parametrize(
    ("own", "listen", "tls"),
    [
        ({"advertise_url": URL}, "0.0.0.0:8443", "own"),
        ({"advertise_url": "https://login1.example"}, "0.0.0.0:443", "own"),
        ({"advertise_url": "https://[fd00::2]:8443"}, "[::]:8443", "own"),
        ({"advertise_url": "https://127.0.0.1:8443"}, "127.0.0.1:8443", "own"),
        ({"advertise_url": "http://127.0.0.1:8080"}, "127.0.0.1:8080", None),
        ({"advertise_url": "http://localhost:8080/"}, "localhost:8080", None),
        ({"advertise_url": URL, "listen": "10.0.0.5:9000"}, "10.0.0.5:9000", "own"),
        ({"advertise_url": URL, "tls": "given"}, "0.0.0.0:8443", "given"),
        ({"advertise_url": URL, "tls_certificate": "a", "tls_key": "b"}, "0.0.0.0:8443", None),
        ({"advertise_url": "https://proxy/hub", "behind_proxy": True}, None, None),
        ({"listen": "0.0.0.0:1"}, "0.0.0.0:1", None),
        ({}, None, None),
    ],
)
def test_without_listen_the_hub_listens_where_its_address_says(
    own: dict[str, Any], listen: str | None, tls: str | None
) -> None:
    completed = own_hub(own)
    assert (completed.get("listen"), completed.get("tls")) == (listen, tls)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://login1.example:8443", "plaintext"),
        ("login1.example:8443", "is no address of a hub"),
        ("ftp://login1", "is no address of a hub"),
        ("https://", "is no address of a hub"),
        ("https://user:password@login1", "is no address of a hub"),
        ("https://login1:0", "is no address of a hub"),
        ("https://login1:99999", "is no URL"),
        ("https://0.0.0.0:8443", "nobody can connect to"),
        ("https://[::]:8443", "nobody can connect to"),
        ("https://login1:8443/hub", "only behind a proxy"),
        ("https://login1:8443?a=b", "is no address of a hub"),
        ("https://log in1", "is no address of a hub"),
    ],
)
def test_an_address_that_leads_nowhere_says_what_to_write(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        address_of(url)
    with pytest.raises(ConfigError) as wrong:
        settings_of(f"version: 1\nhub: {{advertise-url: '{url}'}}\npools: [{{name: a, backend: local}}]\n")
    (problem,) = wrong.value.problems
    assert problem.startswith("pools.yaml:2: hub.advertise-url: ")


def test_an_address_is_the_same_however_it_is_written() -> None:
    assert same("https://login1", "https://LOGIN1:443/")
    assert not same("https://login1", "https://login1:8443")
    assert not same("nonsense", "https://login1")


@pytest.mark.parametrize(
    ("own", "leads"),
    [
        ({}, False),
        ({"listen": "127.0.0.1:80"}, False),
        ({"listen": "0.0.0.0:80"}, False),  # its address would be told as loopback's
        ({"listen": ":80"}, False),
        ({"listen": "10.0.0.5:80"}, True),
        ({"advertise_url": "http://127.0.0.1:80"}, True),  # somebody means it
    ],
)
def test_whether_workers_elsewhere_are_told_something_that_may_lead_there(own: dict[str, Any], leads: bool) -> None:
    assert reachable(own) is leads


def test_it_may_be_a_flag_a_variable_or_a_line_of_the_file() -> None:
    text = "version: 1\nhub: {advertise-url: 'https://file.example'}\npools: [{name: a, backend: local}]\n"
    variable = {"WORKER_MANAGER_ADVERTISE_URL": "https://variable.example"}
    flag = {"advertise_url": "https://flag.example"}
    found = [
        settings_of(text).hub.own,
        settings_of(text, environment=variable).hub.own,
        settings_of(text, flag, variable).hub.own,
    ]
    assert [own["advertise_url"] for own in found] == [
        "https://file.example",
        "https://variable.example",
        "https://flag.example",
    ]
