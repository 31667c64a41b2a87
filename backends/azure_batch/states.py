"""What Azure Batch says → what we say. Each table has the vendor's page above it; what is in none is unknown."""

from collections.abc import Mapping

from backends.base import RefusalKind, WorkerPhase

# https://learn.microsoft.com/rest/api/batchservice/tasks/get-task#batchtaskstate
TASKS: Mapping[str, WorkerPhase] = {
    "active": WorkerPhase.PENDING,  # queued: it has no node yet
    "preparing": WorkerPhase.STARTING,  # has a node, where the job's preparation task runs
    "running": WorkerPhase.RUNNING,
    "completed": WorkerPhase.ENDED,
}

# https://learn.microsoft.com/rest/api/batchservice/nodes/get-node#batchnodestate
# What is wrong with a node in this state; "" is nothing. The states of life are here so that a new one is noticed.
NODES: Mapping[str, str] = {
    "idle": "",
    "running": "",
    "creating": "",
    "starting": "",
    "waitingforstarttask": "",
    "leavingpool": "",
    "rebooting": "",
    "reimaging": "",
    "upgradingos": "",
    "deallocating": "",
    "deallocated": "",
    "unusable": "cannot be used",
    "starttaskfailed": "its start task failed",
    "offline": "takes no tasks (scheduling is disabled)",
    "unknown": "has lost contact with the service",
    "preempted": "was taken back by Azure",
}

# https://learn.microsoft.com/troubleshoot/azure/hpc/batch/azure-batch-pool-resizing-failure
# Compared without regard to case: the service writes AllocationTimedout.
RESIZES: Mapping[str, RefusalKind] = {
    "accountcorequotareached": RefusalKind.QUOTA,
    "accountlowprioritycorequotareached": RefusalKind.QUOTA,
    "accountspotcorequotareached": RefusalKind.QUOTA,
    "accountvmseriescorequotareached": RefusalKind.QUOTA,
    "subscriptioncorequotareached": RefusalKind.QUOTA,
    "publicipquotareached": RefusalKind.QUOTA,
    "communicationenabledpoolreachedmaxvmcount": RefusalKind.QUOTA,
    "allocationfailed": RefusalKind.CAPACITY,
    "allocationtimedout": RefusalKind.CAPACITY,
    "insufficientcapacity": RefusalKind.CAPACITY,
    "overconstrainedallocationrequest": RefusalKind.CAPACITY,
    "vmsizenotavailable": RefusalKind.CONFIG,
    "skunotavailable": RefusalKind.CONFIG,
    "insufficientfreeipaddresses": RefusalKind.CONFIG,
    "virtualnetworkhasinsufficientfreeips": RefusalKind.CONFIG,
    "invalidsubnet": RefusalKind.CONFIG,
    "scopelocked": RefusalKind.CONFIG,
    "disallowedbypolicy": RefusalKind.CONFIG,
    "resizestopped": RefusalKind.CONFIG,
}

# https://learn.microsoft.com/azure/batch/batch-job-task-error-checking
# Why a task did not come to run, or not to its own end. A program that left with a status is no refusal.
FAILURES: Mapping[str, RefusalKind] = {
    "containerinvalidimage": RefusalKind.CONFIG,
    "containerinvalidsettings": RefusalKind.CONFIG,
    "containerlaunchfailed": RefusalKind.CONFIG,
    "containerpoolnotsupported": RefusalKind.CONFIG,
    "containerregistrynotauthorized": RefusalKind.AUTH,
    "imagepullunauthorized": RefusalKind.AUTH,
    "commandprogramnotfound": RefusalKind.CONFIG,
    "commandlaunchfailed": RefusalKind.CONFIG,
    "invalidcommandline": RefusalKind.CONFIG,
    "usernotfound": RefusalKind.CONFIG,
    "blobaccessdenied": RefusalKind.AUTH,
    "resourcedirectorycreatefailed": RefusalKind.CAPACITY,
    "diskfull": RefusalKind.CAPACITY,
}

# https://learn.microsoft.com/rest/api/batchservice/batch-status-and-error-codes
# Error codes of a request that say more than their HTTP status.
ERRORS: Mapping[str, RefusalKind] = {
    "toomanyrequests": RefusalKind.THROTTLED,
    "serverbusy": RefusalKind.THROTTLED,
    "activejobandschedulequotareached": RefusalKind.QUOTA,
    "poolquotareached": RefusalKind.QUOTA,
    "accountisdisabled": RefusalKind.AUTH,
    "authenticationfailed": RefusalKind.AUTH,
    "insufficientaccountpermissions": RefusalKind.AUTH,
    "invalidauthenticationinfo": RefusalKind.AUTH,
}

# The same page: by HTTP status, where the code says nothing. A status that is not here leaves it open what happened.
STATUSES: Mapping[int, RefusalKind] = {
    400: RefusalKind.CONFIG,
    401: RefusalKind.AUTH,
    403: RefusalKind.AUTH,
    404: RefusalKind.CONFIG,
    405: RefusalKind.CONFIG,
    409: RefusalKind.CONFIG,
    411: RefusalKind.CONFIG,
    413: RefusalKind.CONFIG,
    415: RefusalKind.CONFIG,
    429: RefusalKind.THROTTLED,
}


def phase(state: str) -> WorkerPhase:
    return TASKS.get(state.lower(), WorkerPhase.UNKNOWN)


def resize(code: str) -> RefusalKind | None:
    return RESIZES.get(code.lower()) or _quota(code)


def failure(code: str) -> RefusalKind | None:
    return FAILURES.get(code.lower())


def error(status: int | None, code: str) -> RefusalKind | None:
    """None: it may or may not have happened."""
    return ERRORS.get(code.lower()) or _quota(code) or STATUSES.get(status or 0)


def _quota(code: str) -> RefusalKind | None:
    """Azure adds quotas faster than a table can follow; their codes all end like this."""
    return RefusalKind.QUOTA if code.lower().endswith(("quotareached", "quotaexceeded")) else None
