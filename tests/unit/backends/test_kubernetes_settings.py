"""The options of the Kubernetes backend: mistakes by name, all at once."""

from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendUnusable
from backends.kubernetes.access import _Google, _in_cluster
from backends.kubernetes.api import NoAccess
from tests.unit.backends.kubernetes_words import chosen

HOST = {"cluster_host": "https://k:6443"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster_host": "k:6443"}, "cluster-host: 'k:6443' is not an address"),
        ({"cluster_host": "http://k:6443"}, "cluster-host: plain http would show the token"),
        ({"cluster_host": "https://[x"}, "cluster-host: 'https://[x' is not an address"),
        ({"auth_token": "env:TOKEN"}, "auth-token: is for --cluster-host"),
        ({"cert": "PEM"}, "cert: is for --cluster-host"),
        ({**HOST, "context": "c"}, "cluster-host: give it or a kubeconfig"),
        ({**HOST, "auth_token": "env:TOKEN", "google_auth": "true"}, "google-auth: give it or --auth-token"),
        ({**HOST, "cert_path": "/nonexistent.crt"}, "cert-path: there is no file /nonexistent.crt"),
        ({"kubeconfig": "/nonexistent"}, "kubeconfig: there is no file /nonexistent"),
        ({**HOST, "client_cert": __file__}, "client-cert: a certificate and its key belong together"),
        ({**HOST, "cert": "PEM", "cert_path": __file__}, "cert: give it or --cert-path"),
        ({"node_selector": ["novalue"]}, "node-selector: 'novalue' is not KEY=VALUE"),
        ({"node_selector": ["=x"]}, "node-selector: '=x' is not KEY=VALUE"),
        ({"tolerations": ["a=b:Never"]}, "tolerations: 'Never' in 'a=b:Never' is none of"),
        ({"tolerations": [":NoSchedule"]}, "tolerations: ':NoSchedule' is not KEY"),
        ({"work_nfs": "server"}, "work-nfs: 'server' is not SERVER:/PATH"),
        ({"work_host_path": "data"}, "work-host-path: 'data' is not an absolute path"),
        ({"work_claim": "a", "work_nfs": "b:/c"}, "work-nfs: give it or --work-claim"),
        ({"run_as_user": "-1"}, "run-as-user: -1 is not between"),
        ({"page_size": "0"}, "page-size: 0 is not between"),
        ({"grace_period": "0s"}, "grace-period: 0 is not between"),
        ({"allocatable_fraction": "74"}, "allocatable-fraction: is a part of one"),
        ({"pod_template": "/nonexistent"}, "pod-template: /nonexistent cannot be read"),
    ],
)
def test_a_mistake_is_named_with_its_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendUnusable) as wrong:
        chosen(**options)
    assert words in str(wrong.value)
    assert "canary" not in str(wrong.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(BackendUnusable) as wrong:
        chosen(node_selector="x", tolerations=":y", work_nfs="z", page_size="0")
    assert len(str(wrong.value).splitlines()) == 5  # the toleration lacks a key and has a strange effect


@pytest.mark.parametrize(
    ("text", "toleration"),
    [
        ("gpu", {"key": "gpu", "operator": "Exists"}),
        ("gpu:NoSchedule", {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}),
        ("a/b=c", {"key": "a/b", "operator": "Equal", "value": "c"}),
        ("a=:NoExecute", {"key": "a", "operator": "Equal", "value": "", "effect": "NoExecute"}),
        ("*", {"operator": "Exists"}),
    ],
)
def test_a_taint_is_tolerated_by_one_word(text: str, toleration: dict[str, str]) -> None:
    assert chosen(tolerations=[text]).tolerations == (toleration,)


def test_loopback_may_speak_plain_http_and_the_token_never_shows() -> None:
    made = chosen(cluster_host="http://127.0.0.1:8080/", auth_token="env:TOKEN")
    assert made.access.host == "http://127.0.0.1:8080"
    assert made.access.token == "canary-token"
    assert "canary" not in repr(made)


# ---------------------------------------------------------------- credentials without a cluster


class Configuration:
    """As much of the client's as the credentials touch."""

    def __init__(self) -> None:
        self.host = ""
        self.ssl_ca_cert = ""
        self.api_key: dict[str, str] = {}
        self.refresh_api_key_hook: Any = None


def test_in_a_pod_its_service_account_is_used_and_read_again(tmp_path: Path) -> None:
    for name, text in (("token", "first"), ("ca.crt", "PEM"), ("namespace", "batch\n")):
        (tmp_path / name).write_text(text)
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    configuration = Configuration()
    assert _in_cluster(configuration, tmp_path, environment) == "batch"
    assert configuration.host == "https://10.0.0.1:443"
    assert configuration.ssl_ca_cert == str(tmp_path / "ca.crt")
    assert "first" in configuration.api_key.popitem()[1]
    assert configuration.refresh_api_key_hook is not None


def test_where_there_is_nothing_to_go_by_it_is_said_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(NoAccess) as nothing:
        _in_cluster(Configuration(), tmp_path, {})
    assert "--kubeconfig" in str(nothing.value)
    assert "--cluster-host" in str(nothing.value)


class Account:
    """A Google account whose tokens end."""

    def __init__(self) -> None:
        self.token, self.valid, self.renewed = "", False, 0

    def refresh(self, _request: object) -> None:
        self.renewed += 1
        self.token, self.valid = f"token-{self.renewed}", True


def test_a_google_account_renews_its_token_only_when_it_has_ended() -> None:
    account, configuration = Account(), Configuration()
    hook = _Google(account)
    hook(configuration)
    hook(configuration)
    assert (account.renewed, configuration.api_key) == (1, {"authorization": "Bearer token-1"})
    account.valid = False
    hook(configuration)
    assert configuration.api_key == {"authorization": "Bearer token-2"}


def test_a_google_account_that_gives_no_token_is_no_access() -> None:
    class Broken(Account):
        def refresh(self, _request: object) -> None:
            raise OSError("the metadata server does not answer")

    with pytest.raises(NoAccess, match="the metadata server does not answer"):
        _Google(Broken())(Configuration())
