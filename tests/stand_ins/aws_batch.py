"""AWS Batch with real workers: moto's API, made more like the real one, and every job a process of this machine.

    with BatchStandIn(folder) as aws:
        aws.make_queue("q")

What is added to moto: pages (100 with a filter, 1,000 with a state), children of arrays in no list but their array's,
jobs that go through all states, exit codes and reasons, SIGTERM and after a grace SIGKILL, logs in CloudWatch,
a DISABLED queue that takes no jobs, limits on the size of definitions and overrides, definitions by name and revision.
What a test may order of the next job is a Fate.
"""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import moto.batch.models as models
from moto.batch.responses import BatchResponse
from moto.core.responses import BaseResponse

from tests.stand_ins.aws import AwsStandIn
from tests.stand_ins.aws_batch_api import (
    PAGE_WITH_FILTER,
    checked_register,
    checked_submit,
    checked_terminate,
    list_jobs,
)
from tests.stand_ins.aws_batch_job import OVER, Fate, LocalJob

__all__ = ["BatchStandIn", "Fate"]

_STEPS = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")


class BatchStandIn(AwsStandIn):
    def __init__(self, folder: Path, grace_s: float = 1.0) -> None:
        super().__init__()
        self.folder = folder
        self.grace_s = grace_s  # 30 s at AWS
        self.page_with_filter = PAGE_WITH_FILTER
        self.environment_facts: dict[str, Mapping[str, Any]] = {}  # by name: laid over what moto says
        self.queue_facts: dict[str, Mapping[str, Any]] = {}
        self.fate_of_all = Fate()  # of every job for which nothing was ordered
        self._fates: list[Fate] = []
        self._moving: list[LocalJob] = []
        self._jobs_lock = threading.RLock()
        self._undo: list[Callable[[], None]] = []
        self._over = threading.Event()
        self._mover = threading.Thread(target=self._move_all, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._replace(models, "Job", type("Job", (LocalJob,), {"stand_in": self}))
        self._replace(BatchResponse, "listjobs", list_jobs(self))
        self._replace(BatchResponse, "submitjob", checked_submit)
        self._replace(BatchResponse, "registerjobdefinition", checked_register)
        self._replace(BatchResponse, "terminatejob", checked_terminate)
        self._replace(BatchResponse, "describejobqueues", self._with_facts("jobQueues", "jobQueueName"))
        self._replace(
            BatchResponse,
            "describecomputeenvironments",
            self._with_facts("computeEnvironments", "computeEnvironmentName"),
        )
        self._mover.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self._mover.join()
        self._end_all()
        for undo in reversed(self._undo):
            undo()
        super().__exit__(*details)

    def forget(self) -> None:
        self._end_all()
        self._fates.clear()
        self.fate_of_all = Fate()
        self.page_with_filter = PAGE_WITH_FILTER
        self.environment_facts.clear()
        self.queue_facts.clear()
        super().forget()

    def _end_all(self) -> None:
        with self._jobs_lock:
            for job in self._moving:
                job.end_session()
                if job.process:
                    job.process.wait()
            self._moving.clear()

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        old = getattr(owner, name)
        setattr(owner, name, new)
        self._undo.append(lambda: setattr(owner, name, old))

    # ------------------------------------------------ what a test sets up and orders

    def make_queue(
        self, name: str, kind: str = "EC2", most_vcpus: int = 256, types: Sequence[str] = ("optimal",)
    ) -> None:
        ec2, iam, batch = self.client("ec2"), self.client("iam"), self.client("batch")
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")
            iam.create_instance_profile(InstanceProfileName="batch")
            iam.add_role_to_instance_profile(InstanceProfileName="batch", RoleName="batch")
        role = iam.get_role(RoleName="batch")["Role"]["Arn"]
        profile = iam.get_instance_profile(InstanceProfileName="batch")["InstanceProfile"]["Arn"]
        subnet = ec2.describe_subnets()["Subnets"][0]
        group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
        resources = {"type": kind, "maxvCpus": most_vcpus, "subnets": [subnet["SubnetId"]], "securityGroupIds": [group]}
        if kind in ("EC2", "SPOT"):
            resources |= {"minvCpus": 0, "desiredvCpus": 0, "instanceTypes": list(types), "instanceRole": profile}
        made = batch.create_compute_environment(
            computeEnvironmentName=f"{name}-machines",
            type="MANAGED",
            state="ENABLED",
            serviceRole=role,
            computeResources=resources,
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        batch.create_job_queue(jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order)

    def submit_many(self, queue: str, names: Sequence[str]) -> None:
        """Plain jobs of the newest definition, as if launched one after the other, without a thousand requests."""
        (backend,) = [one for one in _backends() if one.get_job_queue(queue)]
        definition = list(backend._job_definitions)[-1]
        for name in names:
            backend.submit_job(name, definition, queue, array_properties={})

    def next_job(self, fate: Fate) -> None:
        with self._jobs_lock:
            self._fates.append(fate)

    def go_on(self) -> None:
        """Jobs that were to stay somewhere do so no longer."""
        with self._jobs_lock:
            for job in self._moving:
                job.fate = Fate()

    def jobs(self) -> dict[str, LocalJob]:
        return {id: job for backend in _backends() for id, job in backend._jobs.items()}  # type: ignore[misc]

    def _with_facts(self, plural: str, key: str) -> Callable[[BaseResponse], str]:
        original = getattr(BatchResponse, f"describe{plural.lower()}")

        def described(response: BaseResponse) -> str:
            answer = json.loads(original(response))
            facts = self.queue_facts if plural == "jobQueues" else self.environment_facts
            answer[plural] = [row | facts.get(row[key], {}) for row in answer[plural]]
            return json.dumps(answer)

        return described

    # ------------------------------------------------ the life of jobs

    def fate_of_next(self, job: LocalJob) -> Fate:
        with self._jobs_lock:
            if job.is_array or not self._fates:
                return self.fate_of_all
            return self._fates.pop(0)

    def begin(self, job: LocalJob) -> None:
        with self._jobs_lock:
            self._moving.append(job)

    def asked_to_end(self, job: LocalJob) -> None:
        with self._jobs_lock:
            if job.process is None:
                self._ended(job, "FAILED")
            else:
                job.kill_at = time.monotonic() + self.grace_s
                job.process.terminate()

    def _move_all(self) -> None:
        while not self._over.wait(0.01):
            with self._jobs_lock:
                for job in list(self._moving):
                    self._move(job)

    def _move(self, job: LocalJob) -> None:
        if job._state in OVER:
            self._moving.remove(job)
        elif job.process is None:
            self._towards_running(job)
        else:
            self._watch(job, job.process)

    def _towards_running(self, job: LocalJob) -> None:
        if job.fate.stays == job._state:
            return
        following = _STEPS[_STEPS.index(job._state) + 1]
        if following == "RUNNING" and job.fate.dies:
            job.container_reason = job.fate.dies
            job.reason = "Task failed to start"
            self._ended(job, "FAILED")
            return
        if following == "RUNNING":
            try:
                job.run_process()
            except OSError as failed:
                job.container_reason = f"CannotStartContainerError: {failed}"
                job.reason = "Task failed to start"
                self._ended(job, "FAILED")
                return
        job._state = following
        if following == "RUNNING" and job.fate.vanishes:
            self._forget(job)

    def _watch(self, job: LocalJob, process: "subprocess.Popen[bytes]") -> None:
        status = process.poll()
        if status is None:
            job.write_log()
            if job.kill_at and time.monotonic() > job.kill_at:
                job.end_session()
            return
        job.end_session()
        job.exit_code = 128 - status if status < 0 else status
        if not job.stop:
            job.reason = "Essential container in task exited"
        self._ended(job, "SUCCEEDED" if status == 0 and not job.stop else "FAILED")

    def _ended(self, job: LocalJob, state: str) -> None:
        job.stopped_ms = int(time.time() * 1000)
        job.write_log()
        job._state = state

    def _forget(self, job: LocalJob) -> None:
        job.job_queue.jobs.remove(job)
        for backend in _backends():
            backend._jobs.pop(job.job_id, None)


def _backends() -> Iterator[models.BatchBackend]:
    for account in models.batch_backends.values():
        yield from account.values()
