"""What each cloud says of a machine's end, and what we make of it."""

import json
import threading
from pathlib import Path

import pytest

from tests.stand_ins import clouds
from worker.link.connection import Unreachable
from worker.notices import Notice
from worker.notices.aws import ACTION, REBALANCE, Aws
from worker.notices.azure import VARIABLE as AZURE_VARIABLE
from worker.notices.azure import Azure
from worker.notices.gcp import MAINTENANCE, PREEMPTED, Gcp
from worker.notices.gcp import VARIABLE as GCP_VARIABLE
from worker.notices.watch import Watch, platform_of

NOW = 1_795_162_800_000
AT_0822 = 1_795_162_920_000  # 2026-11-20T08:22:00Z


def test_ec2_tells_of_an_interruption_and_before_it_of_a_risk() -> None:
    with clouds.ec2() as cloud:
        source = Aws({"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url + "/"})
        assert source.look(NOW) is None
        cloud.answers[REBALANCE] = json.dumps({"noticeTime": "2026-11-20T08:20:00Z"})
        risk = source.look(NOW)
        assert risk is not None
        assert (risk.reason, risk.ends_ms) == ("rebalance", None)
        cloud.answers[ACTION] = json.dumps({"action": "terminate", "time": "2026-11-20T08:22:00Z"})
        end = source.look(NOW)
        assert end is not None
        assert (end.reason, end.ends_ms) == ("spot-interruption", AT_0822)
        assert "terminate" in end.text


def test_an_action_that_cannot_be_read_is_an_action() -> None:
    with clouds.ec2() as cloud:
        cloud.answers[ACTION] = "soon"
        found = Aws({"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url}).look(NOW)
    assert found is not None
    assert (found.reason, found.ends_ms) == ("spot-interruption", NOW)


def test_a_token_that_is_over_is_made_anew() -> None:
    with clouds.ec2() as cloud:
        source = Aws({"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url})
        source._token = "an old one"
        assert source.look(NOW) is None
        cloud.answers[ACTION] = (500, "")
        with pytest.raises(Unreachable, match="answers 500"):
            source.look(NOW)


def azure_saw(*events: object) -> "Notice | None":
    with clouds.azure("vm_3") as cloud:
        clouds.schedule(cloud, *events)  # type: ignore[arg-type]
        return Azure({AZURE_VARIABLE: cloud.url}).look(NOW)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Preempt", "spot-interruption"),
        ("Terminate", "termination"),
        ("Reboot", "maintenance"),
        ("Redeploy", "maintenance"),
    ],
)
def test_azure_tells_of_this_machine(kind: str, reason: str) -> None:
    found = azure_saw(clouds.event("Preempt", "vm_4"), clouds.event(kind, "vm_2", "vm_3"))
    assert found is not None
    assert (found.reason, found.ends_ms) == (reason, AT_0822)


def test_azure_s_other_events_are_no_end() -> None:
    assert azure_saw() is None
    assert azure_saw(clouds.event("Freeze", "vm_3")) is None
    assert azure_saw(clouds.event("Preempt", "vm_30")) is None
    assert azure_saw(clouds.event("Reboot", "vm_3", status="Completed")) is None


def test_an_azure_event_that_has_begun_ends_now() -> None:
    found = azure_saw(clouds.event("Reboot", "vm_3"), clouds.event("Preempt", "vm_3", not_before="", status="Started"))
    assert found is not None
    assert (found.reason, found.ends_ms) == ("spot-interruption", NOW)


def test_compute_engine_says_that_and_we_know_when() -> None:
    with clouds.compute_engine() as cloud:
        source = Gcp({GCP_VARIABLE: cloud.address})
        assert source.look(NOW) is None
        cloud.answers[MAINTENANCE] = "MIGRATE_ON_HOST_MAINTENANCE"
        assert source.look(NOW) is None
        cloud.answers[MAINTENANCE] = "TERMINATE_ON_HOST_MAINTENANCE"
        first, second = source.look(NOW), source.look(NOW + 5000)
        assert first == second, "the end does not move on"
        assert first is not None
        assert (first.reason, first.ends_ms) == ("maintenance", NOW + 60_000)
        cloud.answers[PREEMPTED] = "TRUE"
        taken = source.look(NOW + 6000)
        assert taken is not None
        assert (taken.reason, taken.ends_ms) == ("spot-interruption", NOW + 36_000)


class Script:
    """A source that says these things, one after the other; `done` when the last was said."""

    def __init__(self, *says: "Notice | Unreachable | None") -> None:
        self._says = list(says)
        self.done = threading.Event()

    def look(self, now_ms: int) -> "Notice | None":
        if not self._says:
            self.done.set()
            return None
        found = self._says.pop(0)
        if isinstance(found, Unreachable):
            raise found
        return found


def test_each_thing_is_told_once_and_a_nearer_end_again() -> None:
    no, risk = Unreachable("no"), Notice("rebalance", "", None)
    ends = [Notice("spot-interruption", "", when) for when in (100, 200, 50)]
    script = Script(no, no, None, no, risk, risk, ends[0], ends[0], ends[1], ends[2])
    watch = Watch(script, every_s=0)
    assert script.done.wait(20)
    watch.close()
    assert watch.taken() == [no, no, risk, ends[0], ends[2]]
    assert watch.taken() == []


def test_the_firmware_says_whose_the_machine_is(tmp_path: Path) -> None:
    assert platform_of({}, str(tmp_path / "none")) == ""
    (tmp_path / "product_name").write_text("Google Compute Engine\n")
    assert platform_of({}, str(tmp_path)) == "gcp"
    (tmp_path / "chassis_asset_tag").write_text("7783-7084-3265-9085-8269-3286-77\n")
    assert platform_of({}, str(tmp_path)) == "azure"
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert platform_of({}, str(tmp_path)) == "aws"
    assert platform_of({"AWS_EC2_METADATA_DISABLED": "true"}, str(tmp_path)) == ""
