"""A job that takes from all three object storages and keeps in all three, with real workers: the hub signs, the worker
holds no key, and the storages (stand-ins, and moto for S3) check what they can."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.place import Place, a_place
from tests.stand_ins.aws import AwsStandIn
from tests.stand_ins.object_storage import AzureStorageStandIn, GoogleStorageStandIn

MANAGER = ["--min-workers", "0", "--max-workers", "1", "--min-seconds-between-workers", "0", "--sleep-time", "600"]
LOCAL = ["local", "--cpus", "1", "--memory-mb", "256"]
STRANGE = "ä b+%41'(1).txt"


class Storages:
    def __init__(self, aws: AwsStandIn, azure: AzureStorageStandIn, google: GoogleStorageStandIn) -> None:
        self.s3 = aws.client("s3")
        self.azure = azure
        self.google = google
        self.s3.create_bucket(Bucket="bucket")

    def fill(self, name: str, data: bytes) -> None:
        """At the same name below each prefix."""
        self.s3.put_object(Bucket="bucket", Key=f"jobs/{name}", Body=data)
        self.azure.objects[f"box/jobs/{name}"] = data
        self.google.objects[f"bucket/jobs/{name}"] = data

    def found(self, name: str) -> list[bytes]:
        one = self.s3.get_object(Bucket="bucket", Key=f"jobs/{name}")["Body"].read()
        return [one, self.azure.objects[f"box/jobs/{name}"], self.google.objects[f"bucket/jobs/{name}"]]


PREFIXES = {"s3": "s3://bucket/jobs", "az": "az://account/box/jobs", "gs": "gs://bucket/jobs"}


@pytest.fixture(scope="module")
def storages() -> Iterator[tuple[Storages, dict[str, str], rsa.RSAPrivateKey]]:
    key = rsa.generate_private_key(65537, 2048)
    with (
        AwsStandIn() as aws,
        AzureStorageStandIn("account", base64.b64encode(b"k" * 64).decode()) as azure,
        GoogleStorageStandIn(key.public_key()) as google,
    ):
        environment = {
            **aws.credentials,
            "AWS_ENDPOINT_URL_S3": aws.url,
            "AZURE_STORAGE_CONNECTION_STRING": azure.connection_string,
            "STORAGE_EMULATOR_HOST": google.url,
        }
        yield Storages(aws, azure, google), environment, key


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, storages: tuple[Storages, dict[str, str], rsa.RSAPrivateKey]
) -> Iterator[tuple[Place, Storages]]:
    there, environment, key = storages
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    folder = tmp_path_factory.mktemp("storages")
    file = folder / "key.json"
    named = {"type": "service_account", "client_email": "hub@project.example", "token_uri": f"{there.google.url}/token"}
    file.write_text(json.dumps({**named, "private_key": pem, "private_key_id": "1", "project_id": "project"}))
    for made in a_place(folder):
        made.environment.update({**environment, "GOOGLE_APPLICATION_CREDENTIALS": str(file)})
        made.manage(*(word for prefix in PREFIXES.values() for word in ("--storage", prefix)), *MANAGER, *LOCAL)
        yield made, there


def test_from_all_storages_and_to_all_storages(place: tuple[Place, Storages], tmp_path: Path) -> None:
    commands, there = place
    there.fill("in/plain", b"plain")
    there.fill(f"in/deep/{STRANGE}", b"strange")
    words = [word for name, prefix in PREFIXES.items() for word in ("--input", f"{name}={prefix}/in/")]
    words += [word for name, prefix in PREFIXES.items() for word in ("--input", f"{name}-one={prefix}/in/plain")]
    words += [word for prefix in PREFIXES.values() for word in ("--output", f"out={prefix}/{{job}}/")]
    script = f'cat s3/deep/* az/deep/* gs/deep/* s3-one az-one gs-one; mkdir -p out/x; cp s3/plain "out/x/{STRANGE}"'
    job = commands.submit(*words, "--shell", script)
    ended = commands.reaches(job, "succeeded", "failed")
    assert (ended["state"], ended["text"]) == ("succeeded", "")
    assert commands.run("logs", job) == "strange" * 3 + "plain" * 3
    assert there.found(f"{job}/out/x/{STRANGE}") == [b"plain"] * 3

    # The last place of the three is where the list says it is, and from there it is fetched and taken again.
    commands.run("download", job, "--to", str(tmp_path / "got"))
    assert (tmp_path / "got" / "out" / "x" / STRANGE).read_bytes() == b"plain"
    later = commands.submit("--input", f"again=job:{job}/out", "--shell", "cat again/x/*")
    assert commands.reaches(later, "succeeded", "failed")["state"] == "succeeded"
    assert commands.run("logs", later) == "plain"


def test_what_a_storage_refuses_fails_the_job_with_what_to_do(place: tuple[Place, Storages]) -> None:
    commands, there = place
    job = commands.submit("--input", f"a={PREFIXES['gs']}/nothing", "--", "true")
    ended = commands.reaches(job, "failed")
    assert "gs://bucket/jobs/nothing is not there" in ended["text"]
    there.azure.forbidden = True
    job = commands.submit("--input", f"a={PREFIXES['az']}/in/other", "--", "true")
    assert "Storage Blob Data Reader" in commands.reaches(job, "failed")["text"]
    refused = commands.run("submit", "--input", "a=s3://bucket/other", "--", "true", code=2)
    assert "s3://bucket/jobs/" in refused
