"""What only the backend for Auto Scaling groups promises, against moto with machines that do not boot here."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.aws import Account
from backends.base import (
    Accepted,
    BackendUnusable,
    Context,
    ListFailed,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)
from backends.ec2_asg import OPTIONS, Ec2AsgBackend, create
from backends.options import complete
from tests.stand_ins.aws import Answer, CutAfter, CutBefore, Fault
from tests.stand_ins.ec2_asg import AsgStandIn, Fate
from worker.protocol import Shape

GROUP = "workers"
Make = Callable[..., Ec2AsgBackend]


class Now:
    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return int(time.time() * 1000) + self.ahead


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgStandIn]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AsgStandIn.credentials.items():
            patch.setenv(name, value)
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        with AsgStandIn(tmp_path_factory.mktemp("asg") / "machines", boots=False) as stand_in:
            yield stand_in


@pytest.fixture(scope="module")
def account(running: AsgStandIn) -> Account:
    return Account(complete(OPTIONS, {"endpoint-url": running.url, "group": GROUP}), 15.0)


@pytest.fixture
def aws(running: AsgStandIn) -> Iterator[AsgStandIn]:
    running.make_group(GROUP, "m", "p")
    running.calls.clear()
    yield running
    running.clear()


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def backend(aws: AsgStandIn, account: Account, tmp_path: Path, now: Now) -> Make:
    """A new one each time, as after a restart; `folder` is where it keeps its record."""

    def make(folder: str = "state", pool: str = "p", page: int | None = None, **options: Any) -> Ec2AsgBackend:
        (tmp_path / folder).mkdir(exist_ok=True)
        given = {"group": GROUP, "endpoint-url": aws.url, "queue-url": aws.queues[GROUP], **options}
        context = Context("m", pool, str(tmp_path / folder), now, shape=Shape(1000, 2**30), max_workers=4)
        made = Ec2AsgBackend(complete(OPTIONS, given), context, account)
        if page:
            made._cloud._page = page
        return made

    return make


def submission(id: str, count: int = 1, command: tuple[str, ...] = ("/bin/true",)) -> Submission:
    return Submission(id, count, "p", "m", Shape(1000, 2**30), command, {}, ())


def seen(backend: Ec2AsgBackend) -> dict[str, Seen]:
    return {f"{one.submission}-{one.index}": one for one in backend.list().seen}


BY_SIZE = {"launch-api": "desired-capacity"}

# ---------------------------------------------------------------- asking for instances


def test_sizes_are_absolute_and_computed_from_what_is_there(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**BY_SIZE)
    for number, count in enumerate((1, 3, 2)):
        assert one.launch(submission(f"s{number}", count)) == Accepted()
    asked = [body for service, action, body in aws.bodies if action == "setdesiredcapacity"]
    assert [b"DesiredCapacity=1&" in asked[0], b"DesiredCapacity=4&" in asked[1], b"DesiredCapacity=6&" in asked[2]]
    assert all(b"HonorCooldown=false" in body for body in asked)
    assert len(seen(one)) == aws.desired(GROUP) == 6


def test_a_size_that_was_set_without_an_answer_is_not_set_again(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**BY_SIZE)
    aws.order(Fault("autoscaling", "SetDesiredCapacity", CutAfter()))
    assert isinstance(one.launch(submission("lost", 2)), Unknown)
    assert one.launch(submission("next")) == Accepted()
    assert aws.desired(GROUP) == 3
    assert set(seen(one)) == {"lost-0", "lost-1", "next-0"}


def test_a_call_that_never_arrived_leaves_no_place_behind(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**BY_SIZE)
    aws.order(Fault("autoscaling", "SetDesiredCapacity", CutBefore()))
    assert isinstance(one.launch(submission("lost", 2)), Unknown)
    assert seen(one) == {}
    assert one.launch(submission("next")) == Accepted()
    assert aws.desired(GROUP) == 1
    assert set(seen(one)) == {"next-0"}, "the instance is for whom it was asked for"


def test_the_submission_is_the_client_token(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**{"launch-api": "launch-instances"})
    assert one.launch(submission("s1", 3)) == Accepted()
    (asked,) = [body.decode() for _, action, body in aws.bodies if action == "launchinstances"]
    assert "ClientToken=s1" in asked
    assert "RetryStrategy=none" in asked
    assert aws.calls["autoscaling", "launchinstances"] == 1


def test_where_launch_instances_is_not_offered_the_size_is_set(aws: AsgStandIn, backend: Make) -> None:
    aws.offers_launch = False
    one = backend()
    assert one.launch(submission("s1")) == Accepted()
    assert one.launch(submission("s2")) == Accepted()
    assert aws.calls["autoscaling", "launchinstances"] == 1, "asked once, and remembered"
    assert set(seen(one)) == {"s1-0", "s2-0"}


def test_where_it_is_not_allowed_too(aws: AsgStandIn, backend: Make) -> None:
    aws.order(Fault("autoscaling", "LaunchInstances", Answer("AccessDenied", 403)))
    assert backend().launch(submission("s1")) == Accepted()
    assert aws.desired(GROUP) == 1


def test_a_group_in_several_zones_is_launched_into_the_emptiest_that_has_machines(
    aws: AsgStandIn, backend: Make, now: Now
) -> None:
    zones = ["us-east-1a", "us-east-1b"]
    aws.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=GROUP, AvailabilityZones=zones)
    one = backend(**{"launch-api": "launch-instances"})

    def zone(id: str) -> str:
        one.launch(submission(id))
        asked = [body.decode() for _, action, body in aws.bodies if action == "launchinstances"]
        return asked[-1].partition("AvailabilityZones.member.1=")[2].partition("&")[0]

    aws.no_capacity = "InsufficientInstanceCapacity|no m5.large here"
    assert zone("s1") == "us-east-1a"
    assert zone("s2") == "us-east-1b"
    now.ahead = 3_600_000
    assert zone("s3") == "us-east-1a"


def test_only_some_came_and_why_the_others_did_not(aws: AsgStandIn, backend: Make) -> None:
    aws.no_capacity = "InsufficientInstanceCapacity|no m5.large here|2"
    one = backend(**{"launch-api": "launch-instances"})
    assert one.launch(submission("s1", 3)) == Accepted()
    found = seen(one)
    assert [found[f"s1-{n}"].phase for n in range(3)] == [WorkerPhase.RUNNING, WorkerPhase.RUNNING, WorkerPhase.ENDED]
    assert found["s1-2"].refusal is RefusalKind.CAPACITY
    assert "no m5.large here" in found["s1-2"].detail
    assert one.terminate(found["s1-2"].handle, force=False) == Accepted()


def test_the_largest_size_is_a_quota(aws: AsgStandIn, backend: Make) -> None:
    aws.asg.autoscaling_groups[GROUP].max_size = 2
    for api in ("launch-instances", "desired-capacity"):
        outcome = backend(**{"launch-api": api}).launch(submission("s1", 3))
        assert isinstance(outcome, Refused)
        assert outcome.kind is RefusalKind.QUOTA
    assert aws.desired(GROUP) == 0


def test_a_group_of_another_pool_is_not_touched(aws: AsgStandIn, backend: Make) -> None:
    other = backend(pool="q", folder="q")
    outcome = other.launch(Submission("s1", 1, "q", "m", Shape(1000, 1), ("/bin/true",), {}, ()))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    with pytest.raises(ListFailed, match="is tagged for pool 'p'"):
        other.list()
    assert [finding.severity for finding in other.check()][-1] is Severity.ERROR
    assert aws.desired(GROUP) == 0


def test_weighed_types_are_refused(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    template = aws.asg.autoscaling_groups[GROUP].ec2_launch_template
    aws.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        MixedInstancesPolicy={
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {"LaunchTemplateId": template.id, "Version": "$Latest"},
                "Overrides": [{"InstanceType": "m5.large", "WeightedCapacity": "2"}],
            }
        },
    )
    outcome = one.launch(submission("s1"))
    assert isinstance(outcome, Refused)
    assert "weighs" in outcome.text


# ---------------------------------------------------------------- no machine comes


def test_why_no_machine_comes_is_shown_and_typed(aws: AsgStandIn, backend: Make) -> None:
    aws.no_capacity = (
        "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded."
    )
    one = backend(**BY_SIZE)
    assert one.launch(submission("s1")) == Accepted()
    waiting = seen(one)["s1-0"]
    assert (waiting.phase, waiting.refusal) == (WorkerPhase.PENDING, RefusalKind.QUOTA)
    assert "Max spot instance count exceeded" in waiting.detail
    assert waiting.identity == ""
    aws.come()
    there = seen(one)["s1-0"]
    assert (there.phase, there.refusal) == (WorkerPhase.RUNNING, None)
    assert there.handle.startswith("i-")
    assert there.identity.endswith(f":workers:{there.handle}")


def test_a_list_is_whole_without_the_groups_own_words(aws: AsgStandIn, backend: Make) -> None:
    aws.no_capacity = "no capacity"
    one = backend(**BY_SIZE)
    one.launch(submission("s1"))
    aws.order(Fault("autoscaling", "DescribeScalingActivities", Answer("AccessDenied", 403), times=2))
    assert seen(one)["s1-0"].refusal is None


def test_a_worker_that_still_waits_can_be_taken_back(aws: AsgStandIn, backend: Make) -> None:
    aws.no_capacity = "no capacity"
    one = backend(**BY_SIZE)
    one.launch(submission("s1", 2))
    for _ in range(2):
        assert one.terminate("s1-1", force=True) == Accepted()
    assert aws.desired(GROUP) == 1
    aws.come()
    found = seen(one)
    assert found["s1-0"].phase is WorkerPhase.RUNNING
    assert found["s1-1"].phase is WorkerPhase.ENDED


def test_its_instance_that_comes_in_that_moment_is_a_stray_and_can_be_ended(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**BY_SIZE)
    aws.give(Fate(stays="Pending"))
    one.launch(submission("s1"))
    (instance,) = aws.members(GROUP)
    record = one._record
    with record.changing() as roster:
        roster.give_up(roster.waiting(), "", "taken back before a machine came", 0)
    stray = seen(one)[f"{instance}-0"]
    assert (stray.handle, stray.phase) == (instance, WorkerPhase.STARTING)
    aws.asg.autoscaling_groups[GROUP].desired_capacity = 0
    assert one.terminate(instance, force=True) == Accepted(), "also when the group cannot want fewer"
    assert aws.desired(GROUP) == 0
    assert aws.members(GROUP) == {}


# ---------------------------------------------------------------- whose instance it is


def test_instances_that_somebody_else_starts_are_shown_under_their_own_names(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**BY_SIZE)
    one.launch(submission("s1"))
    mine = seen(one)["s1-0"].handle
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=3)
    found = seen(one)
    strays = {name for name in found if name != "s1-0"}
    assert strays == {f"{instance}-0" for instance in aws.members(GROUP) if instance != mine}
    one.launch(submission("s2"))
    assert set(seen(one)) == {"s1-0", "s2-0", *strays}, "a stray never takes a place"


def test_what_was_joined_once_stays_joined(aws: AsgStandIn, backend: Make) -> None:
    backend(**BY_SIZE).launch(submission("s1", 2))
    backend(**BY_SIZE).launch(submission("s2", 2))
    before = {name: one.handle for name, one in seen(backend()).items()}
    assert len(set(before.values())) == 4
    for _ in range(3):
        assert {name: one.handle for name, one in seen(backend()).items()} == before


@pytest.mark.parametrize("api", ["launch-instances", "desired-capacity"])
def test_a_manager_that_died_before_the_answer_finds_its_workers(aws: AsgStandIn, backend: Make, api: str) -> None:
    one = backend(**{"launch-api": api})

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    one._note_outcome = dies  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        one.launch(submission("s1", 2))
    assert set(seen(backend())) == {"s1-0", "s1-1"}


def test_when_the_record_is_lost_the_tags_say_the_same(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1", 3))
    one.launch(submission("s2"))
    before = {name: found.handle for name, found in seen(one).items()}
    assert {name: found.handle for name, found in seen(backend(folder="another")).items()} == before


def test_a_record_that_is_spoilt_is_no_empty_one(aws: AsgStandIn, backend: Make, tmp_path: Path) -> None:
    one = backend()
    one.launch(submission("s1"))
    (tmp_path / "state" / "ec2-asg.json").write_text("{")
    with pytest.raises(ListFailed, match="is spoilt"):
        one.list()
    assert isinstance(one.launch(submission("s2")), Refused)
    assert isinstance(one.terminate("s1-0", force=False), Unknown)
    assert aws.desired(GROUP) == 1


def test_tags_take_few_calls_and_none_where_they_are_not_allowed(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    for number in range(5):
        one.launch(submission(f"s{number}", 4))
    one.list()
    one.list()
    assert aws.calls["ec2", "createtags"] == 5 + 4, "one for each submission, one for each number"
    aws.order(Fault("ec2", "CreateTags", Answer("UnauthorizedOperation", 403), times=100))
    other = backend()
    other.launch(submission("t"))
    for _ in range(3):
        assert "t-0" in seen(other)
    assert aws.calls["ec2", "createtags"] == 9 + 1


def test_what_is_over_is_forgotten_after_an_hour(aws: AsgStandIn, backend: Make, now: Now, tmp_path: Path) -> None:
    one = backend()
    one.launch(submission("s1"))
    handle = seen(one)["s1-0"].handle
    one.terminate(handle, force=True)
    assert seen(one)["s1-0"].phase is WorkerPhase.ENDED
    for reservation in aws.ec2.reservations.values():
        reservation.instances.clear()
    assert seen(one) == {}
    now.ahead = 2 * 3_600_000
    assert seen(one) == {}
    assert json.loads((tmp_path / "state" / "ec2-asg.json").read_text())["orders"] == []


# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("Pending:Wait", WorkerPhase.STARTING),
        ("Standby", WorkerPhase.RUNNING),
        ("Terminating:Wait", WorkerPhase.ENDING),
        ("Quarantined", WorkerPhase.UNKNOWN),
    ],
)
def test_every_lifecycle_state_is_shown(aws: AsgStandIn, backend: Make, state: str, phase: WorkerPhase) -> None:
    one = backend()
    one.launch(submission("s1"))
    aws.asg.autoscaling_groups[GROUP].instance_states[0].lifecycle_state = state
    assert seen(one)["s1-0"].phase is phase


def test_machines_in_store_are_no_workers_until_they_are_taken_out(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**BY_SIZE)
    aws.give(Fate(stays="Warmed:Stopped"))
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    aws.asg.autoscaling_groups[GROUP].desired_capacity = 0
    assert one.list().seen == ()
    aws.no_capacity = "taken from the store"
    one.launch(submission("s1"))
    assert seen(one)["s1-0"].phase is WorkerPhase.PENDING
    member = aws.asg.autoscaling_groups[GROUP].instance_states[0]
    member.lifecycle_state = "Pending"
    assert seen(one)["s1-0"].handle == member.instance.id


def test_an_instance_that_was_detached_is_still_shown(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1"))
    handle = seen(one)["s1-0"].handle
    aws.client("autoscaling").detach_instances(
        AutoScalingGroupName=GROUP, InstanceIds=[handle], ShouldDecrementDesiredCapacity=True
    )
    assert seen(one)["s1-0"].phase is WorkerPhase.RUNNING


def test_lists_of_several_pages_are_whole_or_an_error(aws: AsgStandIn, backend: Make) -> None:
    one = backend(page=5)
    for number in range(12):  # moto counts what was launched together as one
        one.launch(submission(f"s{number}", 10))
    aws.calls.clear()
    assert len(one.list().seen) == 120
    assert aws.calls["ec2", "describeinstances"] == 3
    aws.order(Fault("ec2", "DescribeInstances", Answer("InternalError", 500), times=2, after=1))
    with pytest.raises(ListFailed):
        one.list()


def test_a_launch_a_list_and_an_end_take_few_calls(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s0"))
    one.list()
    aws.calls.clear()
    one.launch(submission("s1", 50))
    assert dict(aws.calls) == {("autoscaling", "describeautoscalinggroups"): 1, ("autoscaling", "launchinstances"): 1}
    one.list()
    aws.calls.clear()
    one.list()
    assert dict(aws.calls) == {("autoscaling", "describeautoscalinggroups"): 1, ("ec2", "describeinstances"): 1}
    handle = seen(one)["s1-7"].handle
    aws.calls.clear()
    one.terminate(handle, force=False)
    assert dict(aws.calls) == {("autoscaling", "terminateinstanceinautoscalinggroup"): 1}


def test_an_end_that_is_asked_for_twice_takes_one_away(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1", 3))
    handle = seen(one)["s1-1"].handle
    aws.always_holds = True
    for _ in range(3):
        assert one.terminate(handle, force=False) == Accepted()
    assert aws.desired(GROUP) == 2
    assert sorted(aws.members(GROUP).values()) == ["InService", "InService", "Terminating:Wait"]
    assert one.terminate(handle, force=True) == Accepted(), "force waits for no hook"
    assert handle not in aws.members(GROUP)


def test_an_instance_of_nobody_cannot_be_ended(aws: AsgStandIn, backend: Make) -> None:
    (other,) = aws.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"]
    one = backend()
    assert isinstance(one.terminate(other["InstanceId"], force=True), Refused)
    assert aws.calls["ec2", "terminateinstances"] == 0


def test_a_smallest_size_stands_in_the_way_and_is_said(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1"))
    aws.asg.autoscaling_groups[GROUP].min_size = 1
    outcome = one.terminate(seen(one)["s1-0"].handle, force=False)
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert "minSize" in outcome.text
    assert any("MinSize is 1" in finding.text for finding in one.check())


# ---------------------------------------------------------------- the launch template


def versions(aws: AsgStandIn) -> list[Any]:
    return list(aws.asg.autoscaling_groups[GROUP].ec2_launch_template.versions)


def test_a_version_is_added_only_when_workers_are_started_otherwise(aws: AsgStandIn, backend: Make) -> None:
    for number in range(3):
        backend().launch(submission(f"s{number}"))
    assert len(versions(aws)) == 2
    backend(boot=("echo new",)).launch(submission("s3"))
    assert len(versions(aws)) == 3
    assert versions(aws)[-1].data["MetadataOptions"]["HttpTokens"] == "required", "everything else stays"
    backend(**{"launch-template": "fixed"}).launch(submission("s4"))
    assert len(versions(aws)) == 3


def test_a_group_that_names_the_default_version_gets_a_new_default(aws: AsgStandIn, backend: Make) -> None:
    group = aws.asg.autoscaling_groups[GROUP]
    group.provided_launch_template_version = group.launch_template_version = "$Default"
    assert backend().launch(submission("s1")) == Accepted()
    assert group.ec2_launch_template.default_version_number == 2


def test_a_group_that_names_a_number_is_refused_with_what_to_do(aws: AsgStandIn, backend: Make) -> None:
    group = aws.asg.autoscaling_groups[GROUP]
    group.provided_launch_template_version = group.launch_template_version = "1"
    outcome = backend().launch(submission("s1"))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert "$Latest" in outcome.text
    assert aws.desired(GROUP) == 0


def test_a_template_that_may_not_be_changed_launches_nothing(aws: AsgStandIn, backend: Make) -> None:
    aws.order(Fault("ec2", "CreateLaunchTemplateVersion", Answer("UnauthorizedOperation", 403)))
    outcome = backend().launch(submission("s1"))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.AUTH
    assert aws.desired(GROUP) == 0


def test_an_option_that_makes_no_sense_is_refused_at_once(aws: AsgStandIn, tmp_path: Path) -> None:
    context = Context("m", "p", str(tmp_path), Now())
    for name, value in (("mount", ("nonsense",)), ("tmp-device", "/dev/../etc"), ("docker-device", "sdg; rm -rf /")):
        with pytest.raises(BackendUnusable, match=name):
            create(complete(OPTIONS, {"group": GROUP, name: value}), context)


# ---------------------------------------------------------------- notices


def send(aws: AsgStandIn, body: str) -> None:
    aws.client("sqs").send_message(QueueUrl=aws.queues[GROUP], MessageBody=body)


def left(aws: AsgStandIn) -> int:
    got = aws.client("sqs").get_queue_attributes(QueueUrl=aws.queues[GROUP], AttributeNames=["All"])["Attributes"]
    return int(got["ApproximateNumberOfMessages"]) + int(got["ApproximateNumberOfMessagesNotVisible"])


def test_the_hook_is_held_by_heartbeats_and_released(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1"))
    handle = seen(one)["s1-0"].handle
    aws.take_away(handle)
    (notice,) = one.notices()
    assert notice.handle == handle
    assert notice.deadline_ms is not None
    for _ in range(2):
        assert one.hold(notice) == Accepted()
    assert len(aws.heartbeats) == 2
    assert aws.members(GROUP)[handle] == "Terminating:Wait"
    assert one.release(notice) == Accepted()
    assert aws.completed == [handle]
    assert one.notices() == ()
    assert left(aws) == 0


def test_an_instance_that_is_nobodys_worker_is_released_too(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    (instance,) = aws.members(GROUP)
    aws.take_away(instance)
    (notice,) = one.notices()
    assert notice.handle == ""
    assert one.release(notice) == Accepted()
    assert aws.completed == [instance]


def test_an_action_that_is_over_already_needs_no_answer(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1"))
    aws.take_away(seen(one)["s1-0"].handle)
    (notice,) = one.notices()
    aws._actions.clear()
    assert one.hold(notice) == Accepted()
    assert one.release(notice) == Accepted()
    assert one.notices() == ()


def test_a_release_that_failed_is_given_again(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1"))
    handle = seen(one)["s1-0"].handle
    aws.take_away(handle)
    (notice,) = one.notices()
    aws.order(Fault("autoscaling", "CompleteLifecycleAction", Answer("Throttling", 400)))
    assert isinstance(one.release(notice), Refused)
    assert one.notices() == (notice,)
    assert one.release(notice) == Accepted()


def test_spot_warnings_name_their_worker_and_their_end(aws: AsgStandIn, backend: Make) -> None:
    one = backend()
    one.launch(submission("s1", 2))
    found = seen(one)
    detail = {"instance-id": found["s1-0"].handle, "instance-action": "terminate"}
    aws.tell(GROUP, "EC2 Spot Instance Interruption Warning", "aws.ec2", detail)
    aws.tell(GROUP, "EC2 Instance Rebalance Recommendation", "aws.ec2", {"instance-id": found["s1-1"].handle})
    notices = {notice.handle: notice for notice in one.notices()}
    warned = notices[found["s1-0"].handle]
    assert warned.reason == "spot interruption"
    assert warned.deadline_ms is not None
    assert 0 < warned.deadline_ms - time.time() * 1000 <= 121_000
    assert notices[found["s1-1"].handle].deadline_ms is None
    for notice in notices.values():
        assert one.hold(notice) == Accepted()
        assert one.release(notice) == Accepted()
    assert aws.heartbeats == aws.completed == []
    assert left(aws) == 0


def test_garbage_and_other_groups_are_left_in_the_queue(aws: AsgStandIn, backend: Make, now: Now) -> None:
    one = backend()
    garbage = ["", " ", "{", "[]", "null", "{}", '{"detail": 3}', "[" * 5000, '{"detail": {"instance-id": 7}}']
    for body in garbage[1:]:
        send(aws, body)
    other = {
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "AutoScalingGroupName": "another",
        "LifecycleHookName": "h",
        "LifecycleActionToken": "t" * 36,
        "EC2InstanceId": "i-0123456789abcdef0",
    }
    send(aws, json.dumps(other))
    stranger = {"instance-id": "i-0fedcba9876543210", "instance-action": "terminate"}
    aws.tell(GROUP, "EC2 Spot Instance Interruption Warning", "aws.ec2", stranger)
    before = left(aws)
    assert one.notices() == ()
    assert left(aws) == before
    now.ahead = 3_600_000
    assert one.notices() == ()
    assert left(aws) == before - 1, "a warning that is an hour old is of no use to anybody"


def test_the_test_message_of_a_hook_is_taken_away(aws: AsgStandIn, backend: Make) -> None:
    send(aws, json.dumps({"Event": "autoscaling:TEST_NOTIFICATION", "AutoScalingGroupName": GROUP}))
    assert backend().notices() == ()
    assert left(aws) == 0


def test_without_a_queue_there_are_no_notices(aws: AsgStandIn, backend: Make) -> None:
    assert backend(**{"queue-url": ""}).notices() == ()
    assert aws.count("sqs") == 0


# ---------------------------------------------------------------- doctor


def test_doctor_names_a_scaling_policy_of_another_and_how_to_suspend_it(aws: AsgStandIn, backend: Make) -> None:
    asg = aws.client("autoscaling")
    asg.put_scaling_policy(
        AutoScalingGroupName=GROUP,
        PolicyName="theirs",
        PolicyType="TargetTrackingScaling",
        TargetTrackingConfiguration={
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ASGAverageCPUUtilization"},
            "TargetValue": 50.0,
        },
    )
    one = backend()
    (found,) = [finding for finding in one.check() if finding.subject == "scaling policies"]
    assert found.severity is Severity.ERROR
    assert "theirs" in found.text
    assert "suspend-processes" in found.mend
    asg.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["AlarmNotification"])
    (found,) = [finding for finding in one.check() if finding.subject == "scaling policies"]
    assert found.severity is Severity.OK


def test_doctor_looks_at_shape_queue_and_rights(aws: AsgStandIn, backend: Make) -> None:
    one = backend(**{"queue-url": aws.queues[GROUP] + "-not-there"})
    subjects = {finding.subject: finding for finding in one.check()}
    assert subjects["queue"].severity is Severity.ERROR
    assert subjects["shape"].severity is Severity.OK
    aws.order(Fault("autoscaling", "DescribePolicies", Answer("AccessDenied", 403)))
    subjects = {finding.subject: finding for finding in backend().check()}
    assert subjects["scaling policies"].severity is Severity.WARNING
    aws.order(Fault("iam", "GetInstanceProfile", Answer("AccessDenied", 403)))
    subjects = {finding.subject: finding for finding in backend().check()}
    assert subjects["instance role"].severity is Severity.WARNING
    subjects = {finding.subject: finding for finding in backend().check()}
    assert (subjects["instance role"].severity, subjects["instance role"].text) == (Severity.OK, "workers")
    aws.order(Fault("sts", "GetCallerIdentity", Answer("ExpiredToken", 403)))
    (only,) = backend().check()
    assert only.severity is Severity.ERROR
