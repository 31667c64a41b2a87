"""What a person may set of Azure Batch, and what of it makes no sense. No SDK is needed to read this."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backends.base import BackendUnusable, Option

OPTIONS = (
    Option("service-url", required=True, help="the Batch account's, such as https://ACCOUNT.REGION.batch.azure.com"),
    Option("job-id", required=True, help="the job under which workers are tasks; its pool gives them machines"),
    Option("account-name", help="the Batch account's name, for its shared key"),
    Option("account-key", secret=True, help="its shared key; without it Entra ID is asked, by azure-identity"),
    Option("client-id", help="which managed identity of this machine is asked, where it has several"),
    Option("ca-file", "path", help="certificates to trust besides the usual ones, for a proxy that opens TLS"),
    Option(
        "log-container-url", help="blob container for the workers' output: https://STORE.blob.core.windows.net/LOGS"
    ),
    Option("log-container-sas", secret=True, help="a SAS that may read and write there"),
    Option("log-identity", help="instead of a SAS: resource id of an identity of the pool that may write there"),
    Option("user", default="root", help="as whom: root; auto, the pool's common user without rights; or its account"),
    Option("image", help="container image with Python 3.9 or newer, where the pool runs containers"),
    Option("container-run-options", default="", help="further options of `docker run`"),
    Option("container-limits", "bool", True, "hold the container to the shape's CPUs and memory"),
    Option("registry-server", help="the image's registry, where it asks who comes"),
    Option("registry-identity", help="resource id of an identity of the pool that may pull from there"),
    Option("mount", "list", (), "NODE_PATH or NODE_PATH:PLACE of the node for the container, such as /mnt/cache"),
    Option("slots", "int", 1, "how many task slots of a node one worker takes"),
    Option("retention-time", "duration", None, "how long a node keeps an ended worker's files (Azure: 7 days)"),
    Option("keep-ended", "duration", 3_600_000, "how long an ended worker stays listed"),
    Option("create-job", "bool", False, "make the job when it is not there"),
    Option("pool-id", help="the pool of a job that is made"),
    Option("pool-file", "path", help="JSON of the pool to be made with the job, when it is not there"),
)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATH = re.compile(r"/[\w./@+-]*")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """The options, read and found to make sense together."""

    service_url: str
    job: str
    account: str = ""
    key: str = field(default="", repr=False)
    client_id: str = ""
    ca_file: str = ""
    log_url: str = ""
    log_sas: str = field(default="", repr=False)
    log_identity: str = ""
    user: str = "root"
    image: str = ""
    run_options: str = ""
    container_limits: bool = True
    registry_server: str = ""
    registry_identity: str = ""
    mounts: tuple[str, ...] = ()
    slots: int = 1
    retention_ms: int | None = None
    keep_ended_ms: int = 3_600_000
    create_job: bool = False
    pool: str = ""
    pool_template: Mapping[str, Any] | None = None

    @property
    def log_container(self) -> str:
        """With what opens it: never to be shown."""
        return f"{self.log_url}?{self.log_sas}" if self.log_sas else self.log_url


def read(options: Mapping[str, Any]) -> Settings:
    """Raises BackendUnusable with every mistake, a line for each."""
    problems = [*_of_the_account(options), *_of_the_logs(options), *_of_the_container(options), *_of_numbers(options)]
    template, more = _template(options)
    if problems := [*problems, *more]:
        raise BackendUnusable("\n".join(problems))
    return Settings(
        service_url=options["service-url"].rstrip("/"),
        job=options["job-id"],
        account=options["account-name"] or "",
        key=options["account-key"] or "",
        client_id=options["client-id"] or "",
        ca_file=options["ca-file"] or "",
        log_url=(options["log-container-url"] or "").rstrip("/"),
        log_sas=(options["log-container-sas"] or "").lstrip("?"),
        log_identity=options["log-identity"] or "",
        user=options["user"],
        image=options["image"] or "",
        run_options=options["container-run-options"],
        container_limits=options["container-limits"],
        registry_server=options["registry-server"] or "",
        registry_identity=options["registry-identity"] or "",
        mounts=tuple(options["mount"]),
        slots=options["slots"],
        retention_ms=options["retention-time"],
        keep_ended_ms=options["keep-ended"],
        create_job=options["create-job"],
        pool=options["pool-id"] or (template or {}).get("id", ""),
        pool_template=template,
    )


def _of_the_account(options: Mapping[str, Any]) -> Iterator[str]:
    yield from _address("service-url", options["service-url"])
    if not _ID.fullmatch(options["job-id"]):
        yield f"job-id: {options['job-id']!r} is no id: at most 64 letters, digits, hyphens and underscores"
    if options["account-key"] and not options["account-name"]:
        yield "account-name: is needed with account-key"
    if options["account-key"] and not _is_base64(options["account-key"]):
        yield "account-key: is not a key of a Batch account, which is base64"
    if options["pool-id"] and not _ID.fullmatch(options["pool-id"]):
        yield f"pool-id: {options['pool-id']!r} is no id: at most 64 letters, digits, hyphens and underscores"


def _of_the_logs(options: Mapping[str, Any]) -> Iterator[str]:
    url = options["log-container-url"]
    if not url:
        for name in ("log-container-sas", "log-identity"):
            if options[name]:
                yield f"{name}: needs log-container-url"
        return
    if "?" in url:
        yield "log-container-url: holds a SAS, which is a secret: give what follows the ? by log-container-sas env:NAME"
        return
    yield from _address("log-container-url", url)
    if not urlsplit(url).path.strip("/"):
        yield f"log-container-url: {url} names no container"
    if options["log-container-sas"] and options["log-identity"]:
        yield "log-identity: is instead of log-container-sas"


def _of_the_container(options: Mapping[str, Any]) -> Iterator[str]:
    for mount in options["mount"]:
        if not all(_PATH.fullmatch(path) for path in mount.split(":")) or mount.count(":") > 1:
            yield f"mount: {mount!r} is neither an absolute path nor two of them with a colon between"
    if not options["image"]:
        for name in ("container-run-options", "registry-server", "registry-identity", "mount"):
            if options[name]:
                yield f"{name}: has a meaning only with image"
    if options["registry-identity"] and not options["registry-server"]:
        yield "registry-identity: needs registry-server"


def _of_numbers(options: Mapping[str, Any]) -> Iterator[str]:
    if not 1 <= options["slots"] <= 256:
        yield f"slots: {options['slots']} is not from 1 to 256"
    if options["create-job"] and not (options["pool-id"] or options["pool-file"]):
        yield "create-job: needs pool-id, or pool-file that has an id"


def _template(options: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, list[str]]:
    path = options["pool-file"]
    if not path:
        return None, []
    try:
        template = json.loads(Path(path).read_text())
    except (OSError, ValueError) as failed:
        return None, [f"pool-file: {path} cannot be read: {failed}"]
    if not isinstance(template, dict) or not template.get("vmSize"):
        return None, [f"pool-file: {path} describes no pool: it has no vmSize"]
    id = options["pool-id"] or template.get("id")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        return None, [f"pool-file: neither {path} nor pool-id gives the pool an id"]
    return {**template, "id": id}, []


def _address(name: str, url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query:
        yield f"{name}: {url} is not an address of the form https://HOST"


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
