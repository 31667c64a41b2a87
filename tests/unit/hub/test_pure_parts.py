"""Small parts: wire checks, the worker file, tokens, admission, discovery, certificates, the document."""

import io
import json
import os
import ssl
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worker_manager.clock import ManualClock
from worker_manager.errors import ConfigError
from worker_manager.hub import discovery, pyz, tls
from worker_manager.hub.auth import REMEMBER_MS, Tokens, bearer_sha256, require, sha256_of
from worker_manager.hub.contract import Access
from worker_manager.hub.loglines import masked
from worker_manager.hub.openapi import document
from worker_manager.hub.overload import Gate
from worker_manager.hub.problems import Problem
from worker_manager.hub.routes.table import ENDPOINTS
from worker_manager.hub.settings import HubSettings
from worker_manager.hub.wirecheck import Fields, is_label, shape_mistake


@pytest.mark.parametrize("text", ["a", "a-1", "0", "x" * 64])
def test_labels(text: str) -> None:
    assert is_label(text)


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a/b", "..", "x" * 65, "a\n", "ä"])
def test_what_is_no_label(text: str) -> None:
    assert not is_label(text)


@pytest.mark.parametrize(
    "shape",
    [
        [],
        {"cpus": 1.5},
        {"cpus": -1},
        {"memory": True},
        {"memory": 2**63},
        {"walltime": "1h"},
        {"tags": "a"},
        {"tags": [1]},
        {"custom": {"a": "1"}},
        {"gpu_type": 1},
        {"exclusive": "no"},
    ],
)
def test_a_shape_that_cannot_be_read_is_explained(shape: Any) -> None:
    assert shape_mistake(shape)


def test_fields_of_a_newer_shape_are_passed_over() -> None:
    assert shape_mistake({"cpus": 1, "walltime": None, "tags": ["a"], "custom": {"x": 1}, "quantum": {}}) is None


def test_mistakes_are_collected_with_their_places() -> None:
    fields = Fields({"a": "x", "b": -1, "n": "a\0b"}, "results[0].")
    fields.integer("a")
    fields.integer_or_none("b")
    fields.integer_or_none("c")
    fields.text("d", 5)
    assert fields.text("n", 5, "") == "a\N{REPLACEMENT CHARACTER}b"
    with pytest.raises(Problem) as refused:
        fields.done()
    assert [each["where"] for each in refused.value.errors] == ["results[0].a", "results[0].b", "results[0].d"]


def test_the_worker_file_is_the_same_bytes_each_time_and_is_cached(tmp_path: Path) -> None:
    data = pyz.build()
    assert data == pyz.build()
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert {"__main__.py", "worker/__init__.py", "worker/protocol.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    files = pyz.WorkerFiles(tmp_path / "worker")
    current = files.current()
    assert current.read() == data
    assert files.named(current.digest) == current
    (tmp_path / "worker" / f"{'a' * 64}.pyz").write_bytes(b"an earlier one")
    earlier = files.named("a" * 64)
    assert earlier is not None and earlier.read() == b"an earlier one"
    assert [files.named(digest) for digest in ("b" * 64, "../hub", "A" * 64, "")] == [None] * 4


def access(*scopes: str) -> Access:
    return Access("t1", "alice", frozenset(scopes))


@pytest.mark.parametrize(
    ("scopes", "needs", "status"),
    [
        (("read",), ("read",), None),
        (("submit",), ("read", "submit"), None),
        (("operator",), ("manager",), None),
        (("read",), ("operator",), 403),
        (("worker",), ("read", "submit", "manager"), 403),
        ((), ("read",), 403),
    ],
)
def test_scopes(scopes: tuple[str, ...], needs: tuple[str, ...], status: int | None) -> None:
    if status is None:
        assert require(access(*scopes), needs).owner == "alice"
        return
    with pytest.raises(Problem) as refused:
        require(access(*scopes), needs)
    assert refused.value.status == status
    assert "WWW-Authenticate" in refused.value.headers


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Basic abc", b"abc"])
def test_without_a_bearer_token_it_is_401(header: bytes | None) -> None:
    with pytest.raises(Problem) as refused:
        bearer_sha256({} if header is None else {b"authorization": header})
    assert refused.value.status == 401


def test_a_token_is_read_whatever_the_case_of_its_scheme() -> None:
    assert bearer_sha256({b"authorization": b"bearer  secret "}) == sha256_of("secret")


def test_a_found_token_is_remembered_for_a_moment_and_an_unknown_one_never() -> None:
    clock, asked = ManualClock(), list[str]()
    known = {"a": access("read")}

    def look_up(sha256: str) -> Access | None:
        asked.append(sha256)
        return known.get(sha256)

    tokens = Tokens(look_up, clock)
    assert tokens.remembered("a") is None
    assert tokens.find("a") is tokens.remembered("a")
    clock.advance(REMEMBER_MS)
    assert tokens.remembered("a") is None
    tokens.find("a")
    tokens.forget()
    assert tokens.remembered("a") is None
    assert tokens.find("b") is None and tokens.remembered("b") is None
    assert asked == ["a", "a", "b"]


def test_beyond_the_bound_clients_are_turned_away_and_heartbeats_are_not() -> None:
    gate = Gate(at_most=1, vital_at_most=2)
    with gate.admitted(vital=False):
        with pytest.raises(Problem) as refused, gate.admitted(vital=False):
            pass
        assert refused.value.status == 429
        assert refused.value.headers["Retry-After"] == "1"
        with gate.admitted(vital=True), pytest.raises(Problem), gate.admitted(vital=True):
            pass
        with gate.parked(), gate.admitted(vital=False):
            assert gate.serving == 1
    assert (gate.serving, gate.turned_away) == (0, 2)


def test_secrets_are_masked_in_the_log() -> None:
    text = masked("refused wm_0123456789abcdefghijkl and Authorization: Bearer abcdefghijkl")
    assert "0123456789" not in text and "abcdefghijkl" not in text


def here(**changes: Any) -> discovery.RunningHub:
    pid = os.getpid()
    started = discovery.start_time(pid)
    assert started is not None
    fields: dict[str, Any] = {"url": "http://127.0.0.1:1", "pid": pid, "start_time": started}
    return discovery.RunningHub(**{**fields, "version": "0", "protocol": 1, **changes})


def test_the_discovery_file_is_believed_only_while_its_very_process_lives(tmp_path: Path) -> None:
    assert discovery.recorded(tmp_path) is None
    hub = here()
    hub.write(tmp_path)
    assert discovery.recorded(tmp_path) == hub
    assert (tmp_path / "hub.json").stat().st_mode & 0o777 == 0o600
    here(start_time=hub.start_time - 1).write(tmp_path)  # the pid is another process's now
    assert discovery.recorded(tmp_path) is None
    assert discovery.stop(tmp_path) is False


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"pid": "x"}'])
def test_a_discovery_file_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "hub.json").write_text(text)
    assert discovery.recorded(tmp_path) is None


def test_a_newer_discovery_file_is_understood(tmp_path: Path) -> None:
    hub = here()
    hub.write(tmp_path)
    wire = {**json.loads((tmp_path / "hub.json").read_text()), "colour": "blue"}
    (tmp_path / "hub.json").write_text(json.dumps(wire))
    assert discovery.recorded(tmp_path) == hub


def test_settings_survive_their_file() -> None:
    settings = HubSettings(Path("/var/lib/hub"), listen="[::1]:80", database="postgresql://u:secret@h/d", lease_ms=5)
    assert HubSettings.from_json(settings.to_json()) == settings
    assert (settings.host, settings.port) == ("::1", 80)
    assert "secret" not in repr(settings)


def test_the_own_certificate_is_kept_renewed_and_answers_to_its_names(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = tls.own(tmp_path, ("localhost", "127.0.0.1"), now)
    assert tls.own(tmp_path, ("localhost",), now) == first
    assert (tmp_path / "hub.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    assert first.context().minimum_version >= ssl.TLSVersion.TLSv1_2
    renewed = tls.own(tmp_path, ("localhost", "127.0.0.1"), now + timedelta(days=340))
    assert renewed.fingerprint != first.fingerprint
    other = tls.own(tmp_path, ("hub.example.org",), now + timedelta(days=340))
    assert other.fingerprint != renewed.fingerprint


@pytest.mark.parametrize(
    ("listen", "options", "kind"),
    [
        ("127.0.0.1:0", {}, None),
        ("localhost:0", {}, None),
        ("[::1]:0", {}, None),
        ("127.0.0.1:0", {"tls": "own"}, "own"),
        ("0.0.0.0:0", {}, "own"),
        ("0.0.0.0:0", {"behind_proxy": True}, None),
        ("0.0.0.0:0", {"tls": "off"}, ConfigError),
        ("192.0.2.1:0", {"tls": "off"}, ConfigError),
        ("127.0.0.1:0", {"tls": "given"}, ConfigError),
        ("127.0.0.1:0", {"tls_certificate": "/nowhere", "tls_key": "/nowhere"}, ConfigError),
        ("127.0.0.1:0", {"tls": "perhaps"}, ConfigError),
    ],
)
def test_plaintext_is_for_loopback_only(tmp_path: Path, listen: str, options: dict[str, Any], kind: Any) -> None:
    settings = HubSettings(tmp_path, listen=listen, **options)
    if kind is ConfigError:
        with pytest.raises(ConfigError):
            tls.identity_for(settings, ("localhost",))
    else:
        assert (tls.identity_for(settings, ("localhost",)) is not None) is (kind == "own")


def test_given_certificates_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, two = tls.own(tmp_path / "a", ("a",)), tls.own(tmp_path / "b", ("b",))
    good = HubSettings(tmp_path, tls_certificate=str(one.certificate), tls_key=str(one.key))
    found = tls.identity_for(good, ())
    assert found is not None and found.fingerprint == one.fingerprint
    with pytest.raises(ConfigError):
        tls.identity_for(HubSettings(tmp_path, tls_certificate=str(one.certificate), tls_key=str(two.key)), ())


def test_the_document_describes_every_route_and_every_reference_in_it_resolves() -> None:
    made = document(ENDPOINTS, "0.1")
    described = {(method.upper(), path) for path, found in made["paths"].items() for method in found}
    assert described == {(each.method, each.path.replace(":path}", "}")) for each in ENDPOINTS}
    text = json.dumps(made)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in made["components"]["schemas"]
    ids = [op["operationId"] for found in made["paths"].values() for op in found.values()]
    assert len(ids) == len(set(ids))
