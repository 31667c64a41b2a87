"""Canaries through a whole run: no secret stands in a log, an argument, an event, an error, a file that is not its own,
or the environment of a process that it is not meant for.

The secrets that nobody is shown (join tokens, workers' credentials) are looked for by their hashes, which the hub has:
every word that anything says is hashed and compared.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.faults.witness import Witness, agent_of, keeper_of, pools
from tests.place import Place, until
from worker_manager.hub import discovery

OF_THE_MANAGER = "canary-of-the-manager-4f1d9c"
OF_A_JOB = "canary-of-a-job-77ab02e1"
MADE_UP = "canary-of-a-stranger-90e2d1"
WORD = re.compile(rb"[A-Za-z0-9_-]{16,}")


@dataclass
class Watch:
    """What must not be seen, and where it was."""

    canaries: tuple[bytes, ...]
    hashes: set[str]
    hits: list[str] = field(default_factory=list)
    read: int = 0

    def look(self, where: str, text: bytes | str, but: bytes = b"") -> None:
        text = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        self.read += 1
        self.hits += [f"{canary.decode()} in {where}" for canary in self.canaries if canary != but and canary in text]
        words = set(WORD.findall(text))
        words |= {part for word in words for part in re.split(rb"[-_]{2}|(?<=bearer)[-_]", word)}
        self.hits += [f"a secret in {where}" for word in words if hashlib.sha256(word).hexdigest() in self.hashes]


def hashes_in(place: Place) -> set[str]:
    with sqlite3.connect(f"file:{place.state_dir}/hub.sqlite?mode=ro", uri=True) as database:
        found = [database.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in  # noqa: S608
                 (("tokens", "sha256"), ("intents", "token_sha256"), ("workers", "credential"))]  # fmt: skip
    assert all(found), "there is something to look for in each"
    return {row[0] for rows in found for row in rows}


def files_of(place: Place) -> Iterator[Path]:
    for path in place.state_dir.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def test_no_secret_is_seen_anywhere_in_a_whole_run(place: Place) -> None:
    place.environment["AWS_SECRET_ACCESS_KEY"] = OF_THE_MANAGER
    talkative = Path(pools(place)).read_text().replace("hub: {", "hub: {log-level: debug, ")
    place.manage("--verbose", "run", "-c", place.pools(talkative))
    until(place.hub, "the hub")
    gate = place.state_dir.parent / "gate"
    spec = {"command": ["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done"], "env": {"PASSWORD": OF_A_JOB}}
    keeps = place.run("submit", "-f", "-", stdin=json.dumps(spec)).strip()
    first = place.reaches(keeps, "running")["worker"]
    witness = Witness.submitted(place)
    witness.pids(1)
    other = witness.shown()["worker"]
    watch = Watch(
        canaries=tuple(
            secret.encode()
            for secret in (
                OF_THE_MANAGER,
                OF_A_JOB,
                MADE_UP,
                discovery.read_token(place.state_dir, "operator"),
                discovery.read_token(place.state_dir, "manager"),
            )
        ),
        hashes=hashes_in(place),
    )
    look_at_processes(place, watch, first, other)
    place.run("delete", "worker", other, "--force")  # ends, requeues and launches once more
    gate.touch()
    place.reaches(keeps, "succeeded")
    witness.succeeds(attempt=2)
    (sees,) = place.run(
        "submit", "--wait", "--shell", "env; cat /proc/$PPID/environ; tr '\\0' ' ' < /proc/$PPID/cmdline"
    ).split()
    watch.look("the environment of another job, and of its keeper", place.run("logs", sees))
    watch.hashes |= hashes_in(place)
    look_at_refusals(place, watch)
    look_at_answers(place, watch, keeps, witness.job)
    look_at_files(place, watch)
    assert watch.read > 30
    assert not watch.hits, "\n".join(sorted(set(watch.hits)))


def look_at_processes(place: Place, watch: Watch, *workers: str) -> None:
    """Arguments of everything; environments of everything but manager and hub, who are given what is theirs."""
    agents = [agent_of(place, worker) for worker in workers]
    inner = [*agents, *map(keeper_of, agents)]
    hub = place.hub()
    assert hub is not None
    jobs_own = 0
    for pid in {*place.processes(), *inner}:
        proc = Path(f"/proc/{pid}")
        try:
            watch.look(f"the arguments of {pid}", (proc / "cmdline").read_bytes())
            environment = (proc / "environ").read_bytes()
        except OSError:
            continue
        if pid in (hub.pid, place.started[0].pid):
            continue
        own = b"WM_JOB=" in environment and OF_A_JOB.encode() in environment
        jobs_own += own
        watch.look(f"the environment of {pid}", environment, but=OF_A_JOB.encode() if own else b"")
    assert jobs_own, "the job itself has its secret: else nothing was tested"


def look_at_refusals(place: Place, watch: Watch) -> None:
    """What comes back to those who made a mistake with a secret in it, and what the hub's log has of it afterwards."""
    hub = place.hub()
    assert hub is not None
    operator = {"Authorization": f"Bearer {discovery.read_token(place.state_dir, 'operator')}"}
    stranger = {"Authorization": f"Bearer {MADE_UP}"}
    wrong = [
        {"jobs": [{"command": ["true"], "env": {"A": [OF_A_JOB]}}]},
        {"jobs": [{"command": ["true"], "env": {"A": OF_A_JOB + "\0"}}]},
        {"jobs": [{"command": ["true"], "env": OF_A_JOB}]},
        {"jobs": [{"command": [{"x": OF_A_JOB}], "priority": OF_A_JOB}]},
        {"jobs": [{"command": OF_A_JOB, "retries": OF_A_JOB}]},
    ]
    replies = [requests.post(f"{hub.url}/v1/jobs", json=body, headers=operator, timeout=30) for body in wrong]
    raw = [b'{"jobs": "%s' % OF_A_JOB.encode(), OF_A_JOB.encode(), b"\xff" + OF_A_JOB.encode()]
    replies += [requests.post(f"{hub.url}/v1/jobs", data=body, headers=operator, timeout=30) for body in raw]
    replies += [
        requests.get(f"{hub.url}/v1/jobs", headers=stranger, timeout=30),
        requests.get(f"{hub.url}/v1/jobs?token={MADE_UP}", headers=operator, timeout=30),
        requests.get(f"{hub.url}/v1/jobs", params={"access_token": MADE_UP}, timeout=30),
        requests.post(f"{hub.url}/v1/workers", json={"nonce": MADE_UP}, headers=stranger, timeout=30),
        requests.post(f"{hub.url}/v1/workers/w/report", json={"session": 1, "seq": 1}, headers=stranger, timeout=30),
        requests.post(
            f"{hub.url}/v1/tokens", json={"owner": MADE_UP * 9, "scopes": [MADE_UP]}, headers=operator, timeout=30
        ),
    ]
    for reply in replies:
        assert 400 <= reply.status_code < 500, reply.text
        watch.look(
            f"the answer to {reply.request.method} {reply.request.path_url[:20]}",
            reply.content + str(reply.headers).encode(),
        )
    stolen = place.state_dir.parent / "stranger.token"
    stolen.write_text(MADE_UP)
    stolen.chmod(0o600)
    config = str(place.state_dir.parent / "pools.yaml")
    for words in (["get", "jobs"], ["submit", "--", "true"], ["--dry-run", "run", "-c", config]):
        said = place.call("--token-file", str(stolen), *words)
        assert said.returncode not in (0, 3), said
        watch.look(f"what {words[0]} says", said.stdout + said.stderr)
    stolen.unlink()


def look_at_answers(place: Place, watch: Watch, keeps: str, other: str) -> None:
    """What the hub tells to whoever may read. A job's environment is told to who asks for that very job."""
    paths = ["/v1/events?limit=1000", "/v1/workers", "/v1/pools", "/v1/tokens", "/v1/info", "/v1/summary"]
    paths += ["/v1/pools/a/explain", f"/v1/jobs/{other}", f"/v1/jobs/{keeps}/explain", f"/v1/jobs/{keeps}/logs"]
    hub = place.hub()
    assert hub is not None
    operator = {"Authorization": f"Bearer {discovery.read_token(place.state_dir, 'operator')}"}
    for path in [*paths, "/metrics", "/v1/openapi.json", "/healthz"]:
        reply = requests.get(hub.url + path, headers=operator, timeout=30)
        assert reply.status_code == 200, path
        watch.look(path, reply.content)
    for words in (["get", "workers", "-o", "yaml"], ["describe", "job", keeps], ["explain", "pool", "a"]):
        watch.look(" ".join(words), place.run(*words))


def look_at_files(place: Place, watch: Watch) -> None:
    """Everything below the folder, but the files that are the secrets; and the store, which has to know the job."""
    own = {discovery.token_file(place.state_dir, name) for name in ("operator", "manager")}
    would_be_found = 0
    for path in files_of(place):
        if path in own or path.name == "join-token":
            assert path.stat().st_mode & 0o077 == 0, path
            probe = Watch(watch.canaries, watch.hashes)
            probe.look("its own file", path.read_bytes())
            would_be_found += bool(probe.hits)
        else:
            store = path.name.startswith("hub.sqlite")
            where = str(path.relative_to(place.state_dir.parent))
            watch.look(where, path.read_bytes(), but=OF_A_JOB.encode() if store else b"")
    assert would_be_found > len(own), "both kinds of search find a secret where one is"
