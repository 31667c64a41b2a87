"""One launch: its workers are spread over free slots, and what a host certainly refuses goes to another.

Where each goes is on record before it is asked for. A host that does not answer may have started its part, so nothing
of that part is ever given to another host. Workers for which no slot is found are accepted with the others and shown
as ended for want of capacity; only when not one can be placed is the submission refused.
"""

from collections.abc import Mapping
from typing import Any

from backends.base import Accepted, LaunchOutcome, RefusalKind, Refused, Submission, Unknown, clipped
from backends.ssh import recipe
from backends.ssh.answers import Trouble
from backends.ssh.hosts import Host
from backends.ssh.pool import Pool
from backends.ssh.state import Placement

# The far side's own kinds of refusal: all slots are taken; the agent is not here yet.
_FULL = "slots"
_NO_AGENT = "agent"


class Launch:
    def __init__(self, pool: Pool, submission: Submission, carried: set[tuple[str, str]]) -> None:
        self._pool = pool
        self._submission = submission
        self._carried = carried  # (host, digest): there the agent is known to be
        self._deadline = pool.deadline()
        self._where: dict[int, str] = {}  # host by worker: started there, or it cannot be told
        self._doubts: dict[int, str] = {}  # why it cannot be told
        self._left_out: dict[int, tuple[RefusalKind, str]] = {}
        self._refusals: dict[str, tuple[RefusalKind, str]] = {}  # by host
        self._agent: dict[str, str] = {}

    def run(self) -> LaunchOutcome:
        submission = self._submission
        try:
            if submission.agent and self._pool.options["agent"] == "copy":
                self._agent = recipe.carried(submission.agent)
            before = self._pool.state.placements().get(submission.id)
        except OSError as failed:
            return Refused(RefusalKind.CONFIG, f"{failed.filename} cannot be read: {failed.strerror}")
        if before is not None and not before.at:
            return Unknown("the record of its first launch is spoilt")
        try:
            self._all_rounds(before)
        except OSError as failed:
            text = f"{failed.filename} cannot be written: {failed.strerror}"
            return Unknown(text) if self._where else Refused(RefusalKind.CONFIG, text)
        return self._outcome()

    def _all_rounds(self, before: Placement | None) -> None:
        """Raises OSError when the record cannot be written."""
        if before is not None:
            self._left_out |= before.left_out
            self._where |= {index: host for host, indexes in before.hosts.items() for index in indexes}
            self._ask({host: list(indexes) for host, indexes in before.hosts.items()}, first=False)
        while placed := recipe.spread(self._open(), self._free()):
            self._where |= {index: host for host, indexes in placed.items() for index in indexes}
            self._save()
            self._ask(placed, first=True)
        if self._where:
            refused = self._refused()
            self._left_out |= dict.fromkeys(self._open(), (refused.kind, refused.text))
            self._save()
        else:
            self._pool.state.forget(self._submission.id)

    def _open(self) -> list[int]:
        """Workers that are certainly nowhere yet."""
        settled = {*self._where, *self._left_out}
        return [index for index in range(self._submission.count) if index not in settled]

    def _free(self) -> dict[str, int]:
        return {key: slots for key, slots in self._pool.free().items() if key not in self._refusals}

    def _save(self) -> None:
        hosts: dict[str, tuple[int, ...]] = {}
        for index, host in sorted(self._where.items()):
            hosts[host] = (*hosts.get(host, ()), index)
        self._pool.state.place(self._submission.id, Placement(self._pool.context.now_ms(), hosts, self._left_out))

    # ------------------------------------------------ asking

    def _ask(self, placed: Mapping[str, list[int]], *, first: bool) -> None:
        known = self._pool.all_hosts()
        hosts = [known[key] for key in placed if key in known]
        answers = self._pool.each(hosts, lambda host: self._start(host, placed[host.key]))
        for key, indexes in placed.items():
            answer = answers.get(key) or Trouble(RefusalKind.CONFIG, "it is no host any more", certain=True)
            if isinstance(answer, Trouble):
                self._note(key, indexes, answer, first)
            else:
                self._pool.live[key] = int(answer["live"])
                self._pool.state.launched_on(key, str(answer["boot"]))

    def _start(self, host: Host, indexes: list[int]) -> Mapping[str, Any]:
        """One call, and a second where the agent turns out to be gone: then the first has done nothing."""
        request = self.request(host, indexes)
        if not self._agent:
            return self._pool.call(host, request, self._deadline)
        carried = (host.key, self._agent["sha256"])
        if carried in self._carried:
            try:
                return self._pool.call(host, request, self._deadline)
            except Trouble as trouble:
                if trouble.more.get("refused") != _NO_AGENT:
                    raise
        answer = self._pool.call(host, {**request, "agent": self._agent}, self._deadline)
        self._carried.add(carried)
        return answer

    def request(self, host: Host, indexes: list[int]) -> dict[str, Any]:
        options = self._pool.options
        copies = options["agent"] == "copy"
        python = (options["python"],) if options["python"] else ()
        return recipe.launch_request(self._submission, indexes, host.slots, python, copies)

    def _note(self, key: str, indexes: list[int], trouble: Trouble, first: bool) -> None:
        """Where it is certain that nothing was done, the workers are free to go elsewhere."""
        self._refusals[key] = trouble.kind, trouble.text
        elsewhere = [index for index in indexes if index not in trouble.more.get("there", ())]
        # Asked again, a host that cannot be reached may have started its part the first time.
        if trouble.certain and (first or trouble.more):
            for index in elsewhere:
                del self._where[index]
        else:
            self._doubts |= dict.fromkeys(elsewhere, f"{key}: {trouble.text}")
        if trouble.more.get("refused") == _FULL:
            self._pool.live[key] = int(trouble.more["live"])
        elif trouble.kind is not RefusalKind.THROTTLED:
            self._pool.failed(key, trouble, "call")

    # ------------------------------------------------ what came of it

    def _outcome(self) -> LaunchOutcome:
        if not self._where:
            return self._refused()
        if self._doubts:
            return Unknown(clipped("; ".join(dict.fromkeys(self._doubts.values()))))
        everyone = {**self._where, **dict.fromkeys(self._left_out, "")}
        return Accepted({n: recipe.handle(self._submission.id, n, everyone[n]) for n in sorted(everyone)})

    def _refused(self) -> Refused:
        """Every host's reason; their kind, where they agree."""
        reasons = dict(self._refusals)
        again = []
        for host in self._pool.hosts():
            aside = self._pool.aside(host.key)
            if host.gone:
                continue
            if aside:
                reasons.setdefault(host.key, (aside.kind, aside.text))
                again.append(aside.until)
            elif host.key not in reasons:
                taken = self._pool.live.get(host.key, 0)
                reasons[host.key] = RefusalKind.CAPACITY, f"{taken} of {host.slots} slots are taken"
        kinds = {kind for kind, _ in reasons.values()}
        kind = kinds.pop() if len(kinds) == 1 else RefusalKind.CAPACITY
        text = "no free slot: " + "; ".join(f"{key}: {words}" for key, (_, words) in sorted(reasons.items()))
        wait = (min(again) - self._pool.context.now_ms()) / 1000 if len(again) == len(reasons) else 0
        return Refused(kind, clipped(text), wait if wait > 0 else None)
