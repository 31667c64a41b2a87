"""The formats of `get`, `describe` and `explain`, with fixed data."""

import json
import sys

import pytest
import yaml
from click.testing import CliRunner

from tests.unit.cli.house import NOW, FakeHub, House, lines
from worker_manager.cli.kinds import details, how_far, job_state
from worker_manager.cli.output import Column, show_table
from worker_manager.errors import HubError

JOB = {
    "id": "j1",
    "name": "train",
    "owner": "ada",
    "queue": "default",
    "priority": 0,
    "state": "running",
    "command": ["python", "train.py"],
    "resources": {"cpus": 2000, "memory": 4 << 30},
    "worker": "main-0001-0",
    "attempt": 1,
    "submitted_ms": NOW - 90_000,
    "run_ms": 61_000,
    "unservable": None,
    "text": "",
}
STUCK = {
    **JOB,
    "id": "j2",
    "name": "",
    "state": "queued",
    "worker": None,
    "run_ms": None,
    "resources": {"cpus": 500},
} | {"unservable": {"code": "memory", "numbers": {}, "text": "memory: job asks 96 GiB, worker has 64 GiB"}}
ARRAY = {**JOB, "id": "j3", "array": {"count": 10, "succeeded": 4, "failed": 1, "queued": 5}, "state": "running"}


def house(*pages: object) -> House:
    return House(FakeHub({("GET", "/v1/jobs"): list(pages)}))


def page(*jobs: object, following: str | None = None) -> dict[str, object]:
    return {"jobs": list(jobs), "next": following}


def test_a_table_has_a_line_for_each_job() -> None:
    assert lines(house(page(JOB, STUCK)).ok("get", "jobs")) == [
        "ID  NAME   STATE    ASKS          WORKER       RAN   AGE    WHY",
        "j1  train  running  2 cpu, 4 GiB  main-0001-0  1m1s  1m30s  -",
        "j2  -      queued   0.5 cpu       -            -     1m30s  no pool can serve it: memory: job asks 96 GiB, "
        "worker has 64 GiB",
    ]


PROGRESS = {"phase": "running", "done": 40, "whole": 100, "percent": 40, "text": "epoch 3", "at_ms": NOW - 2000}
STAGING = {"phase": "staging", "done": 2**30, "whole": 10 * 2**30, "percent": 10, "text": "", "at_ms": NOW}


def test_how_far_a_job_is() -> None:
    jobs = page({**JOB, "progress": PROGRESS}, {**JOB, "id": "j2", "state": "assigned", "progress": STAGING})
    table = house(jobs).ok("get", "jobs")
    assert "running 40% " in table
    assert "assigned staging 10% " in table
    wide = house(jobs).ok("get", "jobs", "-o", "wide")
    assert "PROGRESS" in wide
    assert "40%, epoch 3" in wide
    assert "staging 10%, 1 GiB of 10 GiB" in wide


def test_how_far_a_job_is_that_does_not_know_its_end() -> None:
    counted = {**PROGRESS, "done": 17, "whole": None, "percent": None}
    moving = {**STAGING, "whole": None, "percent": None}
    assert how_far(counted) == "17, epoch 3"
    assert how_far(moving) == "staging, 1 GiB"
    assert job_state({**JOB, "progress": counted}) == "running"
    assert how_far(None) == "-"


def test_describe_draws_how_far_a_job_is() -> None:
    described = House(FakeHub({("GET", "/v1/jobs/j1"): {**JOB, "progress": PROGRESS}})).ok("describe", "job", "j1")
    assert "[########------------] 40%, epoch 3 (2s ago)" in described
    described = House(FakeHub({("GET", "/v1/jobs/j1"): JOB})).ok("describe", "job", "j1")
    assert "Progress" not in described


def test_an_array_says_how_far_it_is() -> None:
    assert "running 5/10" in house(page(ARRAY)).ok("get", "jobs")


def test_wide_shows_more() -> None:
    head = lines(house(page(JOB)).ok("get", "jobs", "-o", "wide"))[0]
    assert {"OWNER", "QUEUE", "PRIORITY", "TRY", "COMMAND"} <= set(head.split())


def test_json_has_a_versioned_schema_and_loses_nothing() -> None:
    document = json.loads(house(page(JOB, following="c1")).ok("get", "jobs", "-o", "json", "--limit", "1"))
    assert document == {"apiVersion": "worker-manager/v1", "kind": "JobList", "items": [JOB], "next": "c1"}


def test_yaml_is_the_same_document() -> None:
    document = yaml.safe_load(house(page(JOB)).ok("get", "jobs", "-o", "yaml"))
    assert document == {"apiVersion": "worker-manager/v1", "kind": "JobList", "items": [JOB]}


def test_names_are_one_a_line() -> None:
    assert house(page(JOB, STUCK)).ok("get", "jobs", "-o", "name") == "j1\nj2\n"


def test_pages_are_joined_up_to_the_limit_and_the_rest_is_offered() -> None:
    there = house(page(JOB, following="c1"), page(STUCK, following="c2"))
    result = there.run("get", "jobs", "--limit", "2", "--state", "queued", "--owner", "ada")
    assert [asked.params for asked in there.hub.asked] == [
        {"state": "queued", "owner": "ada", "limit": 2},
        {"state": "queued", "owner": "ada", "limit": 1, "cursor": "c1"},
    ]
    assert result.stderr == "more: --cursor c2\n"
    assert result.stdout.count("\n") == 3


def test_what_a_job_is_called_cannot_speak_to_the_terminal() -> None:
    shown = house(page({**JOB, "name": "a\x1b[31m\nb"})).ok("get", "jobs")
    assert "\x1b" not in shown
    assert len(lines(shown)) == 2


def test_colour_is_a_choice_and_off_where_nobody_looks() -> None:
    there = house(page(JOB))
    assert "\x1b" not in there.ok("get", "jobs")
    assert "\x1b[36mrunning\x1b[0m" in there.ok("--color", "always", "get", "jobs")


def test_an_empty_list_is_a_head_without_lines() -> None:
    there = house(page())
    assert lines(there.ok("get", "jobs")) == ["ID  NAME  STATE  ASKS  WORKER  RAN  AGE  WHY"]
    assert "there are no jobs: submit one" in there.run("get", "jobs").stderr
    assert "no job is like that" in there.run("get", "jobs", "--state", "queued").stderr


def test_some_jobs_by_name_and_one_that_is_not_there() -> None:
    answers = {("GET", "/v1/jobs/j1"): JOB, ("GET", "/v1/jobs/j9"): HubError(404, "job-unknown", "there is no job j9")}
    result = House(FakeHub(answers)).run("get", "job", "1", "j9", "-o", "name")
    assert (result.code, result.stdout, result.stderr) == (1, "j1\n", "worker-manager: there is no job j9\n")
    assert "not both" in House().refused("get", "jobs", "j1", "--state", "queued")


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ({"waits": {"pool": "p", "reason": {"text": "max-workers: 4 of 4"}}}, "p: max-workers: 4 of 4"),
        ({"state": "blocked", "waits_for": ["j1", "j2"]}, "waits for j1, j2"),
        ({"state": "failed", "text": "exit status 3"}, "exit status 3"),
        ({"state": "failed", "array": {"count": 4, "failed": 2}}, "2 failed: get jobs --array j1 --state failed"),
    ],
)
def test_a_list_says_why_each_job_is_where_it_is(job: dict[str, object], told: str) -> None:
    assert lines(house(page({**JOB, "state": "queued", **job})).ok("get", "jobs"))[1].endswith(told)


def test_wide_letters_take_two_places_and_a_long_name_is_cut_in_a_table_only() -> None:
    _, wide, narrow = lines(house(page({**JOB, "name": "日本"}, {**JOB, "name": "abcd"})).ok("get", "jobs"))
    assert narrow.index("running") == wide.index("running") + 2
    long = {**JOB, "name": "x" * 200}
    assert "x" * 31 + "…" in house(page(long)).ok("get", "jobs")
    assert "x" * 200 in house(page(long)).ok("get", "jobs", "-o", "wide")


def test_on_a_terminal_the_reasons_go_on_below_themselves() -> None:
    columns = (Column("ID", lambda row: str(row["id"])), Column("WHY", lambda row: str(row["why"])))
    with CliRunner().isolation() as (out, _, _):
        show_table(columns, [{"id": "j1", "why": "one two three four five six seven"}], False, width=30)
        sys.stdout.flush()
        shown = out.getvalue().decode()
    assert lines(shown) == ["ID  WHY", "j1  one two three four five", "    six seven"]


WORKER = {
    "id": "main-0001-0",
    "pool": "local",
    "manager": "main",
    "state": "draining",
    "shape": {"cpus": 2000, "memory": 4 << 30},
    "free": {"cpus": 0, "memory": 1 << 30},
    "running": 2,
    "assigned": 0,
    "runs": 7,
    "ready_ms": NOW - 3_600_000,
    "seen_ms": NOW - 2_000,
    "idle_since_ms": None,
    "cordon": {"generation": 1, "reason": {"code": "idle", "text": "idle for 5m"}, "deadline_ms": NOW},
    "host": {"hostname": "n1"},
}


def test_workers() -> None:
    there = House(FakeHub({("GET", "/v1/workers"): {"workers": [WORKER, {**WORKER, "id": "w2", "pool": "gpu"}]}}))
    assert lines(there.ok("get", "workers", "--pool", "local")) == [
        "ID           POOL   STATE     JOBS  DONE  HAS           FREE          AGE  SEEN  IDLE  WHY",
        "main-0001-0  local  draining  2+0   7     2 cpu, 4 GiB  0 cpu, 1 GiB  1h   2s    -     idle for 5m",
    ]


POOL = {
    "pool": "local",
    "manager": "main",
    "wanted": 4,
    "requested": 1,
    "observed": 3,
    "ready": 3,
    "idle": 0,
    "draining": 0,
    "min_workers": 0,
    "max_workers": 4,
    "seen_ms": NOW - 1000,
    "frozen": None,
    "reasons": [{"code": "backlog", "text": "12 jobs wait"}, {"code": "max-workers", "text": "max-workers: 4 of 4"}],
}


def test_pools_show_the_three_counts_and_why() -> None:
    there = House(FakeHub({("GET", "/v1/pools"): {"pools": [POOL]}}))
    assert lines(there.ok("get", "pools"))[1].split(maxsplit=10) == [
        *("local", "main", "4", "1", "3", "3", "0", "0", "4", "1s"),
        "12 jobs wait; max-workers: 4 of 4",
    ]


def test_events() -> None:
    data = {"owner": "ada", "reason": None, "jobs": 0}
    event = {"seq": 5, "at_ms": NOW, "kind": "job.queued", "subject": "j1", "data": data}
    there = House(FakeHub({("GET", "/v1/events"): {"events": [event], "next": "c"}}))
    assert lines(there.ok("get", "events"))[1].split() == [
        *("2023-11-14", "22:13:20", "UTC", "job.queued", "j1", "owner=ada", "jobs=0")
    ]
    assert there.hub.asked[0].params == {"after": "last", "limit": 100, "wait_ms": 0}


def test_describe_job_shows_its_attempts_and_its_verdicts() -> None:
    attempt = {"epoch": 1, "worker": "w1", "outcome": "failed", "exit_code": 3, "run_ms": 1000, "text": "exit status 3"}
    verdict = {
        "manager": "main",
        "pool": "local",
        "status": "waiting",
        "jobs": 3,
        "reason": {"text": "max-workers: 4 of 4"},
    }
    there = House(FakeHub({("GET", "/v1/jobs/j2"): {**STUCK, "attempts": [attempt], "why": [verdict]}}))
    told = there.ok("describe", "job", "j2")
    assert "Submitted: 2023-11-14 22:11:50 UTC (1m30s ago)" in told
    assert "1    w1      failed  3     1s   exit status 3" in told
    assert "max-workers: 4 of 4" in told


def test_describe_shows_limits_and_what_is_used() -> None:
    usage = {"at_ms": NOW, "cpu_ms": 9000, "cpus": 1500, "memory": 3 << 30}
    job = {**JOB, "max_processes": 20, "cpu_affinity": True, "usage": usage}
    told = House(FakeHub({("GET", "/v1/jobs/j1"): job})).ok("describe", "job", "j1")
    assert "Limits:" in told and "20 processes, cores of its own" in told
    assert "1.50 cpu, 3 GiB" in told
    of_worker = {"at_ms": NOW, "cpus": 4, "memory": 1 << 25, "disk": 1 << 40, "load": 2500}
    of_worker |= {"gpus": [{"id": "GPU-1", "busy_percent": 40, "memory": 1 << 30}]}
    told = House(FakeHub({("GET", "/v1/workers/w1"): {**WORKER, "usage": of_worker}})).ok("describe", "worker", "w1")
    for words in ("0.00 cpu, 32 MiB", "1 TiB", "2.50", "GPU-1 40 % 1 GiB"):
        assert words in told


def test_a_worker_that_shares_its_machine_says_which() -> None:
    shares = {**WORKER, "shape": {**WORKER["shape"], "machine": "4a51c0de"}}
    told = House(FakeHub({("GET", "/v1/workers/w1"): shares})).ok("describe", "worker", "w1")
    assert "Shares machine:" in told and "4a51c0de" in told
    assert "Shares machine" not in House(FakeHub({("GET", "/v1/workers/w1"): WORKER})).ok("describe", "worker", "w1")


def test_a_worker_s_cache_is_shown_with_what_it_saved() -> None:
    cache = {"entries": 3, "bytes": 1 << 30, "hits": 3, "misses": 1, "hit_bytes": 1 << 31}
    known, unknown = {**WORKER, "cache": cache}, {**WORKER, "id": "w2", "cache": None}
    new = {**WORKER, "id": "w3", "cache": {"entries": 0, "bytes": 0}}
    told = House(FakeHub({("GET", "/v1/workers/w1"): known})).ok("describe", "worker", "w1")
    assert "1 GiB in 3, 75 % hits, 2 GiB saved" in told
    listed = FakeHub({("GET", "/v1/workers"): {"workers": [known, unknown, new], "awaited": []}})
    table = lines(House(listed).ok("get", "workers", "-o", "wide"))
    assert "75 % hits" in table[1] and "hits" not in table[2] and "0 B in 0" in table[3]


def test_wide_shows_what_a_job_uses_or_used() -> None:
    running = {**JOB, "usage": {"at_ms": NOW, "cpus": None, "memory": 3 << 30}}
    over = {**JOB, "id": "j2", "state": "succeeded", "cpu_ms": 9000, "max_rss": 2 << 30, "usage": None}
    table = lines(house(page(running, over, {**JOB, "id": "j3"})).ok("get", "jobs", "-o", "wide"))
    assert "3 GiB" in table[1]
    assert "9s, 2 GiB" in table[2]


def test_describe_in_json_is_the_thing_itself() -> None:
    there = House(FakeHub({("GET", "/v1/workers/w1"): WORKER}))
    assert json.loads(there.ok("describe", "worker", "w1", "-o", "json")) == {
        "apiVersion": "worker-manager/v1",
        "kind": "Worker",
        **WORKER,
    }


def test_explain_job_says_why_it_waits() -> None:
    answer = {
        "job": "j2",
        "state": "queued",
        "text": "no pool can serve it",
        "ahead": 4,
        "verdicts": [
            {"pool": "local", "status": "never", "reason": {"code": "memory", "text": "memory: job asks 96 GiB"}}
        ],
    }
    told = House(FakeHub({("GET", "/v1/jobs/j2/explain"): answer})).ok("explain", "job", "j2")
    assert told.startswith("j2 is queued: no pool can serve it\n4 jobs of its kind before it\n")
    assert "memory: job asks 96 GiB" in told


DECISION = {
    "id": 1,
    "at_ms": NOW,
    "pool": "local",
    "action": "launch",
    "subject": "main-0001",
    "reason": {"code": "backlog", "text": "12 jobs wait"},
    "outcome": "refused",
    "text": "capacity: none left",
}


def test_explain_pool_says_why_it_is_as_large_as_it_is() -> None:
    verdict = {
        "group": "g1",
        "pool": "local",
        "status": "waiting",
        "jobs": 8,
        "reason": {"text": "max-workers: 4 of 4"},
    }
    decision = {**DECISION, "at_ms": NOW - 65_000}
    pool = {**POOL, "launch": 2, "next_due_ms": NOW + 12_000, "verdicts": [verdict], "decisions": [decision]}
    answer = {"pools": [pool]}
    told = House(FakeHub({("GET", "/v1/pools/local/explain"): answer})).ok("explain", "pool", "local")
    assert lines(told) == [
        "Pool local of manager main: 4 wanted, 1 requested, 3 observed, 3 ready, 0 idle, 0 draining; "
        "between 0 and 4 workers",
        "Why:   12 jobs wait; max-workers: 4 of 4",
        "Now:   launches 2",
        "Next:  when the backlog or a worker changes, or in 12s, when a limit or an idle time ends",
        "Verdicts:",
        "POOL   GROUP  STATUS   JOBS  WHY",
        "local  g1     waiting  8     max-workers: 4 of 4",
        "Last decisions:",
        "WHEN      ACTION  SUBJECT    OUTCOME  WHY",
        "1m5s ago  launch  main-0001  refused  12 jobs wait; capacity: none left",
    ]


def test_a_freeze_is_told_first() -> None:
    frozen = {**POOL, "frozen": {"until_ms": NOW + 60_000, "text": "lunch"}}
    there = House(FakeHub({("GET", "/v1/pools"): {"pools": [frozen]}}))
    assert "frozen, ends in 1m: lunch; 12 jobs wait" in there.ok("get", "pools")


def test_a_manager_that_was_not_heard_for_long_is_told() -> None:
    answer = {"pools": [{**POOL, "seen_ms": NOW - 3_600_000}]}
    told = House(FakeHub({("GET", "/v1/pools/local/explain"): answer})).ok("explain", "local")
    assert "Its manager was last heard 1h ago: it may have stopped" in told
    assert "Next:  when the backlog or a worker changes; time alone changes nothing" in told


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("describe", "7"), "/v1/jobs/j7"),
        (("describe", "job/j7"), "/v1/jobs/j7"),
        (("describe", "jobs", "j7"), "/v1/jobs/j7"),
        (("describe", "main-1"), "/v1/workers/main-1"),
        (("explain", "j7"), "/v1/jobs/j7/explain"),
        (("explain", "gpu"), "/v1/pools/gpu/explain"),
    ],
)
def test_the_kind_of_a_name_is_guessed(words: tuple[str, ...], path: str) -> None:
    house = House(FakeHub({("GET", path): {}}))
    house.ok(*words)
    assert house.hub.asked[0].path == path


def test_describe_pool_shows_one_for_each_manager() -> None:
    answer = {"pools": [POOL, {**POOL, "manager": "south"}]}
    told = House(FakeHub({("GET", "/v1/pools/local/explain"): answer})).ok("describe", "pool", "local")
    assert [line for line in lines(told) if line.startswith("Manager:")] == ["Manager:   main", "Manager:   south"]


def test_an_event_of_a_decision_says_what_was_decided() -> None:
    event = {
        "seq": 5,
        "at_ms": NOW,
        "kind": "decision",
        "subject": "local",
        "data": {"manager": "main", "decision": DECISION},
    }
    there = House(FakeHub({("GET", "/v1/events"): {"events": [event], "next": "c"}}))
    assert lines(there.ok("get", "events"))[1].endswith("launch main-0001: refused; 12 jobs wait; capacity: none left")


def test_a_decision_names_the_limits_that_left_less_than_was_wanted() -> None:
    launched = {
        **DECISION,
        "outcome": "launched",
        "reason": {"code": "backlog", "text": "20 jobs wait: 20 more workers would hold them"},
        "text": "2 workers, 20 wanted",
        "limited": [{"code": "max-workers", "text": "max-workers: 2 of 2"}],
    }
    told = "20 jobs wait: 20 more workers would hold them; 2 workers, 20 wanted; max-workers: 2 of 2"
    answer = {"pools": [{**POOL, "decisions": [launched]}]}
    assert told in House(FakeHub({("GET", "/v1/pools/local/explain"): answer})).ok("explain", "pool", "local")
    assert details({"manager": "main", "decision": launched}) == f"launch main-0001: launched; {told}"


def test_watching_off_a_terminal_prints_what_changed_below_one_head() -> None:
    done = {**JOB, "state": "succeeded"}
    hub = FakeHub(
        {
            ("GET", "/v1/jobs"): [page(JOB, STUCK), page(done, STUCK)],
            ("GET", "/v1/events"): [
                {"events": [], "next": "c0"},
                {"events": [{"seq": 1}], "next": "c1"},
                KeyboardInterrupt(),
            ],
        }
    )
    result = House(hub).run("get", "jobs", "-w")
    assert result.code == 130
    assert [line.split()[0] for line in lines(result.stdout)] == ["ID", "j1", "j2", "j1"]
    assert [asked.params.get("after") for asked in hub.asked if asked.path == "/v1/events"] == ["now", "c0", "c1"]


AWAITED = {
    "id": "main-0002-0",
    "pool": "gpu",
    "manager": "main",
    "state": "submitted",
    "requested_ms": NOW - 300_000,
    "refusal": "capacity",
    "text": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
}
SAYS = (
    "capacity: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu; "
    "it has no machine of this kind now: wait, or let the pool use other machines"
)


def test_workers_that_have_not_registered_are_listed_with_what_their_platform_says() -> None:
    there = House(FakeHub({("GET", "/v1/workers"): {"workers": [], "awaited": [AWAITED]}}))
    _, row = lines(there.ok("get", "workers"))
    assert row.split()[:3] == ["main-0002-0", "gpu", "submitted"]
    assert "5m" in row
    assert row.endswith(SAYS)
    assert "main-0002-0" in there.ok("get", "workers", "--pool", "gpu", "--state", "submitted")
    assert "main-0002-0" not in there.ok("get", "workers", "--state", "ready")


def test_one_that_has_not_registered_is_described() -> None:
    told = lines(House(FakeHub({("GET", "/v1/workers/main-0002-0"): AWAITED})).ok("describe", "main-0002-0"))
    assert f"Platform says: {SAYS}" in told
    assert any(line.startswith("Asked for:") and line.endswith("(5m ago)") for line in told)


def test_explain_pool_shows_those_that_have_not_registered() -> None:
    one = {"worker": "w-1", "state": "submitted", "since": NOW - 60_000, "refusal": None, "text": "Priority"}
    answer = {"pools": [{**POOL, "awaited": [one]}]}
    told = lines(House(FakeHub({("GET", "/v1/pools/local/explain"): answer})).ok("explain", "pool", "local"))
    where = told.index("Not registered yet:")
    assert told[where + 1 : where + 3] == [
        "WORKER  STATE      ASKED FOR  ITS PLATFORM SAYS",
        "w-1     submitted  1m ago     Priority",
    ]
