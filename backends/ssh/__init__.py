"""Workers on hosts of one's own, reached by the system's ssh: each host has slots, each slot takes a worker.

The host needs an sshd, a POSIX shell and Python ≥ 3.9; nothing is installed there. A call sends a small program
(backends/ssh/far) over the connection, which does there what is asked for and is gone again; only the workers stay,
each with a small attendant. A host that fails is set aside with its reason, and the others go on.
"""

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from backends.base import (
    Accepted,
    BackendUnusable,
    Capabilities,
    Context,
    EndOutcome,
    Finding,
    LaunchOutcome,
    ListFailed,
    Listing,
    Option,
    RefusalKind,
    Refused,
    Seen,
    Submission,
    Unknown,
    WorkerPhase,
    clipped,
)
from backends.sound import problem_of
from backends.ssh import checks, pool, recipe
from backends.ssh.answers import Report, Trouble, report
from backends.ssh.hosts import Host
from backends.ssh.launching import Launch
from backends.ssh.line import Line, Settings, own_sockets

OPTIONS = (
    Option("hosts", "list", (), "[USER@]HOST[:SLOTS], several; an IPv6 address in brackets"),
    Option("hosts-file", "path", None, "a file with a host to a line: HOST slots=4 user=me port=22; may change"),
    Option("slots", "int", 1, "how many workers a host takes that does not say so itself"),
    Option("user", "str", None, "log in as this user (default: as ssh's configuration says)"),
    Option("port", "int", None, "the port of sshd (default: as ssh's configuration says)"),
    Option("identity-file", "path", None, "the private key (default: the agent's and the usual ones)"),
    Option("ssh-config", "path", None, "a configuration file for ssh, instead of ~/.ssh/config"),
    Option("known-hosts", "path", None, "the keys of the hosts, instead of ~/.ssh/known_hosts"),
    Option("host-keys", "str", "strict", "a host whose key is not known", choices=("strict", "accept-new", "off")),
    Option("connect-timeout", "duration", 10_000, "how long a host may take to answer"),
    Option("keep-connection", "duration", 60_000, "how long a connection that is not used is kept; 0: none is shared"),
    Option("parallel", "int", 16, "how many hosts are called at once"),
    Option("retry", "duration", 15_000, "a host that failed is left alone this long, then twice as long, to 10 min"),
    Option("remote-dir", "str", ".worker-manager", "the workers' records and logs there; relative to the home folder"),
    Option("agent", "str", "copy", "the agent is brought there, or fetched from the hub", choices=("copy", "fetch")),
    Option("python", "str", None, "a Python of the hosts that is looked for first"),
    Option("keep-ended", "duration", 3_600_000, "how long an ended worker stays listed and its log is kept"),
)  # fmt: skip

CAPABILITIES = Capabilities(
    max_batch=16,
    idempotent_create=True,
    list_lag_s=1.0,  # a listing shows all at once; this says that the place is not close by
    shared_machine=True,
    secrets="file",
    elsewhere=True,
)


class SshBackend:
    def __init__(self, hosts: pool.Pool, context: Context, line: Line) -> None:
        self._pool = hosts
        self._context = context
        self._line = line
        self._carried: set[tuple[str, str]] = set()

    # ------------------------------------------------ launch

    def launch(self, submission: Submission) -> LaunchOutcome:
        if problem := problem_of(submission, CAPABILITIES.max_batch):
            return Refused(RefusalKind.CONFIG, problem)
        return Launch(self._pool, submission, self._carried).run()

    # ------------------------------------------------ list

    def list(self) -> Listing:
        """Every host once. One that cannot be read hides its workers: then the list is not complete."""
        try:
            hosts = self._pool.all_hosts()
            asked = [host for host in hosts.values() if not self._is_left_alone(host.key)]
            deadline = self._pool.deadline()
            reports = self._pool.each(asked, lambda host: self._report(host, deadline))
            unread = {key: self._why_unread(key, reports.get(key)) for key in hosts}
            unread = {key: why for key, why in unread.items() if why}
            if hosts and len(unread) == len(hosts):
                raise ListFailed(clipped("; ".join(f"{key}: {why}" for key, why in sorted(unread.items()))))
            seen = [one for found in reports.values() if isinstance(found, Report) for one in found.seen]
            complete = not any(self._pool.may_hold(key) for key in unread)
            seen += self._left_out()
            self._forget_old(reports)
        except OSError as failed:
            raise ListFailed(f"{failed.filename} cannot be read: {failed.strerror}") from failed
        return Listing(tuple(sorted(seen, key=lambda one: (one.submission, one.index))), complete)

    def _is_left_alone(self, key: str) -> bool:
        aside = self._pool.aside(key)
        return aside is not None and aside.by == "list"

    def _report(self, host: Host, deadline: float) -> Report:
        """Raises Trouble."""
        now = self._context.now_ms()
        found = report(self._pool.call(host, {"call": "list"}, deadline), host.key)
        known = self._pool.state.host(host.key)
        if not found.kept and known.boot and known.boot == found.boot:
            text = (
                f"its folder {found.folder} is gone although it was not restarted: is the home folder mounted? "
                f"When no worker runs there any more: mkdir -p -m 700 {found.folder}"
            )
            raise Trouble(RefusalKind.CONFIG, text, certain=False)
        self._pool.last[host.key] = now, found
        self._pool.live[host.key] = found.live
        return found

    def _why_unread(self, key: str, found: Report | Trouble | None) -> str:
        """Notes what the host came to as well."""
        if isinstance(found, Report):
            self._pool.state.listed(key)
            return ""
        if isinstance(found, Trouble):
            self._pool.failed(key, found, "list")
            return found.text
        aside = self._pool.aside(key)
        return f"set aside: {aside.text}" if aside else "its turn did not come"

    def _left_out(self) -> Iterable[Seen]:
        """Workers of accepted submissions for which there was no slot."""
        oldest = self._context.now_ms() - self._pool.options["keep-ended"]
        return (
            Seen(id, index, recipe.handle(id, index, ""), WorkerPhase.ENDED, refusal=kind, detail=text)
            for id, placement in self._pool.state.placements().items()
            if placement.at >= oldest
            for index, (kind, text) in placement.left_out.items()
        )

    def _forget_old(self, reports: Mapping[str, Report | Trouble]) -> None:
        """Records of submissions that every host of theirs has forgotten."""
        oldest = self._context.now_ms() - self._pool.options["keep-ended"]
        for id, placement in self._pool.state.placements().items():
            found = [reports.get(host) for host in placement.hosts]
            unknown = any(not isinstance(one, Report) or id in one.submissions for one in found)
            if 0 < placement.at < oldest and not unknown:
                self._pool.state.forget(id)

    # ------------------------------------------------ terminate

    def terminate(self, handle: str, force: bool) -> EndOutcome:
        named = self._named(handle)
        if named is None:
            return Refused(RefusalKind.CONFIG, f"{handle!r} is no worker of this backend")
        host, submission, index = named
        if host is None:
            return Accepted()
        request = {"call": "end", "submission": submission, "index": index, "force": force}
        try:
            self._pool.call(host, request, self._pool.deadline())
        except Trouble as trouble:
            return self._not_ended(host, trouble)
        return Accepted()

    def _not_ended(self, host: Host, trouble: Trouble) -> EndOutcome:
        text = clipped(f"{host.key}: {trouble.text}")
        if trouble.certain and trouble.more:
            return Refused(trouble.kind, text)
        self._pool.failed(host.key, trouble, "call")
        if trouble.certain and trouble.kind is not RefusalKind.CAPACITY:
            return Refused(trouble.kind, text)
        return Unknown(text)

    def _named(self, handle: str) -> tuple[Host | None, str, int] | None:
        """Without a host: one that was never placed."""
        parsed = recipe.parse_handle(handle)
        if parsed is None:
            return None
        submission, index, key = parsed
        try:
            host = self._pool.all_hosts().get(key) if key else None
        except OSError:
            return None
        return (host, submission, index) if host or not key else None

    # ------------------------------------------------ for people

    def logs(self, handle: str, max_bytes: int) -> str:
        named = self._named(handle)
        if named is None or max_bytes <= 0:
            return ""
        host, submission, index = named
        if host is None:
            return ""
        request = {"call": "logs", "submission": submission, "index": index, "most": max_bytes}
        try:
            return str(self._pool.call(host, request, self._pool.deadline())["text"])
        except Trouble as trouble:
            return f"{host.key} cannot be asked: {trouble.text}"[:max_bytes]

    def check(self) -> tuple[Finding, ...]:
        return checks.findings(self._pool, self._context)

    def render(self, submission: Submission) -> str:
        """With every host free: what is taken now is no part of what would be sent."""
        hosts = {host.key: host for host in self._pool.hosts()}
        launch = Launch(self._pool, submission, self._carried)
        shown = []
        for key, indexes in recipe.spread(
            range(submission.count), {key: host.slots for key, host in hosts.items()}
        ).items():
            where = recipe.place(self._pool.options["remote-dir"], key, self._context.manager, self._context.pool)
            words = self._line.argv(hosts[key], self._context.call_timeout_s)
            shown.append(recipe.rendered(words, {**where, **launch.request(hosts[key], indexes)}))
        return "\n".join(shown)

    def close(self) -> None:
        """End the connections that are kept for later calls. They end by themselves, too."""
        for host in self._pool.all_hosts().values():
            self._line.hang_up(host)


def create(options: Mapping[str, Any], context: Context) -> SshBackend:
    if shutil.which("ssh") is None:
        raise BackendUnusable("ssh is not a program here: apt-get install openssh-client")
    checks.refuse_nonsense(options)
    settings = Settings(
        user=options["user"] or "",
        port=options["port"],
        identity_file=options["identity-file"],
        ssh_config=options["ssh-config"],
        known_hosts=options["known-hosts"],
        host_keys=options["host-keys"],
        connect_s=options["connect-timeout"] / 1000,
        persist_s=options["keep-connection"] / 1000,
        python=(options["python"],) if options["python"] else (),
    )
    line = Line(settings, f"{context.manager}\n{context.pool}\n{context.state_dir}", own_sockets())
    return SshBackend(pool.made(options, context, line), context, line)
