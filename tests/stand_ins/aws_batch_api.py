"""The API of AWS Batch where moto is kinder than it: pages, limits, and what is refused."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moto.batch.exceptions import ClientException
from moto.batch.responses import BatchResponse

if TYPE_CHECKING:
    from tests.stand_ins.aws_batch import BatchStandIn

PAGE_WITH_FILTER, PAGE_WITH_STATE = 100, 1000
MOST_DEFINITION_BYTES, MOST_OVERRIDE_BYTES = 24 * 1024, 8192


def list_jobs(stand_in: "BatchStandIn") -> Callable[[BatchResponse], str]:
    def listed(response: BatchResponse) -> str:
        """Newest first; children only of a named array; RUNNING alone where nothing is said; pages."""
        ask = response._get_param
        filters, array = ask("filters"), ask("arrayJobId")
        if filters and len(filters) > 1:
            raise ClientException("Only one filter can be used at a time")
        status = None if filters else ask("jobStatus") or "RUNNING"
        found = response.batch_backend.list_jobs(ask("jobQueue"), array, None, filters)
        rows = [
            job.describe_short()
            for job in sorted(found, key=lambda job: job.job_created_at, reverse=True)
            if array or ":" not in job.job_id
        ]
        rows = [row for row in rows if status in (None, row["status"])]
        first = int(ask("nextToken") or 0)
        page = min(int(ask("maxResults") or 10**6), stand_in.page_with_filter if filters else PAGE_WITH_STATE)
        answer: dict[str, Any] = {"jobSummaryList": rows[first : first + page]}
        if first + page < len(rows):
            answer["nextToken"] = str(first + page)
        return json.dumps(answer)

    return listed


_moto_submit, _moto_register = BatchResponse.submitjob, BatchResponse.registerjobdefinition
_moto_terminate = BatchResponse.terminatejob


def checked_submit(response: BatchResponse) -> str:
    queue = response.batch_backend.get_job_queue(response._get_param("jobQueue"))
    if queue and queue.state == "DISABLED":
        raise ClientException(f"Job queue {queue.name} is in DISABLED state")
    overrides = response._get_param("containerOverrides") or {}
    if len(json.dumps(overrides)) > MOST_OVERRIDE_BYTES:
        raise ClientException(f"Container Overrides length must be at most {MOST_OVERRIDE_BYTES}")
    size = (response._get_param("arrayProperties") or {}).get("size")
    if size is not None and not 2 <= size <= 10_000:
        raise ClientException("Array size must be between 2 and 10000")
    definition = response.batch_backend.get_job_definition(response._get_param("jobDefinition"))
    if definition and definition.status != "ACTIVE":
        raise ClientException(f"JobDefinition {definition.arn} is not ACTIVE")
    return _moto_submit(response)


def checked_terminate(response: BatchResponse) -> str:
    job = response._get_param("jobId")
    if response.batch_backend.get_job_by_id(job) is None:
        raise ClientException(f"Job {job} not found")
    return _moto_terminate(response)


def checked_register(response: BatchResponse) -> str:
    if len(response.body) > MOST_DEFINITION_BYTES:
        raise ClientException(f"Job definition size must be at most {MOST_DEFINITION_BYTES} bytes")
    return _moto_register(response)
