"""Addresses of object storage, used over real HTTP: S3 against moto, with the signature computed anew; Azure Blob and
Google Cloud Storage against stand-ins that check every signature."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.stand_ins.aws import Answer, AwsStandIn, Fault
from tests.stand_ins.object_storage import AzureStorageStandIn, GoogleStorageStandIn
from worker_manager.hub.files.names import read_source
from worker_manager.hub.storages.azure import AzureStorage
from worker_manager.hub.storages.base import Address, Storage, StorageRefuses
from worker_manager.hub.storages.gcs import GoogleStorage
from worker_manager.hub.storages.s3 import S3Storage, digest_told

DATA = b"some table\n" * 500
DIGEST = hashlib.sha256(DATA).hexdigest()
STRANGE = "data/a b+c%d/ä~'(1).txt"
KEY = base64.b64encode(b"k" * 64).decode()


def put(address: Address, data: bytes, **other: str) -> requests.Response:
    return requests.put(address.url, data=data, headers={**address.headers, **other}, timeout=30)


def get(address: Address) -> requests.Response:
    return requests.get(address.url, headers=dict(address.headers), timeout=30)


# ---------------------------------------------------------------- the three, each with one object storage behind it


class Kind:
    """One kind of storage, with the prefix that is its own."""

    prefix = ""
    tells_digests = True

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def forbid(self) -> None:
        raise NotImplementedError


class Amazon(Kind):
    prefix = "s3://bucket/"
    tells_digests = False  # moto does not, of what came with its checksum alone

    def __init__(self, aws: AwsStandIn) -> None:
        super().__init__(S3Storage())
        self._aws = aws

    def forbid(self) -> None:
        for action in ("a", ""):  # HEAD of that object, and the list
            self._aws.order(Fault("s3", action, Answer("AccessDenied", 403), times=9))


class Other(Kind):
    def __init__(self, prefix: str, storage: Storage, stand_in: Any) -> None:
        super().__init__(storage)
        self.prefix = prefix
        self._stand_in = stand_in

    def forbid(self) -> None:
        self._stand_in.forbidden = True


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsStandIn]:
    with AwsStandIn() as stand_in:
        for name, value in {**stand_in.credentials, "AWS_ENDPOINT_URL_S3": stand_in.url}.items():
            monkeypatch.setenv(name, value)
        stand_in.client("s3").create_bucket(Bucket="bucket")
        yield stand_in


@pytest.fixture
def azure() -> Iterator[AzureStorageStandIn]:
    with AzureStorageStandIn("account", KEY) as stand_in:
        yield stand_in


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleStorageStandIn]:
    key = rsa.generate_private_key(65537, 2048)
    with GoogleStorageStandIn(key.public_key()) as stand_in:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        named = {"type": "service_account", "client_email": "hub@project.example", "token_uri": f"{stand_in.url}/token"}
        file = tmp_path / "key.json"
        file.write_text(json.dumps({**named, "private_key": pem, "private_key_id": "1", "project_id": "project"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        yield stand_in


@pytest.fixture(params=["s3", "az", "gs"])
def kind(request: Any) -> Kind:
    if request.param == "s3":
        return Amazon(request.getfixturevalue("aws"))
    if request.param == "az":
        azure = request.getfixturevalue("azure")
        storage = AzureStorage({"AZURE_STORAGE_CONNECTION_STRING": azure.connection_string})
        return Other("az://account/box/", storage, azure)
    google = request.getfixturevalue("google")
    return Other("gs://bucket/", GoogleStorage(variables={"STORAGE_EMULATOR_HOST": google.url}), google)


# ---------------------------------------------------------------- what all of them do


def test_what_is_put_by_an_address_is_looked_at_and_got_by_another(kind: Kind) -> None:
    for name in ("plain.txt", STRANGE):
        source = read_source(kind.prefix + name)
        address = kind.storage.to_put(source, len(DATA), DIGEST, 900)
        sent = put(address, DATA)
        assert sent.status_code in (200, 201), sent.text
        found = kind.storage.look(source)
        assert (found.key, found.size, found.sha256) == (name, len(DATA), DIGEST if kind.tells_digests else "")
        assert found.tag
        got = get(kind.storage.to_get(source, 900))
        assert (got.status_code, got.content) == (200, DATA)


def test_everything_below_a_prefix_comes_page_by_page(kind: Kind) -> None:
    names = [f"below/{number}" for number in range(5)]
    for name in [*names, "besides"]:
        put(kind.storage.to_put(read_source(kind.prefix + name), 1, hashlib.sha256(b"x").hexdigest(), 900), b"x")
    found = list(kind.storage.below(read_source(kind.prefix + "below/")))
    assert [each.key for each in found] == names
    assert all(each.size == 1 and each.tag for each in found)
    assert list(kind.storage.below(read_source(kind.prefix + "nothing/"))) == []


def test_what_is_not_there_and_what_may_not_be_looked_at_are_told_apart(kind: Kind) -> None:
    source = read_source(kind.prefix + "a")
    with pytest.raises(StorageRefuses, match="is not there") as refused:
        kind.storage.look(source)
    assert refused.value.code == "source-missing"
    kind.forbid()
    for ask in (lambda: kind.storage.look(source), lambda: list(kind.storage.below(read_source(kind.prefix)))):
        with pytest.raises(StorageRefuses, match="give it") as refused:
            ask()
        assert (refused.value.code, str(source.where) in str(refused.value)) == ("storage-forbidden", True)


# ---------------------------------------------------------------- what is signed


def signature_v4(url: str, method: str, headers: dict[str, str], secret: str) -> str:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html"""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.pop("X-Amz-Signature")
    names = query["X-Amz-SignedHeaders"].split(";")
    known = {"host": parts.netloc, **{name.lower(): value for name, value in headers.items()}}
    asked = "&".join(f"{quote(n, safe='-_.~')}={quote(query[n], safe='-_.~')}" for n in sorted(query))
    lines = "".join(f"{name}:{known[name].strip()}\n" for name in names)
    canonical = f"{method}\n{parts.path}\n{asked}\n{lines}\n{';'.join(names)}\nUNSIGNED-PAYLOAD"
    _, *scope = query["X-Amz-Credential"].split("/")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{'/'.join(scope)}\n{digest}"
    key = b"AWS4" + secret.encode()
    for word in scope:
        key = hmac.digest(key, word.encode(), hashlib.sha256)
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def test_s3_is_told_the_digest_and_the_length_within_the_signature(aws: AwsStandIn) -> None:
    storage = S3Storage()
    source = read_source("s3://bucket/" + STRANGE)
    address = storage.to_put(source, len(DATA), DIGEST, 900)
    signed = dict(parse_qsl(urlsplit(address.url).query))
    assert signed["X-Amz-SignedHeaders"] == "content-length;host;x-amz-checksum-sha256"
    assert signed["X-Amz-Expires"] == "900"
    secret = aws.credentials["AWS_SECRET_ACCESS_KEY"]
    assert signature_v4(address.url, "PUT", dict(address.headers), secret) == signed["X-Amz-Signature"]
    other = {**address.headers, "x-amz-checksum-sha256": base64.b64encode(b"\0" * 32).decode()}
    assert signature_v4(address.url, "PUT", other, secret) != signed["X-Amz-Signature"]
    got = storage.to_get(source, 900)
    signed = dict(parse_qsl(urlsplit(got.url).query))
    assert signature_v4(got.url, "GET", {}, secret) == signed["X-Amz-Signature"]


def test_s3_tells_the_digest_of_whole_objects(aws: AwsStandIn) -> None:
    client = aws.client("s3")
    client.put_object(Bucket="bucket", Key="whole", Body=DATA, ChecksumAlgorithm="SHA256")
    assert S3Storage().look(read_source("s3://bucket/whole")).sha256 == DIGEST
    in_parts = base64.b64encode(bytes.fromhex(DIGEST)).decode() + "-2"
    assert digest_told({"ChecksumSHA256": in_parts}) == digest_told({}) == digest_told({"ChecksumSHA256": "?"}) == ""


def test_an_s3_address_leads_to_the_region_of_its_bucket(aws: AwsStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    storage = S3Storage()
    storage._regions["bucket"] = "eu-west-1"
    storage._regions["dotted.bucket"] = "eu-west-1"
    url = storage.to_get(read_source("s3://bucket/a"), 60).url
    assert urlsplit(url).netloc == "bucket.s3.eu-west-1.amazonaws.com"
    assert "%2Feu-west-1%2Fs3%2F" in url
    parts = urlsplit(storage.to_get(read_source("s3://dotted.bucket/a"), 60).url)
    assert (parts.netloc, parts.path) == ("s3.eu-west-1.amazonaws.com", "/dotted.bucket/a")


def test_a_bucket_of_another_region_is_asked_where_it_is(aws: AwsStandIn) -> None:
    aws.client("s3").create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "ap-southeast-2"}
    )
    storage = S3Storage()
    client = storage._made("us-east-1", "virtual")
    assert storage._region(client, read_source("s3://far-away/a")) == "ap-southeast-2"


def test_s3_without_credentials_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageRefuses) as refused:
        S3Storage().to_get(read_source("s3://bucket/a"), 60)
    assert refused.value.code == "storage-no-identity"


def test_a_storage_that_does_not_answer_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AwsStandIn.credentials.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    nowhere = "http://127.0.0.1:9/account"
    line = f"AccountName=account;AccountKey={KEY};BlobEndpoint={nowhere};"
    for storage, source in (
        (S3Storage(), "s3://bucket/a"),
        (AzureStorage({"AZURE_STORAGE_CONNECTION_STRING": line}), "az://account/box/a"),
    ):
        with pytest.raises(StorageRefuses) as refused:
            storage.look(read_source(source))
        assert refused.value.code == "storage-unavailable"


def test_azure_addresses_are_for_one_blob_one_way_and_a_while(azure: AzureStorageStandIn) -> None:
    storage = AzureStorage({"AZURE_STORAGE_CONNECTION_STRING": azure.connection_string})
    azure.objects["box/a"] = azure.objects["box/b"] = b"there"
    read = storage.to_get(read_source("az://account/box/a"), 900)
    assert get(read).status_code == 200
    assert requests.get(read.url.replace("/box/a?", "/box/b?"), timeout=30).status_code == 403
    assert put(Address(read.url, {"x-ms-blob-type": "BlockBlob"}), b"new").status_code == 403
    assert requests.get(read.url.replace("sp=r&", "sp=rw&"), timeout=30).status_code == 403
    written = storage.to_put(read_source("az://account/box/a"), 1, DIGEST, 900)
    assert requests.get(written.url, timeout=30).status_code == 403


def test_azure_signs_with_a_delegated_key_that_it_keeps() -> None:
    from azure.storage.blob import UserDelegationKey

    asked = []

    class Service:
        account_name = "account"
        url = "https://account.blob.core.windows.net/"

        def get_user_delegation_key(self, begins: Any, until: Any) -> UserDelegationKey:
            asked.append((begins, until))
            key = UserDelegationKey()
            key.signed_oid, key.signed_tid, key.signed_service, key.signed_version = "oid", "tid", "b", "2024-11-04"
            key.signed_start, key.signed_expiry, key.value = begins.isoformat(), until.isoformat(), KEY
            return key

    from worker_manager.hub.storages.azure import Account

    storage = AzureStorage({})
    storage._accounts["account"] = Account(Service())
    first = storage.to_get(read_source("az://account/box/a b"), 900).url
    storage.to_put(read_source("az://account/box/c"), 1, DIGEST, 900)
    parts = urlsplit(first)
    query = dict(parse_qsl(parts.query))
    assert (parts.netloc, parts.path) == ("account.blob.core.windows.net", "/box/a%20b")
    assert (query["skoid"], query["sktid"], query["sp"], query["sr"], query["spr"]) == ("oid", "tid", "r", "b", "https")
    assert len(asked) == 1


def test_google_addresses_are_for_one_object_one_way(google: GoogleStorageStandIn) -> None:
    storage = GoogleStorage(variables={"STORAGE_EMULATOR_HOST": google.url})
    google.objects["bucket/a"] = google.objects["bucket/b"] = b"there"
    read = storage.to_get(read_source("gs://bucket/a"), 900)
    assert get(read).status_code == 200
    assert requests.get(read.url.replace("/bucket/a?", "/bucket/b?"), timeout=30).status_code == 403
    assert put(read, b"new").status_code == 403
    written = storage.to_put(read_source("gs://bucket/a"), 3, hashlib.sha256(b"new").hexdigest(), 900)
    assert put(written, b"new", **{"x-goog-meta-sha256": "0" * 64}).status_code == 403
    assert put(written, b"old").status_code == 400
    assert put(written, b"new").status_code == 200
    assert "hub%40project.example" in written.url
