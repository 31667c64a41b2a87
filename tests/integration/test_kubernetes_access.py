"""How the cluster is reached: TLS, tokens, client certificates, kubeconfigs, programs that give tokens."""

import json
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from backends import registry
from backends.base import Backend, Context, ListFailed, RefusalKind, Refused, Severity, Submission
from tests.stand_ins.kubernetes import Cluster
from worker.protocol import Shape

TOKEN = "canary-of-the-cluster"


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.crt"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert("127.0.0.1").configure_cert(self.context)
        self.cluster = Cluster(folder / "cluster", runs=False, tls=self.context)
        self.cluster.tokens = {TOKEN}

    def backend(self, **options: Any) -> Backend:
        kind = registry.load("kubernetes")
        given = {name.replace("_", "-"): str(value) for name, value in options.items()}
        return kind.create(
            kind.read(given, {"TOKEN": TOKEN, "OLD": "expired"}), Context("m", "p", "/x", lambda: 0, 10.0)
        )

    def kubeconfig(self, user: dict[str, Any], namespace: str = "") -> Path:
        cluster = {"server": self.cluster.url, "certificate-authority": str(self.ca_file)}
        here = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
        file = self.folder / "kubeconfig"
        file.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}, {"name": "nobody", "user": {"token": "wrong"}}],
            "contexts": [{"name": "here", "context": here},
                         {"name": "stranger", "context": {"cluster": "c", "user": "nobody"}}],
        }))  # fmt: skip
        return file


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.cluster.close()


def submission() -> Submission:
    return Submission("m-1", 1, "p", "m", Shape(cpus=100), ("true",), {}, ("wmj_x",))


def test_a_host_with_token_and_certificate_as_in_codalab(place: Place) -> None:
    backend = place.backend(cluster_host=place.cluster.url, auth_token="env:TOKEN", cert_path=place.ca_file)
    assert backend.list().seen == ()
    text = place.ca_file.read_text()
    assert place.backend(cluster_host=place.cluster.url, auth_token="env:TOKEN", cert=text).list().complete
    shown = repr(backend.check()) + backend.render(submission()) + repr(vars(backend))
    assert TOKEN not in shown


def test_a_server_with_another_certificate_is_not_spoken_to(place: Place) -> None:
    other = place.folder / "other.crt"
    trustme.CA().cert_pem.write_to_path(str(other))
    backend = place.backend(cluster_host=place.cluster.url, auth_token="env:TOKEN", cert_path=other)
    with pytest.raises(ListFailed, match=r"cannot be reached.*CERTIFICATE_VERIFY_FAILED"):
        backend.list()
    assert not place.cluster.calls


def test_a_token_that_has_ended_is_said_so(place: Place) -> None:
    backend = place.backend(cluster_host=place.cluster.url, auth_token="env:OLD", cert_path=place.ca_file)
    with pytest.raises(ListFailed, match="Unauthorized"):
        backend.list()
    outcome = backend.launch(submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    [finding] = backend.check()
    assert (finding.subject, finding.severity) == ("credentials", Severity.ERROR)
    assert "kubectl create token" in finding.mend


def test_a_client_certificate(place: Place) -> None:
    place.context.verify_mode = ssl.CERT_REQUIRED
    place.ca.configure_trust(place.context)
    place.cluster.tokens = None
    mine = place.ca.issue_cert("me@example.org")
    cert, key = place.folder / "me.crt", place.folder / "me.key"
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    options = {"cluster_host": place.cluster.url, "cert_path": place.ca_file}
    assert place.backend(**options, client_cert=cert, client_key=key).list().complete
    with pytest.raises(ListFailed):
        place.backend(**options).list()
    user = {"client-certificate": str(cert), "client-key": str(key)}
    assert place.backend(kubeconfig=place.kubeconfig(user)).list().complete


def test_a_kubeconfig_and_its_contexts(place: Place) -> None:
    file = place.kubeconfig({"token": TOKEN}, namespace="batch")
    place.cluster.namespaces.add("batch")
    backend = place.backend(kubeconfig=file)
    assert backend.list().complete
    assert "namespace batch" in next(one.text for one in backend.check() if one.subject == "cluster")
    with pytest.raises(ListFailed, match="Unauthorized"):
        place.backend(kubeconfig=file, context="stranger").list()
    with pytest.raises(ListFailed, match=r"the kubeconfig .* cannot be used"):
        place.backend(kubeconfig=file, context="nonesuch").list()


def test_a_program_that_gives_tokens_as_the_one_of_gke(place: Place) -> None:
    program = place.folder / "auth-plugin"
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "kind": "ExecCredential",
        "status": {"token": TOKEN},
    }
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(answer)}\nE\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(program), "interactiveMode": "Never"}
    backend = place.backend(kubeconfig=place.kubeconfig({"exec": plugin}))
    assert backend.list().complete


def test_credentials_that_were_refused_are_read_again(place: Place) -> None:
    token = place.folder / "token"
    token.write_text("expired")
    backend = place.backend(kubeconfig=place.kubeconfig({"tokenFile": str(token)}))
    for _ in range(2):
        with pytest.raises(ListFailed, match="Unauthorized"):
            backend.list()
    token.write_text(TOKEN)
    assert backend.list().complete


def test_a_program_that_hangs_takes_no_longer_than_a_call_may(place: Place) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "sleep", "args": ["3"]}
    file = place.kubeconfig({"exec": plugin | {"interactiveMode": "Never"}})
    kind = registry.load("kubernetes")
    backend = kind.create(kind.read({"kubeconfig": str(file)}), Context("m", "p", "/x", lambda: 0, 0.2))
    begun = time.monotonic()
    with pytest.raises(ListFailed, match="it took too long to get credentials"):
        backend.list()
    outcome = backend.launch(submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    assert time.monotonic() - begun < 2.5


def test_a_program_that_gives_none_is_a_finding_not_a_crash(place: Place) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "/bin/false", "interactiveMode": "Never"}
    backend = place.backend(kubeconfig=place.kubeconfig({"exec": plugin}))
    place.cluster.calls.clear()
    with pytest.raises(ListFailed):
        backend.list()
    outcome = backend.launch(submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    assert [one.severity for one in backend.check()] == [Severity.ERROR]
