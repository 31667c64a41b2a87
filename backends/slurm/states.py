"""Slurm's words → ours: states of a job, why it waits, and why sbatch refuses.

States: https://slurm.schedmd.com/job_state_codes.html
Reasons: https://slurm.schedmd.com/job_reason_codes.html
Refusals: the texts of https://github.com/SchedMD/slurm/blob/master/src/common/slurm_errno.c
"""

import re

from backends.base import RefusalKind, WorkerPhase

_ENDED = WorkerPhase.ENDED

PHASES = {
    # waits
    "PENDING": WorkerPhase.PENDING,
    "REQUEUED": WorkerPhase.PENDING,
    "REQUEUE_FED": WorkerPhase.PENDING,
    "REQUEUE_HOLD": WorkerPhase.PENDING,
    "SPECIAL_EXIT": WorkerPhase.PENDING,
    "RESV_DEL_HOLD": WorkerPhase.PENDING,
    # has a node
    "CONFIGURING": WorkerPhase.STARTING,
    "POWER_UP_NODE": WorkerPhase.STARTING,
    "RUNNING": WorkerPhase.RUNNING,
    "RESIZING": WorkerPhase.RUNNING,
    "SIGNALING": WorkerPhase.RUNNING,
    "SUSPENDED": WorkerPhase.RUNNING,
    "STOPPED": WorkerPhase.RUNNING,
    "EXPEDITING": WorkerPhase.RUNNING,
    # is being cleaned up
    "COMPLETING": WorkerPhase.ENDING,
    "STAGE_OUT": WorkerPhase.ENDING,
    "UPDATE_DB": WorkerPhase.ENDING,
    # over. A node that failed may be out of reach with its processes alive: the hub fences those by their epoch.
    "BOOT_FAIL": _ENDED,
    "CANCELLED": _ENDED,
    "COMPLETED": _ENDED,
    "DEADLINE": _ENDED,
    "FAILED": _ENDED,
    "LAUNCH_FAILED": _ENDED,
    "NODE_FAIL": _ENDED,
    "OUT_OF_MEMORY": _ENDED,
    "POWER_UP_FAILED": _ENDED,
    "PREEMPTED": _ENDED,
    "RECONFIG_FAIL": _ENDED,
    "REVOKED": _ENDED,
    "TIMEOUT": _ENDED,
}


def phase_of(state: str) -> WorkerPhase:
    """`CANCELLED by 1000` is cancelled; what is in no table is unknown, never absent."""
    word = state.split(maxsplit=1)[0].rstrip("+") if state.strip() else ""
    return PHASES.get(word, WorkerPhase.UNKNOWN)


# Ends that say something about the site rather than about the worker.
ENDED_BY_SITE = {
    "BOOT_FAIL": RefusalKind.CAPACITY,
    "NODE_FAIL": RefusalKind.CAPACITY,
    "POWER_UP_FAILED": RefusalKind.CAPACITY,
    "LAUNCH_FAILED": RefusalKind.CONFIG,
    "RECONFIG_FAIL": RefusalKind.CONFIG,
}

# ---------------------------------------------------------------- why it waits

# It will wait until a person changes something.
_STUCK = frozenset(
    (
        *("AccountNotAllowed", "BadConstraints", "DependencyNeverSatisfied", "InvalidAccount"),
        *("InvalidQOS", "JobHeldAdmin", "JobHeldUser", "PartitionDown", "PartitionInactive", "PartitionNodeLimit"),
        *("PartitionTimeLimit", "QOSNotAllowed", "ReservationDeleted", "AccountingPolicy"),
        *("job_requeued_in_held_state", "launch_failed_requeued_held", "DeadLine"),
    )
)
_LIMIT = re.compile(r"(Assoc|QOS|Association)(?!NotAllowed).*(Limit|Grp|Max|Resource|Runaway)|QOS|.*JobLimit")

_BEFORE_THE_LIMIT = (
    "before this time limit would end: a shorter --time, or a --time-min, lets the worker start before it; else it "
    "starts afterwards"
)
# Words for people, where Slurm's own are short.
_SAID = (
    ("ReqNodeNotAvail, Reserved for maintenance", f"maintenance of the nodes begins {_BEFORE_THE_LIMIT}"),
    ("ReqNodeNotAvail, May be reserved", f"a reservation of the nodes begins {_BEFORE_THE_LIMIT}"),
    ("ReqNodeNotAvail", "the nodes that were asked for are down, drained or reserved"),
    ("Nodes required for job are DOWN", "every node that would do is down, drained or reserved"),
    ("PartitionTimeLimit", "the partition's time limit is shorter: give a shorter --time"),
    ("PartitionNodeLimit", "the partition has no such node"),
    ("BadConstraints", "no node has what was asked for: mend shape, --constraint or --nodelist"),
    ("PartitionDown", "the partition is closed"),
    ("PartitionInactive", "the partition is closed"),
    ("JobHeldUser", "held: scontrol release JOBID"),
    ("JobHeldAdmin", "held by an administrator"),
    ("launch_failed_requeued_held", "the node could not start it, and it is held: scontrol release JOBID"),
    ("Reservation", "waits for its reservation to begin"),
    ("Licenses", "waits for a licence"),
)


def refusal_of_waiting(reason: str) -> RefusalKind | None:
    """None: it just waits its turn."""
    word = re.split(r"[,\s(]", reason.strip(), maxsplit=1)[0]
    if word in _STUCK:
        return RefusalKind.CONFIG
    return RefusalKind.QUOTA if _LIMIT.match(word) else None


def explained(reason: str) -> str:
    """Slurm's reason, and what it means where that helps; nothing for no reason."""
    reason = reason.strip()
    if reason in ("", "None", "(null)"):
        return ""
    return next((f"{reason}: {said}" for begins, said in _SAID if reason.startswith(begins)), reason)


# ---------------------------------------------------------------- why sbatch refuses

# The first that is found in its text. Each is an answer of the controller, so nothing was submitted.
_REFUSALS = (
    (RefusalKind.QUOTA, ("Job violates accounting/QOS policy", "QOS's", "Job submit limit", "Maximum job count")),
    (
        RefusalKind.AUTH,
        (
            "Access/permission denied",
            "User's group not permitted",
            "Invalid user id",
            "User not found on host",
            "Invalid authentication credential",
            "Munge encode failed",
            "auth_g_create",
            "Access denied to reservation",
            "Access denied to requested",
        ),
    ),
    (RefusalKind.THROTTLED, ("rate limit", "Resource temporarily unavailable")),
    (RefusalKind.CAPACITY, ("Requested nodes are busy", "Nodes required for job are DOWN", "Required node not avail")),
    (
        RefusalKind.CONFIG,
        (
            *("Invalid partition name", "Invalid account", "Invalid qos", "Invalid wckey", "Invalid feature"),
            *("Invalid generic resource", "Invalid Trackable RESource", "Invalid job array", "Invalid license"),
            *("Invalid node name", "Invalid job dependency", "Invalid burst buffer", "Invalid cluster"),
            *("Requested node configuration is not available", "Requested partition configuration not available"),
            *("Required partition not available", "Requested reservation is invalid", "Requested time limit is"),
            *("Memory required by task", "More processors requested", "Node count specification", "Requested GRES"),
            *("Immediate execution impossible", "Job size specification", "Job script exceeds", "No partition"),
            *("Pathname of a file", "CPU count specification", "CPU count per node", "Job credential", "Batch script"),
            *("Requested reservation not usable now", "Requested topology", "Invalid node state", "Invalid MPI"),
            *("Required reservation", "Setting DeadLine", "Job/step already", "Invalid --", "No default account"),
            *("Must specify account", "No account", "Site specific", "Job can not"),
        ),
    ),
)

# The controller did not answer, or not so that one could know.
_LOST = (
    *("Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted", "Unexpected message"),
    *("Connection refused", "Connection reset", "Broken pipe", "Transport endpoint", "Unable to establish"),
    *("Insufficient data", "Incompatible versions", "Message receive failure", "Message send failure"),
    *("Slurm backup controller", "in standby mode", "Header lengths", "No route to host", "slurm_receive_msg"),
)
_FAILED = "Batch job submission failed:"


def refusal_of_sbatch(status: int, text: str) -> RefusalKind | None:
    """Why sbatch certainly submitted nothing; None when that is not certain."""
    if any(words in text for words in _LOST):
        return None
    for kind, texts in _REFUSALS:
        if any(words in text for words in texts):
            return kind
    if _FAILED not in text:  # it did not come to a submission: its own argv was wrong, or a file was missing
        own = "sbatch: error:" in text or "sbatch: fatal:" in text
        return RefusalKind.CONFIG if status == 255 or (status == 1 and own) else None
    if "Unspecified error" in text and text.count("sbatch: error:") > 1:  # a site's plugin said why
        return RefusalKind.CONFIG
    return None
