"""Workers without a token and a real hub: who AWS vouches for, and whose worker the manager says that is.

AWS is a stand-in that checks signatures as AWS does (tests/stand_ins/aws_identity.py). The whole way, with a manager
and real agents, stands at the end.
"""

import hashlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backends.base import Capabilities, Context, EndOutcome, LaunchOutcome, Listing, Submission
from backends.memory import MemoryBackend, MemoryPlatform
from tests.place import until
from tests.stand_ins.aws_identity import REGION, Cloud, FakeMetadata, FakeSts, Instance
from worker.link.address import endpoint
from worker.link.identity import Keys, name_of, signed
from worker.protocol import Shape
from worker_manager.clock import SystemClock
from worker_manager.control.ledger import Ledger
from worker_manager.control.loop import Manager
from worker_manager.control.pool import ManagedPool
from worker_manager.hub.tls import fingerprint_of
from worker_manager.hub_client import HubClient
from worker_manager.policy.facts import PoolSettings
from worker_manager.policy.model import Limits
from worker_manager.sources.hub import HubSource

CLOCK = SystemClock()


@dataclass
class Site:
    hub: Any
    cloud: Cloud
    sts: FakeSts

    def claim(self, submission: str = "a", count: int = 1, pool: str = "p") -> None:
        claim = {"submission": submission, "pool": pool, "workers": [f"{submission}-{n}" for n in range(count)]}
        self.manager("launches", {**claim, "call_deadline": CLOCK.now_ms() + 60_000, "identity": "aws"})

    def identify(self, **told: Instance) -> Any:
        named = {worker.replace("_", "-"): f"aws:{one.account}:{one.id}" for worker, one in told.items()}
        return self.manager("identities", {"identities": named})["identified"]

    def manager(self, what: str, body: Any) -> Any:
        return self.hub.post(f"/v1/managers/m/{what}", body, by="manager")

    def join(self, instance: Instance, **more: Any) -> tuple[int, Any]:
        return self.send(self.message(instance, **more))

    def send(self, message: Any) -> tuple[int, Any]:
        reply = self.hub.call("POST", "/v1/join", message, by=None)
        return reply.status_code, reply.json()

    def message(
        self, instance: Instance, nonce: str = "", hub: str = "", pool: str = "p", at: datetime | None = None
    ) -> dict[str, Any]:
        nonce = nonce or secrets.token_hex(8)
        credential = hashlib.sha256(nonce.encode()).hexdigest()
        keys = Keys(instance.access_key, instance.secret_key, instance.session_token, REGION, "amazonaws.com")
        bound = {"x-wm-hub": name_of(endpoint(hub or self.hub.url)), "x-wm-worker": f"{nonce} {credential}"}
        headers = signed(keys, bound, int((at or datetime.now(UTC)).timestamp()))
        return {
            "protocol": 1,
            "nonce": nonce,
            "credential_sha256": credential,
            "pool": pool,
            "shape": {"cpus": 4000, "memory": 2**33},
            "host": {},
            "identity": {"kind": "aws", "headers": headers},
        }


@pytest.fixture
def site(start_hub: Any) -> Iterator[Site]:
    cloud = Cloud()
    with FakeSts(cloud) as sts:
        yield Site(start_hub(sts_url=sts.url), cloud, sts)


def test_an_instance_of_the_group_is_admitted_under_its_launchs_name(site: Site) -> None:
    instance = site.cloud.instance()
    site.claim()
    assert site.identify(a_0=instance) == ["a-0"]
    message = site.message(instance)
    status, told = site.send(message)
    assert (status, told["worker"]) == (201, "a-0")
    status, again = site.send(message)
    assert (status, again["worker"], again["session"]) == (201, "a-0", told["session"])
    assert site.hub.get("/v1/workers/a-0")["state"] == "ready"
    assert site.sts.asked == 1, "a repeat costs AWS nothing"
    status, refused = site.join(instance)
    assert (status, refused["code"]) == (409, "second-registrant")


def test_aws_is_not_asked_before_a_launch_waits_for_such_workers(site: Site) -> None:
    status, told = site.join(site.cloud.instance())
    assert (status, told["code"]) == (503, "identity-not-known")
    assert site.sts.asked == 0


def test_an_instance_of_another_group_waits_for_a_word_that_never_comes(site: Site) -> None:
    site.claim()
    site.identify(a_0=site.cloud.instance())
    reply = site.hub.call("POST", "/v1/join", site.message(site.cloud.instance()), by=None)
    assert (reply.status_code, reply.json()["code"]) == (503, "identity-not-known")
    assert int(reply.headers["Retry-After"]) > 0
    assert site.hub.get("/v1/workers")["workers"] == []


def test_an_instance_of_that_name_in_another_account_is_somebody_else(site: Site) -> None:
    ours = site.cloud.instance()
    site.claim()
    site.identify(a_0=ours)
    status, told = site.join(site.cloud.instance(ours.id, account="999999999999"))
    assert (status, told["code"]) == (503, "identity-not-known")


def test_a_proof_taken_from_another_registration_is_refused_without_asking(site: Site) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    overheard = site.message(instance)
    stolen = {**site.message(instance), "identity": overheard["identity"]}
    status, told = site.send(stolen)
    assert (status, told["code"]) == (401, "identity-refused")
    assert "another registration" in told["detail"]
    moved = site.message(instance)
    moved["identity"]["headers"]["x-wm-worker"] = overheard["identity"]["headers"]["x-wm-worker"]
    moved |= {name: overheard[name] for name in ("nonce", "credential_sha256")}
    status, told = site.send(moved)
    assert (status, told["code"]) == (401, "identity-refused")
    assert "SignatureDoesNotMatch" in told["detail"], "only who holds the keys can sign that"


def test_a_proof_for_another_hub_is_refused(site: Site) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    status, told = site.join(instance, hub="https://other.example")
    assert (status, told["code"]) == (401, "identity-refused")
    assert "https://other.example" in told["detail"]
    assert site.hub.url in told["detail"]
    assert site.sts.asked == 0


@pytest.mark.parametrize("ago", [timedelta(minutes=6), timedelta(minutes=-6)])
def test_a_signature_of_another_time_is_refused(site: Site, ago: timedelta) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    status, told = site.join(instance, at=datetime.now(UTC) - ago)
    assert (status, told["code"]) == (401, "identity-refused")
    assert "Signature expired" in told["detail"]
    assert site.join(instance)[0] == 201, "with the clock set right"


def test_who_signs_with_other_keys_is_refused(site: Site) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    for forged in (replace(instance, secret_key="guessed"), replace(instance, access_key="ASIAAAAAAAAAAAAAAAAA")):
        status, told = site.join(forged)
        assert (status, told["code"]) == (401, "identity-refused")


def test_while_aws_does_not_answer_nobody_is_refused_or_admitted(site: Site) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    site.sts.down = "<html>out of order"
    status, told = site.join(instance)
    assert (status, told["code"]) == (503, "identity-unverified")
    site.sts.down = ""
    assert site.join(instance)[0] == 201


@pytest.mark.parametrize("identity", [None, {}, "aws", {"kind": "aws", "headers": {"host": "127.0.0.1"}}])
def test_a_join_without_a_proof_is_refused(site: Site, identity: Any) -> None:
    site.claim()
    status, told = site.send({**site.message(site.cloud.instance()), "identity": identity})
    assert (status, told["code"]) == (401, "identity-refused")


def test_a_claim_has_tokens_or_identities(site: Site) -> None:
    base = {"submission": "a", "pool": "p", "workers": ["a-0"], "call_deadline": 1}
    for wrong in ({}, {"identity": "aws", "token_hashes": ["0" * 64]}, {"identity": "gcp"}):
        reply = site.hub.call("POST", "/v1/managers/m/launches", {**base, **wrong}, by="manager")
        assert reply.status_code == 422, wrong
    for name in ("i-0123456789", "aws:1:i-0123456789", "aws:123456789012:eve", 'aws:123456789012:i-0"'):
        reply = site.hub.call("POST", "/v1/managers/m/identities", {"identities": {"a-0": name}}, by="manager")
        assert reply.status_code == 422, name


# ---------------------------------------------------------------- the whole way


class Group(MemoryBackend):
    """A group whose instances share their user data. Each launched worker is an instance with an agent on it; the
    listing shows an instance as whose worker it is only once `tells`."""

    def __init__(self, platform: MemoryPlatform, context: Context, boot: Callable[[Submission], Instance]) -> None:
        super().__init__(platform, context)
        self.tells = True
        self.submissions: list[Submission] = []
        self._boot = boot
        self._instances: dict[str, Instance] = {}

    def launch(self, submission: Submission) -> LaunchOutcome:
        outcome = super().launch(submission)
        self.submissions.append(submission)
        for index in range(submission.count):
            self._instances[submission.worker_id(index)] = self._boot(submission)
        return outcome

    def list(self) -> Listing:
        seen = []
        for one in super().list().seen if self.tells else ():
            instance = self._instances[f"{one.submission}-{one.index}"]
            seen.append(replace(one, identity=f"aws:{instance.account}:{instance.role}:{instance.id}"))
        return Listing(tuple(seen))

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        return super().terminate(handle, force)


class Machines:
    """Instances with their metadata and agents; ended with the test."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder
        self.agents: list[subprocess.Popen[bytes]] = []
        self._metadata: list[FakeMetadata] = []

    def boot(self, submission: Submission) -> Instance:
        instance = self.site.cloud.instance()
        self.start(submission.command, instance)
        return instance

    def start(
        self, command: tuple[str, ...], instance: Instance, *more: str, missing: str = ""
    ) -> subprocess.Popen[bytes]:
        metadata = FakeMetadata(instance)
        metadata.missing |= {missing}
        self._metadata.append(metadata)
        environment = {**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.url}
        with (self.folder / f"{instance.id}.log").open("ab") as log:
            agent = subprocess.Popen([*command, *more], env=environment, stdout=log, stderr=log, cwd=self.folder)
        self.agents.append(agent)
        return agent

    def said(self, instance: Instance) -> str:
        return (self.folder / f"{instance.id}.log").read_text()

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        for metadata in self._metadata:
            metadata.close()


@pytest.fixture
def machines(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    machines = Machines(site, tmp_path)
    yield machines
    machines.close()


def command(site: Site, folder: Path, *more: str) -> tuple[str, ...]:
    words = (sys.executable, "-m", "worker", "--server", site.hub.url, "--join-identity", "aws", "--pool", "p")
    return (*words, "--work-dir", str(folder / "work"), "--cpus", "1", "--memory", "256MiB", *more)


def test_a_group_runs_a_job_and_no_token_was_ever_made(site: Site, machines: Machines, tmp_path: Path) -> None:
    platform = MemoryPlatform(CLOCK.now_ms)
    group = Group(platform, Context("m", "p", str(tmp_path), CLOCK.now_ms), machines.boot)
    group.tells = False
    settings = PoolSettings("p", "memory", Shape(cpus=1000, memory=2**28), Limits(max_workers=1))
    capabilities = Capabilities(secrets="none", elsewhere=True)
    pool = ManagedPool(settings, group, capabilities, command(site, tmp_path), list_ms=0, list_idle_ms=0)
    ledger = Ledger.in_folder(tmp_path / "manager", "m", CLOCK)
    ledger.acquire("test", 600_000)
    source = HubSource(HubClient(site.hub.url, token=site.hub.manager), "m", ("p",), CLOCK.now_ms)
    manager = Manager("m", "test", CLOCK, ledger, source, [pool], inline=True)
    job = site.hub.submit("sh", "-c", "exit 0", resources={"memory": "1MiB"})

    def state() -> Any:
        manager.tick()
        return site.hub.get(f"/v1/jobs/{job}")["state"]

    manager.tick()
    (submission,) = group.submissions
    assert submission.join_tokens == ()
    instance = group._instances[submission.worker_id(0)]
    until(lambda: "not-admitted" in machines.said(instance), "the agent to be told to wait")
    assert site.hub.get("/v1/workers")["workers"] == []
    group.tells = True
    until(lambda: state() == "succeeded", lambda: machines.said(instance), every=0.2)
    assert site.hub.get(f"/v1/jobs/{job}")["worker"] == submission.worker_id(0)
    (intent,) = ledger.memory().intents
    assert intent.registered_at is not None
    for secret in (instance.secret_key, instance.access_key, instance.session_token):
        assert secret not in machines.said(instance)
        for file in site.hub.state_dir.rglob("*"):
            assert not file.is_file() or secret.encode() not in file.read_bytes(), file
    ledger.close()


def test_a_stranger_gives_up_after_its_time_and_was_never_admitted(
    site: Site, machines: Machines, tmp_path: Path
) -> None:
    site.claim()
    site.identify(a_0=site.cloud.instance())
    stranger = site.cloud.instance()
    agent = machines.start(command(site, tmp_path), stranger, "--join-seconds", "3")
    assert agent.wait(60) == 1
    assert "no manager has said yet" in machines.said(stranger)
    assert site.hub.get("/v1/workers")["workers"] == []


def test_a_second_agent_on_an_admitted_instance_leaves_at_once(site: Site, machines: Machines, tmp_path: Path) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    machines.start(command(site, tmp_path), instance)
    until(lambda: site.hub.get("/v1/workers")["workers"], "the first one")
    second = machines.start(command(site, tmp_path, "--worker-id", "mine"), instance)
    assert second.wait(60) == 3
    assert "second-registrant" in machines.said(instance)


def test_an_instance_whose_metadata_come_late_is_waited_for(site: Site, machines: Machines, tmp_path: Path) -> None:
    instance = site.cloud.instance()
    site.claim()
    site.identify(a_0=instance)
    machines.start(command(site, tmp_path), instance, missing="/latest/meta-data/iam/security-credentials/")
    until(lambda: "has no role" in machines.said(instance), "its first try")
    machines._metadata[-1].missing.clear()
    until(lambda: site.hub.get("/v1/workers")["workers"], lambda: machines.said(instance))


def test_a_worker_knows_the_hub_by_what_it_pins_whatever_the_address(
    start_hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a name of which the hub knows nothing."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    cloud = Cloud()
    with FakeSts(cloud) as sts:
        hub = start_hub(tls="own", sts_url=sts.url)
        checked = {"verify": str(hub.state_dir / "tls" / "ca.pem")}
        instance = cloud.instance()
        claim = {"submission": "a", "pool": "p", "workers": ["a-0"], "call_deadline": CLOCK.now_ms() + 60_000}
        hub.post("/v1/managers/m/launches", {**claim, "identity": "aws"}, by="manager", **checked)
        named = {"a-0": f"aws:{instance.account}:{instance.id}"}
        hub.post("/v1/managers/m/identities", {"identities": named}, by="manager", **checked)
        site, name = Site(hub, cloud, sts), f"https://localhost:{hub.url.rpartition(':')[2]}"
        machines = Machines(site, tmp_path)
        pin = fingerprint_of(hub.state_dir / "tls" / "ca.pem")
        try:
            machines.start(command(site, tmp_path, "--server", name, "--ca-fingerprint", f"sha256:{pin}"), instance)
            here = until(lambda: hub.get("/v1/workers", **checked)["workers"], lambda: machines.said(instance))
            assert [one["id"] for one in here] == ["a-0"]
        finally:
            machines.close()
