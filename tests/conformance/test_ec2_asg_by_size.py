"""The same where LaunchInstances is not offered: by an absolute desired capacity."""

from tests.conformance.test_ec2_asg import Asg, stand_in

__all__ = ["stand_in"]


class TestDesiredCapacity(Asg):
    api = "desired-capacity"
