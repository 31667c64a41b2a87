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
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import moto.batch.models as models
from moto.batch.exceptions import ClientException
from moto.batch.responses import BatchResponse
from moto.core.responses import BaseResponse

from tests.stand_ins.aws import AwsStandIn

PAGE_WITH_FILTER, PAGE_WITH_STATE = 100, 1000
MOST_DEFINITION_BYTES, MOST_OVERRIDE_BYTES = 24 * 1024, 8192
_STEPS = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
_OVER = ("SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Fate:
    stays: str = ""  # in this state, until `go_on`
    reason: str = ""  # what Batch says of it meanwhile
    dies: str = ""  # FAILED instead of starting, with this reason
    state: str = ""  # shown instead of the true one
    vanishes: bool = False  # once it runs


class LocalJob(models.Job):
    """A job whose container is a process in a session of its own."""

    stand_in: "BatchStandIn"

    def __init__(self, *arguments: Any, **words: Any) -> None:
        self._state = "SUBMITTED"
        super().__init__(*arguments, **words)
        self.fate = self.stand_in.fate_of_next(self)
        self.process: subprocess.Popen[bytes] | None = None
        self.reason = ""
        self.container_reason = ""
        self.kill_at: float | None = None
        self.started_ms: int | None = None
        self.stopped_ms: int | None = None
        self.logged = 0

    @property
    def is_array(self) -> bool:
        return "size" in self.array_properties

    @property
    def status(self) -> str:  # type: ignore[override]
        if self.is_array and self._child_jobs is not None:
            return self._of_children([child.status for child in self._child_jobs])
        return (
            self.fate.state if hasattr(self, "fate") and self.fate.state and self._state == "RUNNING" else self._state
        )

    @status.setter
    def status(self, value: str) -> None:
        self._state = value

    @staticmethod
    def _of_children(states: Sequence[str]) -> str:
        if all(state in _OVER for state in states):
            return "FAILED" if "FAILED" in states else "SUCCEEDED"
        return "SUBMITTED" if all(state == "SUBMITTED" for state in states) else "PENDING"

    def start(self) -> None:  # it is no thread: the stand-in moves all jobs
        self.stand_in.begin(self)

    def is_alive(self) -> bool:
        return False

    def terminate(self, reason: str) -> None:
        for child in self._child_jobs or ():
            child.terminate(reason)
        if self.stop or self.is_array or self._state in _OVER:
            return
        self.stop = True
        self.reason = reason
        self.stand_in.asked_to_end(self)

    # ------------------------------------------------ as it is shown

    def describe_short(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "jobId": self.job_id,
            "jobArn": self.arn,
            "jobName": self.job_name,
            "jobDefinition": self.job_definition.arn,
            "createdAt": int(self.job_created_at.timestamp() * 1000),
            "status": self.status,
        }
        if reason := self.reason or (self.fate.reason if self._state == self.fate.stays else ""):
            shown["statusReason"] = reason
        if self.started_ms:
            shown["startedAt"] = self.started_ms
        if self.is_array:
            counts = Counter(child.status for child in self._child_jobs or ())
            shown["arrayProperties"] = {"size": self.array_properties["size"], "statusSummary": dict(counts)}
            if self.status in _OVER:
                shown["stoppedAt"] = max(child.stopped_ms or 0 for child in self._child_jobs or ())
        elif "index" in self.array_properties:
            shown["arrayProperties"] = {"index": self.array_properties["index"]}
        if self.stopped_ms:
            shown["stoppedAt"] = self.stopped_ms
        shown["container"] = self._container()
        if self.stop and self._state not in _OVER:
            shown["isTerminated"] = True
        return shown

    def _container(self) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        if self.exit_code is not None:
            shown["exitCode"] = self.exit_code
        if self.container_reason:
            shown["reason"] = self.container_reason
        return shown

    def describe(self) -> dict[str, Any]:
        shown = self.describe_short()
        definition = self.job_definition.container_properties or {}
        container = shown["container"] | {"environment": self.environment_asked(), "command": definition["command"]}
        if self.log_stream_name:
            container["logStreamName"] = self.log_stream_name
        if logging := definition.get("logConfiguration"):
            container["logConfiguration"] = logging
        shown["container"] = container
        shown["jobQueue"] = self.job_queue.arn
        shown["tags"] = self.backend.list_tags_for_resource(self.arn)
        if self.process:
            shown["attempts"] = [{"container": {k: v for k, v in container.items() if k != "environment"}}]
        return shown

    # ------------------------------------------------ its process

    def environment_asked(self) -> list[dict[str, str]]:
        asked = {one["name"]: one["value"] for one in (self.job_definition.container_properties or {})["environment"]}
        asked |= {one["name"]: one["value"] for one in self.container_overrides.get("environment", [])}
        return [{"name": name, "value": value} for name, value in asked.items()]

    def run_process(self) -> None:
        properties = self.job_definition.container_properties or {}
        own = {"AWS_BATCH_JOB_ID": self.job_id, "AWS_BATCH_JOB_ATTEMPT": "1", "AWS_BATCH_JQ_NAME": self.job_queue.name}
        if "index" in self.array_properties:
            own["AWS_BATCH_JOB_ARRAY_INDEX"] = str(self.array_properties["index"])
        home = self.stand_in.folder / self.job_id.replace(":", "_")
        home.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
        environment |= {one["name"]: one["value"] for one in self.environment_asked()} | own
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                properties["command"],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started_ms = int(time.time() * 1000)
        self.log_stream_name = f"{self.job_definition.name}/default/{self.job_id.replace(':', '_')}"

    def write_log(self) -> None:
        """What is new in the file goes to CloudWatch, line by line."""
        path = self.stand_in.folder / self.job_id.replace(":", "_") / "log"
        if not path.exists() or path.stat().st_size <= self.logged:
            return
        with path.open("rb") as file:
            file.seek(self.logged)
            data = file.read()
        whole = data if self.stopped_ms or b"\n" not in data else data[: data.rindex(b"\n") + 1]
        self.logged += len(whole)
        options = ((self.job_definition.container_properties or {}).get("logConfiguration") or {}).get("options", {})
        group = options.get("awslogs-group", "/aws/batch/job")
        stream = self.log_stream_name or ""
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in whole.decode("utf-8", "replace").splitlines()]
        if events:
            self._log_backend.ensure_log_group(group)
            self._log_backend.ensure_log_stream(group, stream)
            self._log_backend.put_log_events(group, stream, events)

    def end_session(self) -> None:
        """A container ends with its first process, and everything in it."""
        if self.process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            for pid in _marked(f"AWS_BATCH_JOB_ID={self.job_id}\0"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> Iterator[int]:
    """Processes with this in the environment they were started with, wherever they have gone."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)


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
        self._replace(BatchResponse, "listjobs", _list_jobs(self))
        self._replace(BatchResponse, "submitjob", _checked_submit)
        self._replace(BatchResponse, "registerjobdefinition", _checked_register)
        self._replace(BatchResponse, "terminatejob", _checked_terminate)
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
        if job._state in _OVER:
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


# ---------------------------------------------------------------- the API where moto is kinder than AWS


def _list_jobs(stand_in: BatchStandIn) -> Callable[[BatchResponse], str]:
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


def _checked_submit(response: BatchResponse) -> str:
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


def _checked_terminate(response: BatchResponse) -> str:
    job = response._get_param("jobId")
    if response.batch_backend.get_job_by_id(job) is None:
        raise ClientException(f"Job {job} not found")
    return _moto_terminate(response)


def _checked_register(response: BatchResponse) -> str:
    if len(response.body) > MOST_DEFINITION_BYTES:
        raise ClientException(f"Job definition size must be at most {MOST_DEFINITION_BYTES} bytes")
    return _moto_register(response)
