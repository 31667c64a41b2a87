"""Requests made from the hub's own OpenAPI document, right and wrong: whatever comes, it is never a 500.

A small generator walks the schemas; now and then a value is replaced by something else, a field is added or left out,
or the text itself is broken. Seeded: the same requests each time.
"""

import json
import re
import string
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

REQUESTS = 40  # of each operation
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**62, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308]),
    st.sampled_from(["", "\x00", "\ud800", "'; DROP TABLE jobs; --", "../../etc/passwd", "\N{PILE OF POO}" * 50]),
    st.text(max_size=20),
    st.sampled_from([[], {}, [[]], [[[[[[]]]]]], {"": {}}, ["x"] * 1000, {"a": {"b": {"c": [1]}}}]),
)
BROKEN = st.sampled_from(
    [b"", b"{", b"[]", b"null", b"\xff", b'{"a":NaN}', b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b"[" * 5000, b"{}{}"]
)
LIKELY_IDS = ["j1", "j2", "j1-0", "w", "w-1", "p", "m", "x", "j0", "j999999999999999999"]


class Schemas:
    """JSON schema → values that (mostly) meet it."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def value(self, schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
        right = self._right(schema, depth)
        return st.integers(0, 14).flatmap(lambda n: STRANGE if n == 0 else right)

    def _right(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        if "$ref" in schema:
            return self._right(self._known[schema["$ref"].rpartition("/")[2]], depth)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return st.one_of([self._right(each, depth) for each in schema[several]])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if "const" in schema:
            return st.just(schema["const"])
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            low, high = schema.get("minimum", -5), schema.get("maximum", 2**62)
            return st.one_of(st.integers(low, min(high, low + 20)), st.integers(low, high))
        return {"boolean": st.booleans(), "null": st.none()}.get(kind or "", STRANGE)

    def _object(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        fields = schema.get("properties", {})
        required = {
            name: self.value(each, depth + 1) for name, each in fields.items() if name in schema.get("required", ())
        }
        optional = {name: self.value(each, depth + 1) for name, each in fields.items() if name not in required}
        made = st.fixed_dictionaries(required, optional=optional)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) or extra is True or not fields:
            inner = self.value(extra, depth + 1) if isinstance(extra, dict) else STRANGE
            names = st.text(string.ascii_letters + "_1 \x7f", max_size=5)
            return st.builds(lambda a, b: {**b, **a}, made, st.dictionaries(names, inner, max_size=3))
        return st.builds(
            lambda value, n: {**value, "surprise": 1} if n == 0 else dict(list(value.items())[1:]) if n == 1 else value,
            made,
            st.integers(0, 20),
        )

    def _array(self, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
        if "prefixItems" in schema:
            return st.tuples(*(self.value(each, depth + 1) for each in schema["prefixItems"])).map(list)
        least = schema.get("minItems", 0)
        return st.lists(self.value(schema.get("items", {}), depth + 1), min_size=least, max_size=least + 2)

    def _string(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        choices = [
            st.text(max_size=12),
            st.sampled_from(LIKELY_IDS),
            st.sampled_from(["4GiB", "0.5", "10m", "now", "1e5"]),
        ]
        if "pattern" in schema:
            choices = [st.from_regex(schema["pattern"], fullmatch=True), *choices[:2]]
        if schema.get("examples"):
            choices.append(st.sampled_from(schema["examples"]))
        return st.one_of(choices)


def requests_of(document: dict[str, Any], method: str, path: str) -> st.SearchStrategy[tuple[str, Any]]:
    operation = document["paths"][path][method]
    schemas = Schemas(document["components"]["schemas"])
    names = re.findall(r"\{(\w+)\}", path)
    parts = st.tuples(*(st.one_of(st.sampled_from(LIKELY_IDS), st.text(min_size=1, max_size=8)) for _ in names))
    queries = [each for each in operation["parameters"] if each["in"] == "query"]
    asked = st.fixed_dictionaries(
        {}, optional={each["name"]: schemas.value(each["schema"]) for each in queries if each["name"] != "wait_ms"}
    )
    body: st.SearchStrategy[Any] = st.none()
    if "requestBody" in operation:
        wanted = operation["requestBody"]["content"].get("application/json")
        right = st.binary(max_size=100) if wanted is None else schemas.value(wanted["schema"])
        body = st.integers(0, 14).flatmap(lambda n: BROKEN if n == 0 else right)
    return st.builds(lambda *drawn: (filled(path, names, drawn[0], drawn[1]), drawn[2]), parts, asked, body)


def filled(path: str, names: list[str], parts: tuple[str, ...], query: dict[str, Any]) -> str:
    for name, part in zip(names, parts, strict=True):
        path = path.replace(f"{{{name}}}", quote(part.encode("utf-8", "replace"), safe=""))
    text = "&".join(f"{name}={quote(str(value).encode('utf-8', 'replace'), safe='')}" for name, value in query.items())
    return f"{path}?{text}" if text else path


def as_bytes(body: Any) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, dict) and "wait_ms" in body:
        body = {**body, "wait_ms": 0}
    return json.dumps(body).encode()


class Fuzzer:
    """Sends requests with one connection, and keeps what must not be."""

    def __init__(self, hub: Any, credential: str) -> None:
        self._hub = hub
        self._credential = credential
        self._session = requests.Session()
        self._session.trust_env = False
        self.tried = 0
        self.accepted: set[tuple[str, str]] = set()
        self.wrong: list[tuple[str, str, Any, str]] = []

    def operation(self, document: dict[str, Any], method: str, path: str) -> None:
        @seed(20_26)
        @settings(
            max_examples=REQUESTS,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(request=requests_of(document, method, path))
        def send(request: tuple[str, Any]) -> None:
            self._send(method, path, *request)

        send()

    def _send(self, method: str, path: str, url: str, body: Any) -> None:
        secret = self._credential if path.endswith("/report") else self._hub.operator
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        reply = self._session.request(method, self._hub.url + url, data=as_bytes(body), headers=headers, timeout=30)
        self.tried += 1
        if reply.status_code < 400:
            self.accepted.add((method, path))
            return
        explained = method.upper() == "HEAD" or reply.json()["detail"]
        is_problem = reply.headers["Content-Type"] == "application/problem+json" and explained
        if reply.status_code >= 500 or not is_problem:
            self.wrong.append((method, url, body, reply.text))


def test_whatever_comes_it_is_never_a_500(hub: Any, wire_worker: Any) -> None:
    document = hub.get("/v1/openapi.json", by=None)
    hub.submit("true")
    hub.submit("true", array={"count": 3})
    worker = wire_worker(hub, hub.token("worker"), "w")
    hub.post("/v1/managers/m/publish", {"pools": [{"pool": "p"}]}, by="manager")
    fuzzer = Fuzzer(hub, worker.credential)
    for path, methods in document["paths"].items():
        for method in methods:
            if not path.endswith("/poll"):  # its answer may wait: below
                fuzzer.operation(document, method, path)
    assert not fuzzer.wrong, fuzzer.wrong[:20]
    assert fuzzer.tried > 500
    assert len(fuzzer.accepted) > 15, f"the generator is too strange: {sorted(fuzzer.accepted)}"
    assert hub.submit("true")
    assert "Traceback" not in (hub.state_dir / "hub.log").read_text()


@pytest.mark.parametrize("ack", [0, -1, 2**63, 1.5, "0", []])
def test_polls_of_any_kind(hub: Any, wire_worker: Any, ack: Any) -> None:
    worker = wire_worker(hub, hub.token("worker"), "w")
    hub.submit("true")
    reply = worker.call("poll", {"session": worker.session, "ack": ack})
    assert reply.status_code == (200 if ack == 0 else 422), reply.text
