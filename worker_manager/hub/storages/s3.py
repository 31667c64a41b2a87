"""S3 and what speaks its language, by boto3: addresses of version 4. The storage itself checks what is sent to them.

Credentials, endpoint and addressing come from where boto3 looks for them (instance role, environment, AWS's own files;
`AWS_ENDPOINT_URL_S3` for another storage of this kind). An address is signed for the region of its bucket: the global
endpoint would lead elsewhere, and what is signed does not follow.
"""

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

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
FIRST_REGION = "us-east-1"  # where a bucket is asked for its own
GET, LIST, PUT = "s3:GetObject", "s3:ListBucket", "s3:PutObject"
_CONFIG = Config(
    signature_version="s3v4",
    connect_timeout=CONNECT_S,
    read_timeout=READ_S,
    retries={"total_max_attempts": 2, "mode": "standard"},
    # An address carries the one checksum that we know, and none that the library would make of a body.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    max_pool_connections=16,
)


class S3Storage:
    largest_put = 5 * 2**30

    def __init__(self) -> None:
        self._session = boto3.session.Session()
        self._lock = Lock()  # making a client is not safe in several threads at once
        self._clients: dict[tuple[str, str], Any] = {}
        self._regions: dict[str, str] = {}

    def look(self, source: Source) -> Object:
        client = self._client(source)
        asked = {"Bucket": source.where, "Key": source.key, "ChecksumMode": "ENABLED"}
        found = _said(source, GET, lambda: client.head_object(**asked))
        return Object(source.key, int(found["ContentLength"]), str(found["ETag"]), digest_told(found))

    def below(self, source: Source) -> Iterator[Object]:
        client = self._client(source)
        token: dict[str, str] = {}
        while True:
            asked = {"Bucket": source.where, "Prefix": source.key, **token}
            page = _said(source, LIST, lambda asked=asked: client.list_objects_v2(**asked))  # type: ignore[misc]
            for each in page.get("Contents", ()):
                yield Object(str(each["Key"]), int(each["Size"]), str(each["ETag"]))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def to_get(self, source: Source, life_s: int) -> Address:
        return Address(self._signed(source, "get_object", GET, {}, life_s))

    def to_put(self, source: Source, size: int, sha256: str, life_s: int) -> Address:
        """Both headers are signed: other bytes, or more of them, the storage refuses."""
        digest = b64encode(bytes.fromhex(sha256)).decode()
        checked = {"ContentLength": size, "ChecksumSHA256": digest}
        url = self._signed(source, "put_object", PUT, checked, life_s)
        return Address(url, {"Content-Length": str(size), "x-amz-checksum-sha256": digest})

    def _signed(self, source: Source, what: str, right: str, more: dict[str, Any], life_s: int) -> str:
        client = self._client(source)
        asked = {"Bucket": source.where, "Key": source.key, **more}
        url = _said(source, right, lambda: client.generate_presigned_url(what, Params=asked, ExpiresIn=life_s))
        return str(url)

    # ------------------------------------------------------------ clients

    def _client(self, source: Source) -> Any:
        style = "path" if "." in source.where else "virtual"  # no certificate covers a dot in a bucket's name
        first = self._made(self._session.region_name or FIRST_REGION, style)
        if ".amazonaws.com" not in str(first.meta.endpoint_url):
            return first  # another storage: it has one address
        return self._made(self._region(first, source), style)

    def _made(self, region: str, style: str) -> Any:
        with self._lock:
            if (region, style) not in self._clients:
                found = self._session.client("s3", region_name=region, config=_CONFIG)
                if ".amazonaws.com" in str(found.meta.endpoint_url):
                    # Said, or addresses would go to the global endpoint.
                    styled = _CONFIG.merge(Config(s3={"addressing_style": style}))
                    found = self._session.client("s3", region_name=region, config=styled)
                self._clients[region, style] = found
            return self._clients[region, style]

    def _region(self, first: Any, source: Source) -> str:
        known = self._regions.get(source.where)
        if known is None:
            known = self._regions[source.where] = _said(source, LIST, lambda: _region_of(first, source.where))
        return known


def _region_of(client: Any, bucket: str) -> str:
    """A bucket names its region to everyone, also to who may not look into it."""
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
        if not _headers(answer).get("x-amz-bucket-region"):
            raise
    return str(_headers(answer).get("x-amz-bucket-region") or client.meta.region_name)


def _headers(answer: Any) -> dict[str, str]:
    found: dict[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return found


def digest_told(found: Any) -> str:
    """Of the whole object; one that was sent in parts has a digest of digests, which is none."""
    text = str(found.get("ChecksumSHA256") or "")
    if "-" in text or found.get("ChecksumType") == "COMPOSITE":
        return ""
    try:
        digest = b64decode(text, validate=True)
    except NotBase64:
        return ""
    return digest.hex() if len(digest) == 32 else ""


def _said(source: Source, right: str, ask: Callable[[], T]) -> T:
    """What it answers, or why not, as a StorageRefuses."""
    try:
        return ask()
    except (NoCredentialsError, PartialCredentialsError, TokenRetrievalError) as error:
        raise no_identity(source, str(error)) from None
    except ClientError as error:
        raise _refusal(source, right, error) from None
    except BotoCoreError as error:
        raise unavailable(source, str(error)[:300]) from None


def _refusal(source: Source, right: str, error: ClientError) -> StorageRefuses:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 404:
        return missing(source)
    if status in (401, 403):
        return forbidden(source, right, code if code != "403" else "it answers 403")
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
        return StorageRefuses("storage-refuses", f"{source}: its storage refuses: {str(error)[:300]}")
    return unavailable(source, str(error)[:300])
