"""The calls of one launch: a Job for each worker, then one Secret with the join tokens of them all.

The Secret comes last, and it is what makes the launch good: until it is there no pod of the submission can start its
container. So a launch that is refused half-way is taken back before anything ran; and the Secret belongs to Jobs that
exist already, so that the cluster removes it with the last of them. A pod that is quicker than the Secret waits for it.

One attempt per Job. Whether one whose answer was lost is there is found out by reading; the launch stays Unknown then.
"""

import time
from collections.abc import Callable
from typing import Any

from backends.base import Accepted, LaunchOutcome, RefusalKind, Refused, Submission, Unknown, clipped
from backends.kubernetes import manifest, names
from backends.kubernetes.answers import refused
from backends.kubernetes.api import Api, NoAccess, NoAnswer
from backends.kubernetes.settings import Settings

BATCH, CORE = "apis/batch/v1", "api/v1"
SHORTEST_S = 1.0  # less than this is not worth to be divided


class Launching:
    """One launch. `made` are the Jobs that this call has created, `there` those that an earlier one had."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        submission: Submission,
        timeout_s: float,
        shown: Callable[[dict[str, Any]], None],
    ) -> None:
        self._api = api
        self._settings = settings
        self._submission = submission
        self._shown = shown  # each Job that was made
        self._deadline = time.monotonic() + timeout_s
        # Of one call, so that one which hangs leaves time for what must follow it.
        self._share = max(timeout_s / 3, min(timeout_s, SHORTEST_S))
        self._made: dict[str, str] = {}
        self._there: dict[str, str] = {}
        self._doubt = ""

    def run(self) -> LaunchOutcome:
        for index in range(self._submission.count):
            if self._deadline - time.monotonic() < self._share and (self._made or self._there):
                self._doubt = f"only {len(self._known())} of {self._submission.count} Jobs were asked for in time"
            if self._doubt:
                break
            no = self._job(index)
            if no is not None:
                return self._take_back(no)
        if self._submission.join_tokens and self._known():
            no = self._secret()
            if no is not None:
                return self._take_back(no)
        if self._doubt:
            return Unknown(self._hidden(self._doubt))
        known = self._known()
        workers = range(self._submission.count)
        names_of = {index: self._submission.worker_id(index) for index in workers}
        return Accepted({index: str(names.Handle(name, known[name])) for index, name in names_of.items()})

    # ------------------------------------------------ its steps

    def _job(self, index: int) -> Refused | None:
        """Creates one Job. Refused: certainly not."""
        name = self._submission.worker_id(index)
        body = manifest.job(self._submission, index, self._settings)
        try:
            answer = self._api.call("POST", self._api.place(BATCH, "jobs"), self._soon(), body=body)
            if answer.good:
                job = answer.thing()
                self._made[name] = _uid_of(job)
                self._shown(job)
                return None
        except NoAccess as failed:
            return Refused(RefusalKind.AUTH, str(failed))
        except NoAnswer as lost:
            self._after_silence(name, str(lost))
            return None
        if answer.status == 409 and answer.reason() in ("AlreadyExists", ""):
            return self._after_conflict(name, answer.words())
        no = refused(answer)
        if isinstance(no, Refused):
            return no
        self._after_silence(name, no.text)
        return None

    def _after_silence(self, name: str, lost: str) -> None:
        self._doubt = lost
        found = self._look().get(name)
        if found:
            self._made[name] = found

    def _after_conflict(self, name: str, words: str) -> Refused | None:
        try:
            found = self._look(must=True).get(name)
        except NoAnswer as failed:
            self._doubt = f"{words}; whose it is cannot be told: {failed}"
            return None
        if found is None:
            return Refused(RefusalKind.CONFIG, f"{words}; that one is not of this pool")
        self._there[name] = found
        return None

    def _look(self, must: bool = False) -> dict[str, str]:
        """Name → UID of the submission's Jobs that are there."""
        query = (("labelSelector", names.submission_selector(self._submission)),)
        try:
            answer = self._api.call("GET", self._api.place(BATCH, "jobs"), self._soon(), query=query)
            if not answer.good:
                raise NoAnswer(answer.words())
            jobs = answer.thing().get("items") or ()
            return {job["metadata"]["name"]: _uid_of(job) for job in jobs}
        except NoAnswer:
            if must:
                raise
            return {}

    def _secret(self) -> Refused | None:
        """It is no worker, and there is one by this name or none: so it alone is asked for again when an answer was
        lost."""
        body = manifest.secret(self._submission, self._known())
        lost = ""
        for _ in range(2):
            try:
                answer = self._api.call("POST", self._api.place(CORE, "secrets"), self._soon(), body=body)
            except NoAnswer as failed:
                lost = str(failed)
                continue
            if answer.good or (answer.status == 409 and (lost or self._doubt or self._there)):
                return None
            no = refused(answer)
            if isinstance(no, Refused):
                return Refused(no.kind, self._hidden(f"the Secret {self._submission.id}: {no.text}"), no.retry_after_s)
            lost = no.text
        self._doubt = self._doubt or f"the Secret {self._submission.id}: {lost}"
        return None

    def _take_back(self, no: Refused) -> Refused | Unknown:
        """The Jobs that this call has made: without their Secret, none of their pods has run anything."""
        no = Refused(no.kind, self._hidden(no.text), no.retry_after_s)
        if self._there or self._doubt:
            return Unknown(clipped(f"a part of {self._submission.id} was there already; the rest: {no.text}"))
        if not self._made:
            return no
        query = (("labelSelector", names.submission_selector(self._submission)),)
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            answer = self._api.call("DELETE", self._api.place(BATCH, "jobs"), self._soon(), query=query, body=options)
            if answer.good:
                return no
            text = answer.words()
        except NoAnswer as failed:
            text = str(failed)
        return Unknown(clipped(f"{no.text}; the Jobs made before it are there still: {text}"))

    # ------------------------------------------------ small parts

    def _known(self) -> dict[str, str]:
        return self._there | self._made

    def _soon(self) -> float:
        return min(self._deadline, time.monotonic() + self._share)

    def _hidden(self, text: str) -> str:
        """A server may repeat what it does not like."""
        for token, key in zip(
            self._submission.join_tokens, manifest.secret(self._submission, {})["data"].values(), strict=True
        ):
            text = text.replace(token, "***").replace(key, "***")
        return clipped(text)


def _uid_of(job: dict[str, Any]) -> str:
    """Raises NoAnswer: it is no Job."""
    uid = (job.get("metadata") or {}).get("uid")
    if not isinstance(uid, str) or not uid:
        raise NoAnswer("the API server answered with something that is no Job")
    return uid
