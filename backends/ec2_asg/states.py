"""What the platform says of an instance → what that means for the worker on it. One table for each kind of answer."""

import re
from collections.abc import Mapping

from backends.base import RefusalKind, WorkerPhase

# https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
# `Warmed:…` are machines in store, on which no worker runs yet; they are no workers and stand in no listing.
LIFECYCLE: Mapping[str, WorkerPhase] = {
    "Pending": WorkerPhase.STARTING,
    "Pending:Wait": WorkerPhase.STARTING,
    "Pending:Proceed": WorkerPhase.STARTING,
    "InService": WorkerPhase.RUNNING,
    "EnteringStandby": WorkerPhase.RUNNING,
    "Standby": WorkerPhase.RUNNING,  # out of service for a load balancer; its processes run on
    "Detaching": WorkerPhase.RUNNING,
    "Detached": WorkerPhase.RUNNING,
    "ReplacingRootVolume": WorkerPhase.ENDING,  # the worker on the old root does not come back
    "ReplacingRootVolume:Wait": WorkerPhase.ENDING,
    "ReplacingRootVolume:Proceed": WorkerPhase.ENDING,
    "RootVolumeReplaced": WorkerPhase.ENDING,
    "Terminating": WorkerPhase.ENDING,
    "Terminating:Wait": WorkerPhase.ENDING,
    "Terminating:Proceed": WorkerPhase.ENDING,
    "Terminating:Retained": WorkerPhase.ENDING,
    "Terminated": WorkerPhase.ENDED,
}
IN_STORE = "Warmed:"

# These do not count towards the desired capacity: the group has replaced them or wanted fewer.
NOT_COUNTED = frozenset({"EnteringStandby", "Standby", "Detaching", "Detached", "Terminated"})

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
# Looked at when the group no longer shows the instance: it is on its way out, or was detached.
INSTANCE: Mapping[str, WorkerPhase] = {
    "pending": WorkerPhase.STARTING,
    "running": WorkerPhase.RUNNING,
    "stopping": WorkerPhase.ENDING,
    "stopped": WorkerPhase.ENDING,  # its processes are dead, but it still costs and can be started again
    "shutting-down": WorkerPhase.ENDING,
    "terminated": WorkerPhase.ENDED,
}

# Words in a scaling activity's StatusMessage, in StateReason.Code of an instance, in Errors of LaunchInstances.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-instancelaunchfailure.html
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
_REASONS: tuple[tuple[str, RefusalKind], ...] = (
    (r"MaxSpotInstanceCountExceeded|VcpuLimitExceeded|InstanceLimitExceeded|VolumeLimitExceeded", RefusalKind.QUOTA),
    (r"MaxIOPSLimitExceeded|requested more \w+ capacity than your current|quota", RefusalKind.QUOTA),
    (r"Insufficient\w*Capacity|InsufficientFreeAddresses|UnfulfillableCapacity", RefusalKind.CAPACITY),
    (r"SpotInstanceTermination|SpotInstanceShutdown|SpotMaxPriceTooLow|no Spot capacity", RefusalKind.CAPACITY),
    (r"do(es)? not have sufficient .*capacity|currently not have enough capacity", RefusalKind.CAPACITY),
    (r"ReservationCapacityExceeded|InsufficientHostCapacity", RefusalKind.CAPACITY),
    (r"RequestLimitExceeded|Throttling|Rate exceeded", RefusalKind.THROTTLED),
    (r"UnauthorizedOperation|AuthFailure|not authorized|AccessDenied|InvalidKMSKey", RefusalKind.AUTH),
    (r"OptInRequired|PendingVerification|not been subscribed", RefusalKind.AUTH),
    (r"Invalid\w+|does not exist|not supported|Unsupported|VPCIdNotSpecified|MissingParameter", RefusalKind.CONFIG),
)
_KNOWN = tuple((re.compile(pattern, re.IGNORECASE), kind) for pattern, kind in _REASONS)


def lifecycle_phase(state: str) -> WorkerPhase:
    return LIFECYCLE.get(state, WorkerPhase.UNKNOWN)


def instance_phase(state: str) -> WorkerPhase:
    return INSTANCE.get(state, WorkerPhase.UNKNOWN)


def reason_kind(text: str) -> RefusalKind | None:
    """What kind of trouble the platform's words mean; None for words that say nothing of the sort."""
    return next((kind for pattern, kind in _KNOWN if pattern.search(text[:5000])), None)
