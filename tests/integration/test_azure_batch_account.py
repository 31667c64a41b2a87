"""Azure Batch: the account, its job and its pool; and where CodaLab's manager did not see what was wrong with them."""

import json
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from backends.azure_batch import recipe
from backends.base import Accepted, ListFailed, Listing, RefusalKind, Refused, Severity, Unknown, WorkerPhase
from tests.stand_ins.azure_blobs import FakeBlobs
from tests.stand_ins.azure_machines import Node
from tests.stand_ins.azure_place import JOB, Place, bad, seen, until
from tests.stand_ins.azure_wire import Refusal
from worker.protocol import Shape
from worker_manager.clock import ManualClock


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.fake.make(JOB)
    yield made
    made.fake.close()
    assert made.fake.problems == []


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Place]:
    """Without processes, so that thousands cost nothing."""
    made = Place(tmp_path, runs=False, slots=10**6)
    made.fake.make(JOB)
    yield made
    made.fake.close()
    assert made.fake.problems == []


@pytest.fixture
def blobs() -> Iterator[FakeBlobs]:
    made = FakeBlobs()
    yield made
    made.close()


# ---------------------------------------------------------------- where CodaLab's failed


def test_queued_tasks_are_not_counted_as_running(tmp_path: Path) -> None:
    place = Place(tmp_path, slots=2, runs=False)
    place.fake.make(JOB)
    backend = place.backend()
    backend.launch(place.submission(count=5))
    phases = sorted(one.phase for one in backend.list().seen)
    assert phases == ["pending"] * 3 + ["running"] * 2
    assert all(one.started_at is None for one in backend.list().seen if one.phase is WorkerPhase.PENDING)
    place.fake.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccountCoreQuotaReached", RefusalKind.QUOTA),
        ("AllocationTimedout", RefusalKind.CAPACITY),
        ("AllocationFailed", RefusalKind.CAPACITY),
    ],
)
def test_a_pool_that_cannot_grow_is_seen_where_workers_wait(idle: Place, code: str, kind: RefusalKind) -> None:
    idle.fake.pools["pool-1"]["resizeErrors"] = [{"code": code, "message": "no more", "values": []}]
    idle.fake.nodes["pool-1"] = []
    backend = idle.backend()
    backend.launch(idle.submission())
    one = seen(backend, "m-1-0")
    assert (one.phase, one.refusal) == (WorkerPhase.PENDING, kind)
    assert f"pool pool-1 cannot grow: {code}: no more" in one.detail
    finding = bad(backend.check())["pool"]
    assert finding.severity is Severity.ERROR
    assert code in finding.text
    assert finding.mend


def test_nodes_that_are_stuck_are_seen(idle: Place) -> None:
    errors = [{"code": "DiskFull", "message": "There is not enough disk space", "errorDetails": []}]
    idle.fake.nodes["pool-1"] = [Node("tvm-1", "unusable", errors=errors), Node("tvm-2", "starttaskfailed")]
    backend = idle.backend()
    backend.launch(idle.submission())
    one = seen(backend, "m-1-0")
    assert (one.phase, one.refusal) == (WorkerPhase.PENDING, RefusalKind.CONFIG)
    assert "none of the pool's nodes can be used: 2 nodes (1 starttaskfailed, 1 unusable)" in one.detail
    assert "node tvm-1 is unusable: cannot be used; DiskFull: There is not enough disk space" in one.detail
    findings = [one for one in backend.check() if one.subject == "node"]
    assert {finding.text.split()[0] for finding in findings} == {"tvm-1", "tvm-2"}
    assert all("az batch node reboot --pool-id pool-1 --node-id tvm-" in finding.mend for finding in findings)


def test_a_worker_on_a_node_that_went_bad_says_so(idle: Place) -> None:
    idle.clock = ManualClock()
    backend = idle.backend()
    backend.launch(idle.submission())
    assert seen(backend, "m-1-0").detail == "on node tvm-1"
    idle.fake.nodes["pool-1"] = [Node("tvm-1", "unknown"), Node("tvm-2")]
    assert seen(backend, "m-1-0").detail == "on node tvm-1", "a pool is looked at once a minute"
    idle.clock.advance(61_000)
    assert "which is unknown: has lost contact with the service" in seen(backend, "m-1-0").detail


def test_listing_costs_a_call_a_page_and_two_a_minute(idle: Place) -> None:
    idle.clock = ManualClock(now_ms=int(time.time() * 1000))
    backend, other = idle.backend(), idle.backend("other")
    for _ in range(10):
        assert isinstance(backend.launch(idle.submission(count=100)), Accepted)
    assert idle.fake.calls["add"] == 10
    for _ in range(3):
        assert len(backend.list().seen) == 1000
    assert (idle.fake.calls["list"], idle.fake.calls["pool"], idle.fake.calls["counts"]) == (3, 1, 1)
    assert other.list().seen == ()
    assert idle.fake.calls["list"] == 4


def test_more_workers_than_a_page_are_all_listed(idle: Place) -> None:
    idle.fake.page = 300
    backend = idle.backend()
    for _ in range(10):
        backend.launch(idle.submission(count=100))
    listing = backend.list()
    assert len({one.handle for one in listing.seen}) == 1000
    assert listing.complete
    assert idle.fake.calls["list"] == 4


# ---------------------------------------------------------------- job and pool from settings


def test_without_leave_nothing_is_made(tmp_path: Path) -> None:
    place = Place(tmp_path)
    backend = place.backend()
    outcome = backend.launch(place.submission())
    assert isinstance(outcome, Refused)
    assert "JobNotFound" in outcome.text
    assert "--create-job" in bad(backend.check())["job"].mend
    assert place.fake.jobs == {}
    with pytest.raises(ListFailed, match="JobNotFound"):
        backend.list()
    place.fake.close()


def test_job_and_pool_are_made_once_by_whoever_launches_first(tmp_path: Path) -> None:
    place = Place(tmp_path, runs=False)
    file = tmp_path / "pool.json"
    file.write_text(json.dumps({"id": "gpus", "vmSize": "STANDARD_NC16AS_T4_V3", "taskSlotsPerNode": 2}))
    options = {"create_job": True, "pool_file": str(file)}
    one, two = place.backend(**options), place.backend("n", **options)
    assert not bad(one.check()).keys() - {"logs"}
    assert place.fake.jobs == {}, "to look changes nothing"
    assert one.list() == Listing(()), "where no job is yet, no worker is: else nothing would ever be launched"
    place.fake.refuse("list", Refusal(500, "InternalError", "oh"))
    with pytest.raises(ListFailed):
        one.list()
    assert isinstance(one.launch(place.submission()), Accepted)
    assert place.fake.jobs[JOB]["poolInfo"] == {"poolId": "gpus"}
    pool = place.fake.pools["gpus"]
    assert pool["enableAutoScale"]
    assert "mostNodes = 4;" in pool["autoScaleFormula"], "8 workers, two to a node"
    place.fake.refuse("add", Refusal(404, "JobNotFound", "not there"))  # as the other saw it a moment before
    assert isinstance(two.launch(replace(place.submission(id="n-1"), manager="n")), Accepted)
    assert (place.fake.calls["make job"], place.fake.calls["make pool"]) == (2, 2)
    assert place.tasks() == {"m-1-0", "n-1-0"}
    place.fake.close()


def test_a_job_that_ends_with_its_last_task_is_an_error(place: Place) -> None:
    place.fake.jobs[JOB]["onAllTasksComplete"] = "terminatejob"
    finding = bad(place.backend().check())["job"]
    assert finding.severity is Severity.ERROR
    assert finding.mend.endswith("--on-all-tasks-complete noaction")


# ---------------------------------------------------------------- who we are


class Token:
    """As azure-core wants a credential to be."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        assert scopes == ("https://batch.core.windows.net//.default",)
        return AccessToken(self.token, int(time.time()) + 3600)


class NoToken:
    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.identity import CredentialUnavailableError

        raise CredentialUnavailableError("nobody is logged in here")


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Place]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    made = Place(tmp_path, tls=context, runs=False)
    made.fake.make(JOB)
    yield made
    made.fake.close()


def test_a_token_of_entra_over_tls(tls: Place, tmp_path: Path) -> None:
    ca = str(tmp_path / "ca.pem")
    backend = tls.backend(credential=Token(tls.fake.bearer), ca_file=ca)
    assert isinstance(backend.launch(tls.submission()), Accepted)
    assert seen(backend, "m-1-0").phase is WorkerPhase.RUNNING
    expired = tls.backend(credential=Token("expired"), ca_file=ca)
    outcome = expired.launch(tls.submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    assert bad(expired.check())["credentials"].mend.startswith("az login")
    stranger = tls.backend(credential=Token(tls.fake.bearer))
    assert isinstance(stranger.launch(tls.submission()), Unknown), "a certificate that nobody trusts"
    with pytest.raises(ListFailed, match="certificate"):
        stranger.list()


def test_who_is_not_logged_in_anywhere_is_refused(tls: Place, tmp_path: Path) -> None:
    backend = tls.backend(credential=NoToken(), ca_file=str(tmp_path / "ca.pem"))
    outcome = backend.launch(tls.submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    assert "nobody is logged in here" in outcome.text
    assert sum(tls.fake.calls.values()) == 0
    with pytest.raises(ListFailed, match="nobody is logged in here"):
        backend.list()


def test_a_wrong_key_is_said_and_never_shown(place: Place) -> None:
    backend = place.backend(account_key="env:WRONG")
    assert isinstance(backend.launch(place.submission()), Refused)
    finding = bad(backend.check())["credentials"]
    assert "AuthenticationFailed" in finding.text
    assert "az batch account keys list --name wmaccount" in finding.mend
    assert "d3Jvbmc=" not in repr(finding)


def test_a_service_that_is_not_there(place: Place) -> None:
    backend = place.backend(service_url="http://127.0.0.1:1")
    assert isinstance(backend.launch(place.submission()), Unknown)
    with pytest.raises(ListFailed):
        backend.list()
    assert bad(backend.check())["service"].severity is Severity.ERROR


# ---------------------------------------------------------------- what doctor looks at


def test_a_good_account_has_no_errors(place: Place) -> None:
    findings = place.backend(shape=Shape(cpus=4000, memory=8 * 2**30), slots=4).check()
    assert bad(findings).keys() == {"logs"}
    assert any("1 workers of this shape on each STANDARD_D4S_V3" in one.text for one in findings)


@pytest.mark.parametrize(
    ("shape", "slots", "severity", "words"),
    [
        (Shape(cpus=8000), 4, Severity.ERROR, "asked for 8 CPUs, it has 4"),
        (Shape(cpus=4000, memory=2**35), 4, Severity.ERROR, "32 GiB of memory, it has 16 GiB"),
        (Shape(cpus=1000, gpus=1), 4, Severity.ERROR, "1 GPUs, it has 0"),
        (Shape(cpus=2000), 1, Severity.WARNING, "4 workers share a STANDARD_D4S_V3: asked for 8 CPUs"),
        (Shape(cpus=1000), 1, Severity.OK, "4 workers of this shape on each"),
    ],
)
def test_whether_the_shape_fits_the_vm_size(
    place: Place, shape: Shape, slots: int, severity: Severity, words: str
) -> None:
    found = next(one for one in place.backend(shape=shape, slots=slots).check() if one.subject == "shape")
    assert found.severity is severity
    assert words in found.text


def test_more_slots_than_a_node_has(place: Place) -> None:
    assert "takes 5 slots, a node has 4" in bad(place.backend(slots=5).check())["slots"].text


def test_an_image_needs_a_pool_of_containers_and_the_other_way_round(place: Place) -> None:
    assert "runs no containers" in bad(place.backend(image="python:3.12").check())["image"].text
    place.fake.pools["pool-1"]["virtualMachineConfiguration"] = {"containerConfiguration": {"type": "dockerCompatible"}}
    assert "in containers only" in bad(place.backend().check())["image"].text
    assert "image" not in bad(place.backend(image="python:3.12").check())


def test_a_pool_of_fixed_size_is_told_what_it_costs_and_how_to_change(place: Place) -> None:
    place.fake.pools["pool-1"] |= {"enableAutoScale": False, "targetDedicatedNodes": 1}
    finding = bad(place.backend().check())["autoscale"]
    assert "--auto-scale-formula 'mostNodes = 2; leastNodes = 0; workersPerNode = 4;" in finding.mend


def test_a_log_container_that_does_not_let_us_in_is_said_without_the_secret(place: Place, blobs: FakeBlobs) -> None:
    place.sas = "sv=1&sp=r&sig=wrong-secret"
    backend = place.backend(log_container_url=blobs.container, log_container_sas="env:SAS")
    found = [one for one in backend.check() if one.subject == "logs"]
    assert [one.severity for one in found] == [Severity.ERROR, Severity.WARNING, Severity.ERROR]
    assert "AuthenticationFailed" in found[-1].text
    assert "wrong-secret" not in repr(found)
    assert "wrong-secret" not in backend.logs("m-1-0", 1000)
    assert "wrong-secret" not in backend.render(place.submission())


# ---------------------------------------------------------------- time and secrets


def test_nothing_secret_is_shown_anywhere(place: Place, blobs: FakeBlobs) -> None:
    place.sas = blobs.sas
    backend = place.backend(log_container_url=blobs.container, log_container_sas="env:SAS")
    submission = place.submission(count=2)
    texts = [repr(backend.launch(submission)), repr(backend.list()), backend.render(submission), repr(backend.check())]
    texts += [repr(vars(backend)), repr(backend._settings)]
    for secret in ("wmj_canary", "sig=", place.fake.key):
        assert not [text for text in texts if secret in text], secret
    assert recipe.MASK in backend.render(submission)


def test_the_environment_of_the_manager_stays_with_it(place: Place) -> None:
    os.environ["WM_CANARY_SECRET"] = "canary"
    try:
        backend = place.backend()
        backend.launch(place.submission(command=("/usr/bin/env",)))
        until(lambda: seen(backend, "m-1-0").phase is WorkerPhase.ENDED, "its end")
    finally:
        del os.environ["WM_CANARY_SECRET"]
    said = backend.logs("m-1-0", 10_000)
    assert "WM_WORKER=m-1-0" in said
    assert "canary" not in said.replace("wmj_canary", "")
