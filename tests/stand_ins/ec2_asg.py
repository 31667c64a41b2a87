"""EC2 Auto Scaling with machines that run: moto's API, made more like the real one, and every instance a process tree.

    with AsgStandIn(folder) as aws:
        aws.make_group("workers", "manager", "pool")

An instance runs the user data of its group's launch template, with a metadata service of its own and a console. What is
added to moto: LaunchInstances, sizes that are checked, instances that are pending, terminating and held by lifecycle
hooks (whose messages come to a queue), heartbeats and completed actions, shutdowns that take their time, activities,
refusals in the words of the real service. What a test may order of the next instance is a Fate.
"""

import base64
import io
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moto.autoscaling.models import autoscaling_backends
from moto.core.types import Base64EncodedString
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import StateReason
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, get_prefix
from moto.moto_api._internal.models import moto_api_backend

from backends.local import processes
from tests.stand_ins.aws import Application, AwsStandIn, Environ, StartResponse, _asked
from tests.stand_ins.aws_identity import ACCOUNT, Cloud
from tests.stand_ins.ec2_machines import MARK, REGION, ROLE, Machine, seen_of

LIVE_AT_ONCE = 12  # machines; others are shown as in service and boot later
_IMAGE = "ami-12c6146b"
_NAMESPACE = "http://autoscaling.amazonaws.com/doc/2011-01-01/"


@dataclass(frozen=True)
class Fate:
    stays: str = ""  # in this state, and does not boot, until `go_on`
    vanishes: bool = False  # from every list, at once
    dies: str = ""  # ended at once by AWS, with this reason


class Refusal(Exception):
    def __init__(self, text: str, code: str = "ValidationError") -> None:
        super().__init__(text)
        self.code = code


class AsgStandIn(AwsStandIn):
    def __init__(self, folder: Path, boots: bool = True) -> None:
        super().__init__()
        self.folder = folder
        self.shared = folder / "tmp"
        self.shared.mkdir(parents=True)
        self.people = Cloud()  # who signs with which keys
        self.machines: dict[str, Machine] = {}
        self.no_capacity = ""  # then the group starts nothing, and says this
        self.offers_launch = True
        self.heartbeats: list[str] = []
        self.completed: list[str] = []
        self.queues: dict[str, str] = {}  # by group: where its messages go
        self.always_holds = False  # the hook holds machines whose end we ordered, too
        self._boots = boots
        self._fates: list[Fate] = []
        self._to_boot: list[Machine] = []
        self._shutting: list[threading.Thread] = []
        self._activities: dict[str, list[tuple[str, str]]] = {}
        self._tokens: dict[str, dict[str, Any]] = {}  # by client token: what LaunchInstances answered
        self._actions: dict[str, tuple[str, str]] = {}  # lifecycle action token → instance, hook
        self._inner: Application = self._moto
        self._moto = self._front
        self._state = threading.RLock()
        self._making = threading.Lock()

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def clear(self) -> None:
        """As if nothing had ever been. Addresses and clients stay good."""
        self._end_all()
        moto_api_backend.reset()
        for kept in (self.calls, self.bodies, self.machines, self.heartbeats, self.completed, self.queues, self._fates):
            kept.clear()
        for known in (self._activities, self._tokens, self._actions):
            known.clear()
        self.relent()
        self.no_capacity, self.offers_launch, self.always_holds = "", True, False

    def __exit__(self, *error: object) -> None:
        self._end_all()
        super().__exit__(*error)
        shutil.rmtree(self.shared, ignore_errors=True)

    def _end_all(self) -> None:
        with self._state:
            self._to_boot.clear()
            machines = list(self.machines.values())
        mark = os.fsencode(f"{MARK}={self.folder}/")
        processes.end_all(lambda table: {pid for pid in table if mark in seen_of(pid, "environ")})
        for machine in machines:
            machine.shut_down(politely=False)
        while self._shutting:
            self._shutting.pop().join()

    # ------------------------------------------------ for a test

    @property
    def asg(self) -> Any:
        return autoscaling_backends[ACCOUNT][REGION]

    @property
    def ec2(self) -> Any:
        return ec2_backends[ACCOUNT][REGION]

    def make_group(
        self, name: str, manager: str, pool: str, largest: int = 1000, version: str = "$Latest", **more: Any
    ) -> None:
        """With everything that `doctor` wants to see."""
        with self._making:
            profile = self._instance_profile()
            _look_tags_up(self.ec2)
        data = {
            "ImageId": _IMAGE,
            "InstanceType": "m5.large",
            "IamInstanceProfile": {"Name": profile},
            "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        }
        made = self.client("ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        tags = {"worker-manager:manager": manager, "worker-manager:pool": pool}
        settings = {
            "AutoScalingGroupName": name,
            "MinSize": 0,
            "MaxSize": largest,
            "DesiredCapacity": 0,
            "AvailabilityZones": [f"{REGION}a"],
            "NewInstancesProtectedFromScaleIn": True,
            "LaunchTemplate": {
                "LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"],
                "Version": version,
            },
            "Tags": [
                {
                    "ResourceId": name,
                    "ResourceType": "auto-scaling-group",
                    "Key": key,
                    "Value": value,
                    "PropagateAtLaunch": True,
                }
                for key, value in tags.items()
            ],
        }
        asg = self.client("autoscaling")
        asg.create_auto_scaling_group(**{**settings, **more})
        asg.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=["AZRebalance", "ReplaceUnhealthy"])
        asg.put_lifecycle_hook(
            AutoScalingGroupName=name,
            LifecycleHookName="worker-manager",
            LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
            HeartbeatTimeout=600,
            DefaultResult="CONTINUE",
        )
        self.queues[name] = self.client("sqs").create_queue(QueueName=f"{name}-events")["QueueUrl"]

    def _instance_profile(self) -> str:
        iam = self.client("iam")
        if not iam.list_instance_profiles()["InstanceProfiles"]:
            iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
            iam.create_instance_profile(InstanceProfileName=f"{ROLE}-profile")
            iam.add_role_to_instance_profile(InstanceProfileName=f"{ROLE}-profile", RoleName=ROLE)
        return f"{ROLE}-profile"

    def client(self, service: str, region: str = REGION) -> Any:
        found = self.__dict__.setdefault("_clients", {})
        if service not in found:
            found[service] = super().client(service, region)
        return found[service]

    def give(self, fate: Fate) -> None:
        with self._state:
            self._fates.append(fate)

    def go_on(self) -> None:
        """What stays in a state goes on."""
        with self._state:
            for group in self.asg.autoscaling_groups.values():
                for member in group.instance_states:
                    if member.lifecycle_state in ("Pending", "Pending:Wait"):
                        member.lifecycle_state = "InService"
                        self._to_boot.append(self.machines[member.instance.id])
        self._boot_some()

    def come(self) -> None:
        """There is capacity again, and whatever the groups want comes."""
        with self._state:
            self.no_capacity = ""
            for group in self.asg.autoscaling_groups.values():
                self._fill(group)

    def take_away(self, instance: str) -> None:
        """AWS ends an instance of its own accord, after the lifecycle hook."""
        with self._state:
            group = self.asg.autoscaling_groups[self.machines[instance].group]
            group.desired_capacity -= 1
            self._end(group, self._member(instance), "Server.SpotInstanceTermination", held=True)

    def members(self, group: str) -> dict[str, str]:
        with self._state:
            found = self.asg.autoscaling_groups[group].instance_states
            return {member.instance.id: member.lifecycle_state for member in found}

    def desired(self, group: str) -> int:
        return int(self.asg.autoscaling_groups[group].desired_capacity)

    def tags_of(self, instance: str) -> Mapping[str, str]:
        return {tag["key"]: tag["value"] for tag in self.ec2.describe_tags({"resource-id": [instance]})}

    # ------------------------------------------------ the API

    def _front(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(body)
        service, action = _asked(environ, body)
        handler = getattr(self, f"_do_{action}", None) if service in ("autoscaling", "ec2") else None
        if handler is None:
            with self._state if service in ("autoscaling", "ec2") else nullcontext():
                return self._inner(environ, start)
        asked = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        try:
            with self._state:
                inner = handler(asked)
        except Refusal as refusal:
            text = f"<ErrorResponse><Error><Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message></Error>"
            return _xml(start, "400 Bad Request", text + "<RequestId>0</RequestId></ErrorResponse>")
        finally:
            self._boot_some()
        name = asked["Action"]
        if service == "ec2":
            return _xml(start, "200 OK", f"<{name}Response><requestId>0</requestId>{inner}</{name}Response>")
        result = f"<{name}Result>{inner}</{name}Result>" if inner is not None else ""
        request = "<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata>"
        return _xml(start, "200 OK", f'<{name}Response xmlns="{_NAMESPACE}">{result}{request}</{name}Response>')

    def _do_setdesiredcapacity(self, asked: Mapping[str, str]) -> None:
        group, wanted = self._group(asked), int(asked["DesiredCapacity"])
        if wanted > group.max_size:
            raise Refusal(
                f"New SetDesiredCapacity value {wanted} is above max value {group.max_size} for the AutoScalingGroup."
            )
        if wanted < group.min_size:
            raise Refusal(f"New SetDesiredCapacity value {wanted} is below min value {group.min_size}.")
        group.desired_capacity = wanted
        self._fill(group)

    def _do_launchinstances(self, asked: Mapping[str, str]) -> str:
        group, count, token = self._group(asked), int(asked["RequestedCapacity"]), asked["ClientToken"]
        if not self.offers_launch:
            raise Refusal("Could not find operation LaunchInstances for version 2011-01-01", "InvalidAction")
        if token not in self._tokens:
            if count > 100:
                raise Refusal("RequestedCapacity must be at most 100")
            if len(group.availability_zones) > 1 and "AvailabilityZones.member.1" not in asked:
                raise Refusal("AvailabilityZones or SubnetIds must be specified for a group in several zones")
            if group.desired_capacity + count > group.max_size:
                raise Refusal(f"Requested capacity is above max size {group.max_size}")
            self._tokens[token] = self._launch_now(group, count)
        answer = self._tokens[token]
        ids = "".join(f"<member>{id}</member>" for id in answer["ids"])
        launched = f"<member><InstanceType>m5.large</InstanceType><InstanceIds>{ids}</InstanceIds></member>"
        errors = f"<member><ErrorCode>{answer['code']}</ErrorCode><ErrorMessage>{escape(answer['text'])}</ErrorMessage>"
        return (
            f"<AutoScalingGroupName>{group.name}</AutoScalingGroupName><ClientToken>{token}</ClientToken>"
            f"<Instances>{launched if ids else ''}</Instances>"
            f"<Errors>{errors + '</member>' if answer['text'] else ''}</Errors>"
        )

    def _launch_now(self, group: Any, count: int) -> dict[str, Any]:
        """As far as there is capacity: `no_capacity` may say `CODE|words|how many come all the same`."""
        code, _, rest = self.no_capacity.partition("|")
        text, _, come = rest.partition("|")
        come_now = int(come or 0) if code else count
        before = set(self.machines)
        group.desired_capacity += come_now
        kept, self.no_capacity = self.no_capacity, ""
        self._fill(group)
        self.no_capacity = kept
        ids = [instance for instance in self.machines if instance not in before]
        return {"ids": ids, "code": code, "text": text if len(ids) < count else ""}

    def _do_terminateinstanceinautoscalinggroup(self, asked: Mapping[str, str]) -> str:
        instance = asked["InstanceId"]
        member = self._member(instance)
        if member is None:
            raise Refusal(f"Instance Id not found - No managed instance found for instance ID: {instance}")
        group = self.asg.autoscaling_groups[self.machines[instance].group]
        fewer = asked["ShouldDecrementDesiredCapacity"] == "true"
        if fewer and group.desired_capacity <= group.min_size:
            raise Refusal(
                f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without replacement "
                "will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or "
                "lower group's min size."
            )
        if fewer:
            group.desired_capacity -= 1
        self._end(group, member, "Client.UserInitiatedShutdown", held=self.always_holds)
        self._fill(group)
        return "<Activity><ActivityId>0</ActivityId><StatusCode>InProgress</StatusCode></Activity>"

    def _do_recordlifecycleactionheartbeat(self, asked: Mapping[str, str]) -> str:
        self._action(asked)
        self.heartbeats.append(asked["LifecycleActionToken"])
        return ""

    def _do_completelifecycleaction(self, asked: Mapping[str, str]) -> str:
        instance = self._action(asked)
        del self._actions[asked["LifecycleActionToken"]]
        self.completed.append(instance)
        member = self._member(instance)
        if member is not None:
            member.lifecycle_state = "Terminating:Proceed"
            self._shut_down(self.asg.autoscaling_groups[self.machines[instance].group], member)
        return ""

    def _action(self, asked: Mapping[str, str]) -> str:
        found = self._actions.get(asked["LifecycleActionToken"])
        if found is None or found[1] != asked["LifecycleHookName"]:
            raise Refusal(f"No active Lifecycle Action found with token {asked['LifecycleActionToken']}")
        return found[0]

    def _do_describescalingactivities(self, asked: Mapping[str, str]) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        members = "".join(
            f"<member><ActivityId>{number}</ActivityId><StatusCode>{status}</StatusCode><StartTime>{at}</StartTime>"
            "<Description>Launching a new EC2 instance</Description>"
            f"<StatusMessage>{escape(text)}</StatusMessage></member>"
            for number, (status, text) in enumerate(self._activities.get(asked["AutoScalingGroupName"], []))
        )
        return f"<Activities>{members}</Activities>"

    def _do_getconsoleoutput(self, asked: Mapping[str, str]) -> str:
        machine = self.machines.get(asked["InstanceId"])
        text = machine.console.read_bytes() if machine and machine.console.exists() else b""
        return f"<instanceId>{asked['InstanceId']}</instanceId><output>{base64.b64encode(text).decode()}</output>"

    def _do_terminateinstances(self, asked: Mapping[str, str]) -> str:
        instance = asked["InstanceId.1"]
        machine = self.machines.get(instance)
        if machine is None:
            raise Refusal(f"The instance ID '{instance}' does not exist", "InvalidInstanceID.NotFound")
        member = self._member(instance)
        self._remove(member) if member else None
        machine.shut_down(politely=asked.get("SkipOsShutdown") != "true")
        self._is_terminated(instance)
        return "<instancesSet></instancesSet>"

    def _do_createlaunchtemplateversion(self, asked: Mapping[str, str]) -> str:
        """moto forgets what the source version has."""
        template = self.ec2.get_launch_template(asked["LaunchTemplateId"])
        source = template.get_version(asked["SourceVersion"])
        data = {**source.data, "UserData": Base64EncodedString(asked["LaunchTemplateData.UserData"])}
        made = template.create_version(data, asked.get("VersionDescription", ""))
        number = f"<versionNumber>{made.number}</versionNumber>"
        return (
            f"<launchTemplateVersion><launchTemplateId>{template.id}</launchTemplateId>{number}</launchTemplateVersion>"
        )

    # ------------------------------------------------ instances

    def _group(self, asked: Mapping[str, str]) -> Any:
        name = asked["AutoScalingGroupName"]
        if name not in self.asg.autoscaling_groups:
            raise Refusal(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        return self.asg.autoscaling_groups[name]

    def _member(self, instance: str) -> Any:
        groups = self.asg.autoscaling_groups.values()
        return next((one for group in groups for one in group.instance_states if one.instance.id == instance), None)

    @staticmethod
    def _counted(group: Any) -> int:
        return sum(not member.lifecycle_state.startswith("Terminating") for member in group.instance_states)

    def _fill(self, group: Any) -> None:
        missing = group.desired_capacity - self._counted(group)
        if missing <= 0:
            return
        if self.no_capacity:
            self._activities.setdefault(group.name, []).insert(0, ("Failed", self.no_capacity))
            return
        self._activities.setdefault(group.name, []).insert(0, ("Successful", ""))
        known = {member.instance.id for member in group.instance_states}
        group.replace_autoscaling_group_instances(missing, group.get_propagated_tags())
        for member in [one for one in group.instance_states if one.instance.id not in known]:
            self._begin(group, member)

    def _begin(self, group: Any, member: Any) -> None:
        fate = self._fates.pop(0) if self._fates else Fate()
        machine = self.machines[member.instance.id] = Machine(self, member.instance.id, group.name)
        if fate.vanishes:
            group.instance_states.remove(member)
            group.desired_capacity -= 1
            reservations = self.ec2.reservations.values()
            for reservation in reservations:
                reservation.instances = [one for one in reservation.instances if one.id != machine.id]
        elif fate.stays:
            member.lifecycle_state = fate.stays
        elif fate.dies:
            group.desired_capacity -= 1
            self._end(group, member, "Server.InternalError", held=False)
            member.instance.state_reason = StateReason(fate.dies, code="Server.InternalError")
        else:
            self._to_boot.append(machine)

    def _boot_some(self) -> None:
        with self._state:
            live = sum(machine.running for machine in self.machines.values())
            while self._boots and self._to_boot and live < LIVE_AT_ONCE:
                machine = self._to_boot.pop(0)
                machine.boot(self._user_data(machine.group))
                live += 1

    def _user_data(self, group: str) -> bytes:
        found = self.asg.autoscaling_groups[group]
        version = found.ec2_launch_template.get_version(found.provided_launch_template_version or "$Default")
        data = version.data.get("UserData")
        return base64.b64decode(data.as_bytes()) if data else b"#!/bin/sh\n"

    def _end(self, group: Any, member: Any, reason: str, held: bool) -> None:
        if member.lifecycle_state.startswith("Terminating"):
            return
        member.instance.state_reason = StateReason(reason, code=reason)
        hooks = [
            one for one in self.asg.describe_lifecycle_hooks(group.name) if "TERMINATING" in one.lifecycle_transition
        ]
        if not hooks or not held:
            member.lifecycle_state = "Terminating"
            self._shut_down(group, member)
            return
        member.lifecycle_state = "Terminating:Wait"
        token = str(uuid.uuid4())
        self._actions[token] = (member.instance.id, hooks[0].name)
        message = {
            "LifecycleActionToken": token,
            "LifecycleHookName": hooks[0].name,
            "LifecycleTransition": hooks[0].lifecycle_transition,
            "AutoScalingGroupName": group.name,
            "EC2InstanceId": member.instance.id,
        }
        self.tell(group.name, "EC2 Instance-terminate Lifecycle Action", "aws.autoscaling", message)

    def tell(self, group: str, kind: str, source: str, detail: Mapping[str, Any]) -> None:
        """As EventBridge puts it into the queue."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {"version": "0", "detail-type": kind, "source": source, "time": at, "region": REGION, "detail": detail}
        self.client("sqs").send_message(QueueUrl=self.queues[group], MessageBody=json.dumps(event))

    def _shut_down(self, group: Any, member: Any) -> None:
        machine = self.machines[member.instance.id]
        with_state = member.instance._state
        with_state.name, with_state.code = "shutting-down", 32
        if machine in self._to_boot:
            self._to_boot.remove(machine)

        def go() -> None:
            machine.shut_down(politely=True)
            with self._state:
                self._remove(member)
                self._is_terminated(machine.id)
            self._boot_some()

        thread = threading.Thread(target=go, daemon=True)
        self._shutting.append(thread)
        thread.start()

    def _remove(self, member: Any) -> None:
        for group in self.asg.autoscaling_groups.values():
            if member in group.instance_states:
                group.instance_states.remove(member)

    def _is_terminated(self, instance: str) -> None:
        state = self.ec2.get_instance(instance)._state
        state.name, state.code = "terminated", 48


def _look_tags_up(ec2: Any) -> None:
    """moto looks through every tag there is for those of one instance."""
    slowly = type(ec2).describe_tags

    def describe_tags(filters: Mapping[str, list[str]] | None = None) -> list[dict[str, str]]:
        if not filters or filters.keys() != {"resource-id"} or any("*" in id for id in filters["resource-id"]):
            return list(slowly(ec2, filters))
        return [
            {"resource_id": id, "key": key, "value": value, "resource_type": EC2_PREFIX_TO_RESOURCE[get_prefix(id)]}
            for id in filters["resource-id"]
            for key, value in list(ec2.tags.get(id, {}).items())
        ]

    ec2.describe_tags = describe_tags


def _xml(start: StartResponse, status: str, text: str) -> Iterable[bytes]:
    body = text.encode()
    start(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]
