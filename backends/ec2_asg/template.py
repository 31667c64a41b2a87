"""The launch template of a group: what its instances are started with is brought up to date there before a launch.

The manager's own release decides which agent is fetched and from where; so the user data belongs to the launch, not to
the person who made the group. A version is added, none is changed or removed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.ec2_asg.group import Template

NAMED = ("$Latest", "$Default")


class Fixed(Exception):
    """The group names one version by its number, so what it starts cannot be changed. The message says what to do."""


@dataclass(frozen=True)
class Version:
    """What instances are launched with now."""

    number: int
    data: Mapping[str, Any]

    @property
    def user_data(self) -> str:
        return self.data.get("UserData") or ""

    @property
    def profile(self) -> str:
        """Name or ARN of the instance profile."""
        given = self.data.get("IamInstanceProfile") or {}
        return given.get("Arn") or given.get("Name") or ""

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.data.get("MetadataOptions") or {}


def current(ec2: Any, template: Template) -> Version:
    """Raises the SDK's errors, and ValueError when there is no such version."""
    answer = ec2.describe_launch_template_versions(LaunchTemplateId=template.id, Versions=[template.version])
    versions = answer["LaunchTemplateVersions"]
    if len(versions) != 1:
        raise ValueError(f"launch template {template.id} has no version {template.version}")
    return Version(int(versions[0]["VersionNumber"]), versions[0]["LaunchTemplateData"])


def bring_up_to_date(ec2: Any, template: Template, now: Version, user_data: str, description: str) -> None:
    """`ec2` makes one attempt for each call: a version too many does no harm. Raises Fixed and the SDK's errors."""
    if now.user_data == user_data:
        return
    if template.version not in NAMED:
        raise Fixed(
            f"the group launches version {template.version} of its launch template {template.id}, whose user data is "
            "not what this pool's workers are started with: have it name $Latest"
        )
    made = ec2.create_launch_template_version(
        LaunchTemplateId=template.id,
        SourceVersion=str(now.number),
        VersionDescription=description[:255],
        LaunchTemplateData={"UserData": user_data},
        ClientToken=hashlib.sha256(f"{template.id} {now.number} {user_data}".encode()).hexdigest()[:32],
    )
    if template.version == "$Default":
        number = str(made["LaunchTemplateVersion"]["VersionNumber"])
        ec2.modify_launch_template(LaunchTemplateId=template.id, DefaultVersion=number)
