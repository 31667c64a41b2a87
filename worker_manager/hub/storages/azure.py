"""Azure Blob, by azure-storage-blob: shared access signatures for one blob, one way.

Who signs: the account's key where one is given (`AZURE_STORAGE_CONNECTION_STRING`, or `AZURE_STORAGE_KEY` beside
`AZURE_STORAGE_ACCOUNT`), else a user delegation key, which the storage gives to the hub's own identity
(azure-identity finds it) and which is renewed every few hours.

The storage holds no SHA-256 against what is sent: it is written beside the blob (`x-ms-meta-sha256`), and whoever
fetches it holds the bytes against it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os import environ
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import quote

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.storage.blob import BlobServiceClient, UserDelegationKey, generate_blob_sas

from worker_manager.hub.files.names import Source
from worker_manager.hub.storages.base import (
    CONNECT_S,
    READ_S,
    Address,
    Object,
    StorageRefuses,
    forbidden,
    missing,
    no_identity,
    unavailable,
)

T = TypeVar("T")
READER = "the role Storage Blob Data Reader there"
DELEGATOR = "the role Storage Blob Data Contributor there, which may ask for a user delegation key"
DELEGATED_H = 6
BACKDATED_MIN = 5  # clocks differ
DIGEST = "sha256"


@dataclass(frozen=True)
class Account:
    service: Any  # a BlobServiceClient
    key: str = ""  # empty: signed with a delegated key


class AzureStorage:
    largest_put = 5000 * 2**20

    def __init__(self, variables: Mapping[str, str] = environ) -> None:
        self._variables = variables
        self._lock = Lock()
        self._accounts: dict[str, Account] = {}
        self._delegated: dict[str, tuple[datetime, UserDelegationKey]] = {}

    def look(self, source: Source) -> Object:
        account, container = self._account(source)
        blob = account.service.get_blob_client(container, source.key)
        found = _said(source, READER, blob.get_blob_properties)
        return Object(source.key, int(found.size), str(found.etag), _digest(found.metadata))

    def below(self, source: Source) -> Iterator[Object]:
        account, container = self._account(source)
        pages = account.service.get_container_client(container).list_blobs(
            name_starts_with=source.key, include=["metadata"]
        )
        while (each := _said(source, READER, lambda: next(pages, None))) is not None:
            yield Object(str(each.name), int(each.size), str(each.etag), _digest(each.metadata))

    def to_get(self, source: Source, life_s: int) -> Address:
        return Address(self._signed(source, "r", life_s))

    def to_put(self, source: Source, size: int, sha256: str, life_s: int) -> Address:
        url = self._signed(source, "cw", life_s)
        headers = {"Content-Length": str(size), "x-ms-blob-type": "BlockBlob", f"x-ms-meta-{DIGEST}": sha256}
        return Address(url, headers)

    # ------------------------------------------------------------ signing

    def _signed(self, source: Source, rights: str, life_s: int) -> str:
        account, container = self._account(source)
        now = datetime.now(UTC)
        by = {"account_key": account.key} if account.key else {"user_delegation_key": self._key(source, account, now)}
        base = str(account.service.url).rstrip("/")
        sas = generate_blob_sas(
            str(account.service.account_name),
            container,
            source.key,
            permission=rights,
            start=now - timedelta(minutes=BACKDATED_MIN),
            expiry=now + timedelta(seconds=life_s),
            protocol="https" if base.startswith("https:") else "https,http",
            **by,
        )
        return f"{base}/{quote(container)}/{quote(source.key)}?{sas}"

    def _key(self, source: Source, account: Account, now: datetime) -> UserDelegationKey:
        name = str(account.service.account_name)
        with self._lock:
            until, key = self._delegated.get(name, (now, None))
            if key is None or until - now < timedelta(hours=1):
                until = now + timedelta(hours=DELEGATED_H)
                begins = now - timedelta(minutes=BACKDATED_MIN)
                key = _said(source, DELEGATOR, lambda: account.service.get_user_delegation_key(begins, until))
                self._delegated[name] = (until, key)
            return key

    # ------------------------------------------------------------ accounts

    def _account(self, source: Source) -> tuple[Account, str]:
        name, _, container = source.where.partition("/")
        with self._lock:
            if name not in self._accounts:
                self._accounts[name] = self._open(name)
            return self._accounts[name], container

    def _open(self, name: str) -> Account:
        patience: dict[str, Any] = {
            "connection_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retry_total": 1,
            "initial_backoff": 1,
        }
        line = self._variables.get("AZURE_STORAGE_CONNECTION_STRING", "")
        if line:
            service = BlobServiceClient.from_connection_string(line, **patience)
            if service.account_name == name:
                return Account(service, str(getattr(service.credential, "account_key", "")))
        url = f"https://{name}.{self._variables.get('AZURE_STORAGE_SUFFIX') or 'blob.core.windows.net'}"
        key = self._variables.get("AZURE_STORAGE_KEY", "")
        if key and self._variables.get("AZURE_STORAGE_ACCOUNT") == name:
            return Account(BlobServiceClient(url, credential=key, **patience), key)
        from azure.identity import DefaultAzureCredential

        return Account(BlobServiceClient(url, credential=DefaultAzureCredential(), **patience))


def _digest(metadata: Mapping[str, str] | None) -> str:
    found = str((metadata or {}).get(DIGEST, ""))
    return found if len(found) == 64 and not set(found) - set("0123456789abcdef") else ""


def _said(source: Source, right: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except ClientAuthenticationError as error:
        raise no_identity(source, _short(error)) from None
    except ResourceNotFoundError:
        raise missing(source) from None
    except HttpResponseError as error:
        raise _refusal(source, right, error) from None
    except ServiceRequestError as error:
        raise unavailable(source, _short(error)) from None


def _refusal(source: Source, right: str, error: HttpResponseError) -> StorageRefuses:
    status = error.status_code or 0
    if status in (401, 403):
        return forbidden(source, right, str(getattr(error, "error_code", "") or status))
    if 400 <= status < 500 and status not in (408, 429):
        return StorageRefuses("storage-refuses", f"{source}: its storage refuses: {_short(error)}")
    return unavailable(source, _short(error))


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
