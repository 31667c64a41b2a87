"""The options that a person set → one frozen value, with every mistake named at once. Reads one file: the template."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backends.base import BackendUnusable, Option
from backends.kubernetes import template

OPTIONS = (
    Option("namespace", help="where workers run (default: that of the kubeconfig's context or of our own pod)"),
    Option("kubeconfig", "path", help="how to reach the cluster (default: $KUBECONFIG, ~/.kube/config, else as a pod)"),
    Option("context", help="which context of the kubeconfig"),
    Option("cluster-host", help="address of the API server, instead of a kubeconfig: https://…"),
    Option("auth-token", secret=True, help="bearer token for --cluster-host"),
    Option("google-auth", "bool", False, "tokens for --cluster-host from the machine's Google account (GKE)"),
    Option("cert-path", "path", help="file with the cluster's CA certificate, for --cluster-host"),
    Option("cert", help="the same certificate as PEM text, instead of --cert-path"),
    Option("client-cert", "path", help="client certificate for --cluster-host"),
    Option("client-key", "path", help="its key"),
    Option("image", default="python:3.13-slim", help="any image with Python 3.9 or newer and a shell"),
    Option("image-pull-policy", help="when the image is pulled", choices=("Always", "IfNotPresent", "Never")),
    Option("image-pull-secrets", "list", (), "names of Secrets for private images"),
    Option("service-account", help="service account of the worker pods"),
    Option("priority-class", help="PriorityClass of the worker pods"),
    Option("node-selector", "list", (), "labels that a node must have: KEY=VALUE"),
    Option("tolerations", "list", (), "taints that are tolerated: KEY[=VALUE][:EFFECT]"),
    Option("gpu-resource", default="nvidia.com/gpu", help="name of the resource that stands for a GPU"),
    Option("gpu-type-label", help="node label that names the GPU type, such as cloud.google.com/gke-accelerator"),
    Option("nfs-volume-name", help="persistent volume for the work dir, through the claim NAME-claim"),
    Option("work-claim", help="PersistentVolumeClaim for the work dir"),
    Option("work-nfs", help="NFS export for the work dir: SERVER:/PATH"),
    Option("work-host-path", help="folder of the node for the work dir"),
    Option("run-as-user", "int", 1000, "user id of the worker in its pod; 0 is root, outside the restricted profile"),
    Option("grace-period", "duration", 60_000, "from the polite signal to the kill, when a pod is deleted"),
    Option("keep-ended", "duration", 3_600_000, "how long an ended worker's Job and log are kept"),
    Option("pod-template", "path", help="file with a pod template that is merged over ours"),
    Option("node-cpus", "cpus", help="nominal CPUs of a node, for `doctor` while the node pool is empty"),
    Option("node-memory", "bytes", help="nominal memory of a node, likewise"),
    Option("node-gpus", "int", help="GPUs of a node, likewise"),
    Option("allocatable-fraction", "float", 0.74, "which part of a nominal node is left for pods"),
    Option("page-size", "int", 1000, "objects in one page of a list"),
    Option("watch", "bool", True, "follow changes between lists, so that the whole is read less often"),
)  # fmt: skip

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TOLERATION = re.compile(r"(?P<key>[^=:]*)(=(?P<value>[^:]*))?(:(?P<effect>.*))?")


@dataclass(frozen=True)
class Access:
    """How the API server is reached."""

    host: str = ""
    token: str = ""
    google: bool = False
    ca_path: str = ""
    ca_text: str = ""
    client_cert: str = ""
    client_key: str = ""
    kubeconfig: str = ""
    context: str = ""

    def __repr__(self) -> str:
        return f"Access({self.host or self.kubeconfig or 'by itself'})"  # without the token


@dataclass(frozen=True)
class Settings:
    access: Access
    namespace: str  # "": what the access says
    image: str
    pull_policy: str
    pull_secrets: tuple[str, ...]
    service_account: str
    priority_class: str
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, str], ...]
    gpu_resource: str
    gpu_type_label: str
    work_volume: Mapping[str, Any] | None
    run_as_user: int
    grace_s: int
    keep_ended_s: int
    template: Mapping[str, Any]
    node: tuple[int, int, int] | None  # nominal milli-CPUs, bytes, GPUs
    allocatable: float
    page_size: int
    watch: bool


def read(options: Mapping[str, Any]) -> Settings:
    """Raises BackendUnusable with one line for each mistake."""
    wrong: list[str] = [*_access_problems(options), *_number_problems(options)]
    selector = _selector(options["node-selector"], wrong)
    tolerations = tuple(_toleration(text, wrong) for text in options["tolerations"])
    volume = _work_volume(options, wrong)
    over = _template(options["pod-template"], wrong)
    if wrong:
        raise BackendUnusable("\n".join(wrong))
    words = {name: value or "" for name, value in options.items()}
    return Settings(
        access=_access(words),
        namespace=words["namespace"],
        image=words["image"],
        pull_policy=words["image-pull-policy"],
        pull_secrets=tuple(options["image-pull-secrets"]),
        service_account=words["service-account"],
        priority_class=words["priority-class"],
        node_selector=selector,
        tolerations=tolerations,
        gpu_resource=words["gpu-resource"],
        gpu_type_label=words["gpu-type-label"],
        work_volume=volume,
        run_as_user=options["run-as-user"],
        grace_s=options["grace-period"] // 1000,
        keep_ended_s=options["keep-ended"] // 1000,
        template=over,
        node=_node(options),
        allocatable=options["allocatable-fraction"],
        page_size=options["page-size"],
        watch=options["watch"],
    )


def _access(words: Mapping[str, Any]) -> Access:
    return Access(
        host=words["cluster-host"].rstrip("/"),
        token=words["auth-token"],
        google=bool(words["google-auth"]),
        ca_path=words["cert-path"],
        ca_text=words["cert"],
        client_cert=words["client-cert"],
        client_key=words["client-key"],
        kubeconfig=words["kubeconfig"],
        context=words["context"],
    )


def _access_problems(options: Mapping[str, Any]) -> list[str]:
    host, wrong = options["cluster-host"], []
    for_host = [
        name
        for name in ("auth-token", "google-auth", "cert-path", "cert", "client-cert", "client-key")
        if options[name]
    ]
    if not host and for_host:
        wrong.append(f"{for_host[0]}: is for --cluster-host, which is not given")
    if host and (options["kubeconfig"] or options["context"]):
        wrong.append("cluster-host: give it or a kubeconfig, not both")
    if host:
        try:
            split = urlsplit(host)
            name = split.hostname
        except ValueError:
            split, name = urlsplit(""), None
        if split.scheme not in ("https", "http") or not name:
            wrong.append(f"cluster-host: {host!r} is not an address such as https://HOST[:PORT]")
        elif split.scheme == "http" and name not in _LOOPBACK:
            wrong.append("cluster-host: plain http would show the token to everyone on the way; use https")
    if options["auth-token"] and options["google-auth"]:
        wrong.append("google-auth: give it or --auth-token, not both")
    if bool(options["client-cert"]) != bool(options["client-key"]):
        wrong.append("client-cert: a certificate and its key belong together")
    if options["cert"] and options["cert-path"]:
        wrong.append("cert: give it or --cert-path, not both")
    paths = ("kubeconfig", "cert-path", "client-cert", "client-key")
    return wrong + [f"{name}: there is no file {options[name]}" for name in paths if _absent(options[name])]


def _absent(path: str | None) -> bool:
    return bool(path) and not Path(str(path)).is_file()


def _number_problems(options: Mapping[str, Any]) -> list[str]:
    bounds = {"run-as-user": (0, 2**31 - 1), "page-size": (1, 10_000), "grace-period": (1000, 24 * 3_600_000)}
    wrong = [
        f"{name}: {options[name]} is not between {low} and {high}"
        for name, (low, high) in bounds.items()
        if not low <= options[name] <= high
    ]
    if not 0 < options["allocatable-fraction"] <= 1:
        wrong.append("allocatable-fraction: is a part of one, such as 0.74")
    return wrong


def _selector(texts: tuple[str, ...], wrong: list[str]) -> dict[str, str]:
    wrong += [
        f"node-selector: {text!r} is not KEY=VALUE" for text in texts if not text.partition("=")[0] or "=" not in text
    ]
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _toleration(text: str, wrong: list[str]) -> dict[str, str]:
    """`*` as the key tolerates everything."""
    found = _TOLERATION.fullmatch(text)
    key, value, effect = found.group("key", "value", "effect") if found else ("", None, None)
    if not key:
        wrong.append(f"tolerations: {text!r} is not KEY[=VALUE][:EFFECT]")
    if effect is not None and effect not in _EFFECTS:
        wrong.append(f"tolerations: {effect!r} in {text!r} is none of {', '.join(_EFFECTS)}")
    rule = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return ({} if key == "*" else {"key": key}) | rule | ({"effect": effect} if effect else {})


def _work_volume(options: Mapping[str, Any], wrong: list[str]) -> dict[str, Any] | None:
    ways = [name for name in ("nfs-volume-name", "work-claim", "work-nfs", "work-host-path") if options[name]]
    if len(ways) > 1:
        wrong.append(f"{ways[1]}: give it or --{ways[0]}, not both")
    if options["nfs-volume-name"]:
        return {"persistentVolumeClaim": {"claimName": f"{options['nfs-volume-name']}-claim"}}
    if options["work-claim"]:
        return {"persistentVolumeClaim": {"claimName": options["work-claim"]}}
    if options["work-nfs"]:
        server, _, path = options["work-nfs"].partition(":/")
        if not server or not path:
            wrong.append(f"work-nfs: {options['work-nfs']!r} is not SERVER:/PATH")
        return {"nfs": {"server": server, "path": f"/{path}"}}
    if options["work-host-path"]:
        if not options["work-host-path"].startswith("/"):
            wrong.append(f"work-host-path: {options['work-host-path']!r} is not an absolute path")
        return {"hostPath": {"path": options["work-host-path"], "type": "DirectoryOrCreate"}}
    return None


def _template(path: str | None, wrong: list[str]) -> Mapping[str, Any]:
    if not path:
        return {}
    try:
        return template.read(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as failed:
        wrong.append(f"pod-template: {path} cannot be read: {getattr(failed, 'strerror', '') or 'it is no text'}")
    except template.BadTemplate as bad:
        wrong.append(f"pod-template: {path}: {bad}")
    return {}


def _node(options: Mapping[str, Any]) -> tuple[int, int, int] | None:
    if options["node-memory"] is None and options["node-cpus"] is None:
        return None
    return options["node-cpus"] or 0, options["node-memory"] or 0, options["node-gpus"] or 0
