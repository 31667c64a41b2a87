"""Workers as Jobs of a Kubernetes cluster: one Job with one pod for each worker, named by the worker's id.

A Job is never repeated (`backoffLimit: 0`, `restartPolicy: Never`) and goes some time after its end. How a launch is
made of calls is in launching.py, what the cluster's states mean in states.py, what is sent in manifest.py.
"""

import time
from collections.abc import Mapping
from typing import Any

from backends.base import (
    Accepted,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    RefusalKind,
    Refused,
    Submission,
    Unknown,
)
from backends.kubernetes import access, doctor, manifest, names, settings, states
from backends.kubernetes.answers import refused
from backends.kubernetes.api import Api, NoAccess, NoAnswer, within
from backends.kubernetes.launching import BATCH, CORE, Launching
from backends.kubernetes.view import View

OPTIONS = settings.OPTIONS

CAPABILITIES = Capabilities(
    max_batch=50,
    idempotent_create=True,
    confirms_end=True,  # a pod is shown until its node has confirmed that it is over
    graceful_end=True,
    secrets="platform",
    elsewhere=True,
)

# A pod that is deleted with a grace of 0 is forgotten while it may still run; with 1 its node confirms the end.
FORCED_GRACE_S = 1

_PODLESS_MS = 5_000  # so long after its creation a Job may do without a pod before anyone wonders
_LOG_LINES = 5_000


class KubernetesBackend:
    def __init__(self, chosen: settings.Settings, context: Context) -> None:
        self._settings = chosen
        self._context = context
        self._connected: Api | None = None
        self._views: tuple[View, View] | None = None

    def _api(self) -> Api:
        """Made when it is first needed, because a kubeconfig may have to run a program; and anew when the server no
        longer takes our credentials, because there may be others by now. Raises NoAccess."""
        if self._connected is None or self._connected.denied:
            chosen = self._settings
            self._connected = within(
                self._until(), lambda: access.connect(chosen.access, chosen.namespace), "to get credentials"
            )
            self._views = None
        return self._connected

    def _until(self) -> float:
        return time.monotonic() + self._context.call_timeout_s

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        if problem := manifest.problem(submission, CAPABILITIES.max_batch):
            return Refused(RefusalKind.CONFIG, problem)
        try:
            api = self._api()
        except NoAccess as failed:
            return Refused(RefusalKind.AUTH, str(failed))
        jobs, _ = self._seen_by(api)
        outcome = Launching(api, self._settings, submission, self._context.call_timeout_s, jobs.put).run()
        if not isinstance(outcome, Accepted):
            jobs.forget()
        return outcome

    # ------------------------------------------------ list

    def list(self) -> Listing:
        try:
            api, until = self._api(), self._until()
            views = self._seen_by(api)
            jobs, pods = (view.look(api, until, self._settings.watch) for view in views)
            events = self._events(api, states.without_pod(jobs.things, pods.things))
            seen = states.workers(jobs.things, pods.things, events)
        except NoAnswer as failed:
            raise ListFailed(str(failed)) from failed
        except (AttributeError, KeyError, TypeError, ValueError) as odd:  # JSON, and nothing that the API would say
            self._views = None
            raise ListFailed(f"the API server answered with something that makes no sense: {odd!r}") from odd
        return Listing(seen, jobs.complete and pods.complete)

    def _seen_by(self, api: Api) -> tuple[View, View]:
        if self._views is None:
            selector = names.pool_selector(self._context.manager, self._context.pool)
            size = self._settings.page_size
            jobs, pods = api.place(BATCH, "jobs"), api.place(CORE, "pods")
            self._views = View(jobs, selector, size), View(pods, selector, size)
        return self._views

    def _events(self, api: Api, podless: tuple[states.Thing, ...]) -> dict[str, str]:
        """By Job, why it got no pod; asked only where one waits for it too long. They explain, no more: without them
        the worker is shown as waiting."""
        before = self._context.now_ms() - _PODLESS_MS
        waiting = {states.uid(job) for job in podless if _created(job) < before}
        if not waiting:
            return {}
        query = (("fieldSelector", "involvedObject.kind=Job,reason=FailedCreate"), ("limit", "500"))
        try:
            answer = api.call("GET", api.place(CORE, "events"), self._until(), query=query)
            found = answer.thing().get("items") or () if answer.good else ()
        except NoAnswer:
            return {}
        told = {str(one.get("involvedObject", {}).get("uid")): str(one.get("message") or "") for one in found}
        return {uid: text for uid, text in told.items() if uid in waiting}

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        """The Job stays listed until its pod is gone (Foreground), so its absence says that the worker is over."""
        job = names.handle(handle)
        if job is None:
            return Refused(RefusalKind.CONFIG, f"{handle!r} is no worker of this backend")
        try:
            api, until = self._api(), self._until()
            body = _delete_options(preconditions={"uid": job.uid}, propagationPolicy="Foreground")
            answer = api.call("DELETE", api.place(BATCH, "jobs", job.name), until, body=body)
            gone = answer.status in (404, 409)  # or the name is another Job's now
            if not answer.good and not gone:
                return refused(answer)
            if force or gone:  # a Job may have been taken away from over its pod
                query = (("labelSelector", f"{names.CONTROLLER_UID}={job.uid}"),)
                body = _delete_options(**({"gracePeriodSeconds": FORCED_GRACE_S} if force else {}))
                answer = api.call("DELETE", api.place(CORE, "pods"), until, query=query, body=body)
                return Accepted() if answer.good else refused(answer)
        except NoAccess as failed:
            return Refused(RefusalKind.AUTH, str(failed))
        except NoAnswer as lost:
            return Unknown(str(lost))
        return Accepted()

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        job = names.handle(handle)
        if job is None or max_bytes <= 0:
            return ""
        try:
            api, until = self._api(), self._until()
            query = (("labelSelector", f"{names.CONTROLLER_UID}={job.uid}"),)
            answer = api.call("GET", api.place(CORE, "pods"), until, query=query)
            pods = answer.thing().get("items") or () if answer.good else ()
            if not pods:
                return ""
            newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
            lines = (("container", names.CONTAINER), ("tailLines", str(min(max_bytes, _LOG_LINES))))
            path = api.place(CORE, "pods", newest["metadata"]["name"], "log")
            answer = api.tail(path, until, max_bytes, lines)
        except NoAnswer:
            return ""
        return answer.body.decode("utf-8", "replace")[-max_bytes:] if answer.good else ""

    def check(self) -> tuple[Finding, ...]:
        return doctor.findings(self._api, self._settings, self._context)

    def render(self, submission: Submission) -> str:
        return manifest.rendered(submission, self._settings, self._settings.namespace)


def _delete_options(**words: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "DeleteOptions", **words}


def _created(job: states.Thing) -> int:
    return states.milliseconds(job.get("metadata", {}).get("creationTimestamp")) or 0


def create(options: Mapping[str, Any], context: Context) -> KubernetesBackend:
    """Raises BackendUnusable."""
    import kubernetes  # noqa: F401 -- so that one who lacks it is told now

    return KubernetesBackend(settings.read(options), context)
