"""A job of the stand-in for AWS Batch: what it is shown as, and the process that is its container."""

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moto.batch.models as models

if TYPE_CHECKING:
    from tests.stand_ins.aws_batch import BatchStandIn

OVER = ("SUCCEEDED", "FAILED")


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
        if all(state in OVER for state in states):
            return "FAILED" if "FAILED" in states else "SUCCEEDED"
        return "SUBMITTED" if all(state == "SUBMITTED" for state in states) else "PENDING"

    def start(self) -> None:  # it is no thread: the stand-in moves all jobs
        self.stand_in.begin(self)

    def is_alive(self) -> bool:
        return False

    def terminate(self, reason: str) -> None:
        for child in self._child_jobs or ():
            child.terminate(reason)
        if self.stop or self.is_array or self._state in OVER:
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
            if self.status in OVER:
                shown["stoppedAt"] = max(child.stopped_ms or 0 for child in self._child_jobs or ())
        elif "index" in self.array_properties:
            shown["arrayProperties"] = {"index": self.array_properties["index"]}
        if self.stopped_ms:
            shown["stoppedAt"] = self.stopped_ms
        shown["container"] = self._container()
        if self.stop and self._state not in OVER:
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
