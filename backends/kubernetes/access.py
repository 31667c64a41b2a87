"""Settings → an Api: kubeconfig, the service account of the pod we run in, or a host with a token or certificate.

Only here is the official client asked. Nothing is sent, except where a kubeconfig names a program for its tokens.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from backends.kubernetes.api import Api, NoAccess
from backends.kubernetes.settings import Access

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def connect(access: Access, namespace: str) -> Api:
    """Raises NoAccess."""
    from kubernetes.client import Configuration

    configuration = Configuration()
    if access.host:
        _by_host(configuration, access)
        default = ""
    elif access.kubeconfig or access.context or kubeconfig_there():
        default = _by_kubeconfig(configuration, access)
    else:
        default = _in_cluster(configuration)
    return Api(configuration, namespace or default or "default")


def kubeconfig_there() -> bool:
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


def _by_host(configuration: Any, access: Access) -> None:
    configuration.host = access.host
    configuration.ssl_ca_cert = access.ca_path or None
    configuration.ca_cert_data = access.ca_text or None
    configuration.cert_file, configuration.key_file = access.client_cert or None, access.client_key or None
    if access.token:
        configuration.api_key = {"authorization": f"Bearer {access.token}"}
    if access.google:
        configuration.refresh_api_key_hook = _Google()
        configuration.api_key = {"authorization": ""}


def _by_kubeconfig(configuration: Any, access: Access) -> str:
    """The namespace of its context."""
    config = _loaders()
    file = access.kubeconfig or None
    try:
        config.load_kube_config(file, access.context or None, configuration, persist_config=False)
        contexts, active = config.list_kube_config_contexts(file)
    except Exception as failed:  # what the loader raises ranges from ConfigException to KeyError
        raise NoAccess(f"the kubeconfig {file or ''} cannot be used: {failed}".replace("  ", " ")) from failed
    named = [one for one in contexts if one["name"] == access.context] if access.context else [active]
    return str(named[0].get("context", {}).get("namespace") or "") if named else ""


def _in_cluster(configuration: Any, folder: Path = IN_CLUSTER, environment: Mapping[str, str] = os.environ) -> str:
    """The namespace of our own pod. The token is read again by the client: the cluster renews it."""
    loaders: Any = import_module("kubernetes.config.incluster_config")
    try:
        loaders.InClusterConfigLoader(
            token_filename=str(folder / "token"), cert_filename=str(folder / "ca.crt"), environ=environment
        ).load_and_set(configuration)
        return (folder / "namespace").read_text().strip()
    except (_loaders().ConfigException, OSError) as failed:
        raise NoAccess(
            "there is neither a kubeconfig nor the service account of a pod here: give --kubeconfig, or --cluster-host "
            f"with --auth-token and --cert-path ({failed})"
        ) from failed


def _loaders() -> Any:
    """The client's own readers of credentials; they have no types."""
    return import_module("kubernetes.config")


class _Google:
    """A token of the machine's Google account, renewed before it ends."""

    def __init__(self, credentials: Any = None) -> None:
        self._credentials = credentials

    def __call__(self, configuration: Any) -> None:
        try:
            import google.auth
            from google.auth.transport.requests import Request

            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(Request())
        except Exception as failed:  # GoogleAuthError, its transport's, or a file that is no key
            raise NoAccess(f"the machine's Google account gives no token: {failed}") from failed
        configuration.api_key = {"authorization": f"Bearer {self._credentials.token}"}
