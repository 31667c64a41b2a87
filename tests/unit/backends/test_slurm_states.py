"""Every state, every reason that matters, every refusal: Slurm's words and ours."""

import pytest

from backends.base import RefusalKind, WorkerPhase
from backends.slurm.states import PHASES, explained, phase_of, refusal_of_sbatch, refusal_of_waiting

ENDS = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("TIMEOUT", "REVOKED"),
)
FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize("state", ENDS)
def test_every_end_is_an_end(state: str) -> None:
    """CodaLab knew some of them, and waited for ever for the others."""
    assert phase_of(state) is WorkerPhase.ENDED


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("PENDING", WorkerPhase.PENDING),
        ("REQUEUE_HOLD", WorkerPhase.PENDING),
        ("CONFIGURING", WorkerPhase.STARTING),
        ("RUNNING", WorkerPhase.RUNNING),
        ("SUSPENDED", WorkerPhase.RUNNING),
        ("COMPLETING", WorkerPhase.ENDING),
        ("CANCELLED by 1000", WorkerPhase.ENDED),
        ("CANCELLED+", WorkerPhase.ENDED),
        ("TELEPORTING", WorkerPhase.UNKNOWN),
        ("", WorkerPhase.UNKNOWN),
        (" ", WorkerPhase.UNKNOWN),
        ("running", WorkerPhase.UNKNOWN),
    ],
)
def test_states(state: str, phase: WorkerPhase) -> None:
    assert phase_of(state) is phase


def test_no_state_of_the_table_is_unknown() -> None:
    assert WorkerPhase.UNKNOWN not in PHASES.values()


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "None",
            "",
            "Resources",
            "Priority",
            "Dependency",
            "BeginTime",
            "Reservation",
            "Licenses",
            "JobArrayTaskLimit",
        ),
        *("ReqNodeNotAvail, UnavailableNodes:n1", "ReqNodeNotAvail, Reserved for maintenance", "Cleaning", "Prolog"),
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
    ],
)
def test_waiting_ones_turn_is_no_refusal(reason: str) -> None:
    assert refusal_of_waiting(reason) is None


@pytest.mark.parametrize(
    "reason",
    [
        *("QOSMaxJobsPerUserLimit", "QOSGrpCpuLimit", "QOSMaxGRESPerUser", "QOSJobLimit", "QOSUsageThreshold"),
        *("AssocGrpCpuLimit", "AssocMaxJobsLimit", "AssocGrpGRES", "AssociationJobLimit", "QOSResourceLimit"),
        *("AssocGrpBillingMinutes", "QOSMinGRES", "QOSMaxWallDurationPerJobLimit", "AssocMaxWallDurationPerJobLimit"),
    ],
)
def test_limits_of_an_account_or_a_quality_of_service_are_a_quota(reason: str) -> None:
    assert refusal_of_waiting(reason) is RefusalKind.QUOTA


@pytest.mark.parametrize(
    "reason",
    [
        *("PartitionDown", "PartitionInactive", "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints"),
        *("JobHeldUser", "JobHeldAdmin", "InvalidAccount", "InvalidQOS", "QOSNotAllowed", "AccountNotAllowed"),
        *("DependencyNeverSatisfied", "launch_failed_requeued_held", "ReservationDeleted"),
    ],
)
def test_what_a_person_must_change_is_configuration(reason: str) -> None:
    assert refusal_of_waiting(reason) is RefusalKind.CONFIG


def test_a_maintenance_reservation_is_explained() -> None:
    assert "--time-min" in explained("ReqNodeNotAvail, Reserved for maintenance")
    assert explained("Priority") == "Priority"
    assert [explained(nothing) for nothing in ("None", "(null)", " ")] == ["", "", ""]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Invalid partition name specified", RefusalKind.CONFIG),
        ("Invalid account or account/partition combination specified", RefusalKind.CONFIG),
        ("Invalid qos specification", RefusalKind.CONFIG),
        ("Invalid feature specification", RefusalKind.CONFIG),
        ("Requested node configuration is not available", RefusalKind.CONFIG),
        ("Requested time limit is invalid (missing or exceeds some limit)", RefusalKind.CONFIG),
        ("Invalid generic resource (gres) specification", RefusalKind.CONFIG),
        ("Requested reservation is invalid", RefusalKind.CONFIG),
        ("Invalid job array specification", RefusalKind.CONFIG),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", RefusalKind.QUOTA),
        ("Access/permission denied", RefusalKind.AUTH),
        ("User's group not permitted to use this partition", RefusalKind.AUTH),
        ("Requested nodes are busy", RefusalKind.CAPACITY),
        ("Resource temporarily unavailable", RefusalKind.THROTTLED),
    ],
)
def test_an_answer_of_the_controller_is_a_refusal(text: str, kind: RefusalKind) -> None:
    assert refusal_of_sbatch(1, FAILED + text) is kind


@pytest.mark.parametrize(
    "text",
    [
        FAILED + "Unable to contact slurm controller (connect failure)",
        FAILED + "Socket timed out on send/recv operation",
        FAILED + "Zero Bytes were transmitted or received",
        FAILED + "Unexpected message received",
        FAILED + "Unspecified error",
        FAILED + "Something new in Slurm 40",
        "sbatch: error: slurm_receive_msg: Invalid account\n" + FAILED + "Unspecified error",
        "",
        "Segmentation fault",
    ],
)
def test_what_may_have_happened_is_no_refusal(text: str) -> None:
    assert refusal_of_sbatch(1, text) is None
    assert refusal_of_sbatch(-11, text) is None


def test_an_argv_that_sbatch_does_not_understand_never_left_this_machine() -> None:
    assert refusal_of_sbatch(255, "sbatch: unrecognized option '--bogus=1'") is RefusalKind.CONFIG
    assert refusal_of_sbatch(255, "sbatch: error: Invalid --time specification") is RefusalKind.CONFIG
    assert refusal_of_sbatch(1, "sbatch: error: Unable to open file x") is RefusalKind.CONFIG
    assert refusal_of_sbatch(1, "sbatch: fatal: Could not establish a configuration source") is RefusalKind.CONFIG


def test_a_plugin_of_the_site_says_why_in_its_own_words() -> None:
    text = "sbatch: error: GPU jobs need --account\n" + FAILED + "Unspecified error"
    assert refusal_of_sbatch(1, text) is RefusalKind.CONFIG
