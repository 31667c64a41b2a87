"""The slurm backend against what really goes wrong on a cluster: nodes and controllers that die, jobs that others end,
records that are forgotten, answers that are lost."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import (
    Accepted,
    Backend,
    Context,
    ListFailed,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)
from tests.stand_ins.slurm import SlurmCluster, a_cluster
from tests.stand_ins.slurm_accounting import an_accounting
from worker.protocol import Shape
from worker_manager.clock import SystemClock

_LOW_AND_HIGH = (
    "PreemptType=preempt/partition_prio",
    "PreemptMode=CANCEL",
    "PartitionName=low Nodes=n1 PriorityTier=1 PreemptMode=CANCEL",
    "PartitionName=high Nodes=n1 PriorityTier=10",
)
_SLEEPS = ("/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 600 & wait")
MIB = 2**20


class Site:
    """A manager's view of a cluster."""

    def __init__(self, cluster: SlurmCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.work_dir = folder / "shared"
        self.made = 0

    def backend(self, timeout_s: float = 30.0, shape: Shape | None = None, **options: Any) -> Backend:
        context = Context(f"wm-{self.folder.name}", "pool", str(self.folder), SystemClock().now_ms, timeout_s, shape)
        given = {"partition": "cpu", "time": "1h", "slurm-work-dir": str(self.work_dir)}
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        kind = registry.load("slurm")
        return kind.create(kind.read(given), context)

    def submission(self, *command: str, count: int = 1, shape: Shape | None = None, **more: Any) -> Submission:
        self.made += 1
        return Submission(
            id=f"{self.folder.name.replace('_', '-')[:24].strip('-')}-{self.made}",
            count=count,
            pool="pool",
            manager=f"wm-{self.folder.name}",
            shape=shape or Shape(cpus=1000, memory=64 * MIB),
            command=command or _SLEEPS,
            environment={},
            join_tokens=tuple(f"wmj_{index}" for index in range(count)),
            **more,
        )

    def start(self, backend: Backend, *command: str, **more: Any) -> Seen:
        submission = self.submission(*command, **more)
        assert isinstance(backend.launch(submission), Accepted)
        return self.reaches(backend, submission.id, WorkerPhase.RUNNING)

    def reaches(self, backend: Backend, submission: str, *phases: WorkerPhase) -> Seen:
        found: list[Seen] = []

        def there() -> bool:
            found[:] = [one for one in backend.list().seen if one.submission == submission and one.phase in phases]
            return bool(found)

        self.cluster.until(there, f"{submission} to be {phases}: {backend.list()}")
        return found[0]

    def lose_work_dir(self) -> None:
        """Moved, not removed file by file: a worker may be putting something there."""
        self.work_dir.rename(self.work_dir.with_name("gone"))

    def folder_of(self, submission: str) -> Path:
        (found,) = self.work_dir.glob(f"*/*/{submission}")
        return found


Here = Callable[[SlurmCluster], Site]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with a_cluster(further=_LOW_AND_HIGH) as made:
        yield made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """The site of a cluster, to whose programs this test's environment leads."""
    used: list[SlurmCluster] = []

    def at(cluster: SlurmCluster) -> Site:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        used.append(cluster)
        return Site(cluster, tmp_path)

    yield at
    for cluster in used:
        if not cluster.conf.exists():  # it was the test's own
            continue
        cluster.thaw()
        cluster.unwrap()
        cluster.run("scancel", f"--user={os.getuid()}", check=False)


# ---------------------------------------------------------------- ends that the backend did not ask for


def test_a_worker_on_a_node_that_fails_has_ended_and_the_next_can_be_launched(
    cluster: SlurmCluster, here: Here
) -> None:
    """In CodaLab such a worker was pending for ever, and nothing was launched any more."""
    site = here(cluster)
    backend = site.backend()
    one = site.start(backend)
    node = cluster.run("squeue", "-h", "-j", one.handle, "-o", "%N").strip()
    cluster.kill(f"slurmd-{node}")
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    ended = site.reaches(backend, one.submission, WorkerPhase.ENDED)
    assert ended.detail.startswith(f"NODE_FAIL on {node}")
    assert ended.refusal is RefusalKind.CAPACITY
    assert not (site.folder_of(one.submission) / "tokens" / "0").exists()
    assert site.start(backend).phase is WorkerPhase.RUNNING, "on another node"
    cluster.restart_node(node)


def test_a_worker_whose_job_others_cancel_has_ended(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend()
    one = site.start(backend)
    cluster.run("scancel", one.handle)
    ended = site.reaches(backend, one.submission, WorkerPhase.ENDED)
    assert ended.detail.startswith("CANCELLED")


def test_a_worker_that_is_preempted_has_ended(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    low, high = site.backend(partition="low"), site.backend(partition="high")
    all_of_it = Shape(cpus=16_000, memory=64 * MIB)
    one = site.start(low, shape=all_of_it)
    two = site.submission(shape=all_of_it)
    assert isinstance(high.launch(two), Accepted)
    assert site.reaches(low, one.submission, WorkerPhase.ENDED).detail.startswith("PREEMPTED")
    site.reaches(high, two.id, WorkerPhase.RUNNING)


def test_a_failed_worker_tells_its_status_and_where_it_was(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend()
    submission = site.submission("/bin/sh", "-c", "echo no hub >&2; exit 3", count=2)
    backend.launch(submission)
    cluster.until(lambda: [one.phase for one in backend.list().seen] == [WorkerPhase.ENDED] * 2, "both to end")
    for one in backend.list().seen:
        assert one.exit_code == 3
        assert one.detail.startswith("FAILED on n")
        assert one.detail.endswith("with status 3: NonZeroExitCode")
        assert backend.logs(one.handle, 1000) == "no hub\n"


@pytest.mark.soak
def test_a_worker_hears_before_its_time_limit_and_is_then_ended(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend(time="2", signal="USR2@60")
    one = site.start(backend, "/bin/sh", "-c", "trap 'echo heard' USR2; while :; do sleep 1; done")
    cluster.until(lambda: "heard" in backend.logs(one.handle, 1000), "the signal", 150)
    site_end = time.monotonic() + 200
    while backend.list().seen[0].phase is not WorkerPhase.ENDED:
        assert time.monotonic() < site_end
        time.sleep(0.5)
    assert backend.list().seen[0].detail.startswith("TIMEOUT")


# ---------------------------------------------------------------- why it waits


def test_what_a_person_must_change_is_told_apart_from_waiting_ones_turn(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend(partition="gpu")
    most = Shape(cpus=16_000, memory=64 * MIB)
    site.start(backend, shape=most)
    turn, held = site.submission(shape=most), site.submission(shape=most)
    for each in (turn, held):
        backend.launch(each)
    listed = {one.submission: one for one in backend.list().seen}
    cluster.run("scontrol", "hold", listed[held.id].handle)
    cluster.until(lambda: _of(backend, held).refusal is RefusalKind.CONFIG, "the hold to be told")
    assert "held by an administrator" in _of(backend, held).detail or "scontrol release" in _of(backend, held).detail
    cluster.until(lambda: "Resources" in _of(backend, turn).detail or "Priority" in _of(backend, turn).detail, "why")
    assert _of(backend, turn).refusal is None
    assert _of(backend, turn).started_at is None, "an estimate is no start"


def test_a_reservation_lets_only_those_start_who_take_less_time(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    cluster.run(
        *("scontrol", "create", "reservation", "reservationname=maint", "starttime=now+10minutes", "duration=60"),
        *("flags=maint,ignore_jobs", "nodes=n3", f"users={cluster.user}"),
    )
    try:
        backend = site.backend(nodelist="n3")
        long = site.submission()
        backend.launch(long)
        cluster.until(lambda: "--time-min" in _of(backend, long).detail, "what would help")
        assert _of(backend, long).detail.startswith("PENDING: ReqNodeNotAvail")
        assert _of(backend, long).refusal is None, "it comes by itself, later"
        shorter = site.backend(nodelist="n3", time_min="2")
        one = site.start(shorter, "/bin/sh", "-c", "echo $((SLURM_JOB_END_TIME - $(date +%s))); sleep 600")
        cluster.until(lambda: shorter.logs(one.handle, 100).strip(), "how long it has")
        assert 60 < int(shorter.logs(one.handle, 100)) <= 600, "it knows the time that it got, not what was asked for"
    finally:
        cluster.run("scancel", f"--user={os.getuid()}")
        cluster.run("scontrol", "delete", "reservationname=maint")


def _of(backend: Backend, submission: Submission) -> Seen:
    (found,) = (one for one in backend.list().seen if one.submission == submission.id)
    return found


# ---------------------------------------------------------------- a controller that is not there


def test_while_the_controller_is_down_nothing_is_known_and_nothing_forgotten(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend(timeout_s=6)
    one = site.start(backend)
    cluster.stop_controller()
    with pytest.raises(ListFailed, match="Unable to contact slurm controller"):
        backend.list()
    assert isinstance(backend.terminate(one.handle, force=True), Unknown)
    lost = site.submission()
    assert isinstance(backend.launch(lost), Unknown)
    assert isinstance(site.backend(timeout_s=6).terminate(one.handle, force=False), Unknown)
    assert backend.logs(one.handle, 100) == "ready\n", "logs need no controller"
    cluster.restart_controller()
    after = site.backend()
    cluster.until(lambda: [seen.handle for seen in after.list().seen] == [one.handle], "the one that was there")
    assert after.list().seen[0].phase is WorkerPhase.RUNNING
    assert isinstance(after.terminate(one.handle, force=False), Accepted)
    site.reaches(after, one.submission, WorkerPhase.ENDED)


def test_a_submission_to_a_controller_that_hangs_exists_at_most_once(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend(timeout_s=2)
    cluster.freeze()
    submission = site.submission()
    begun = time.monotonic()
    assert isinstance(backend.launch(submission), Unknown)
    assert time.monotonic() - begun < 10
    cluster.thaw()
    patient = site.backend()
    cluster.until(lambda: _listed(patient) is not None, "an answer")
    deadline = time.monotonic() + 5  # the capability's list lag
    while time.monotonic() < deadline:
        assert len(patient.list().seen) <= 1
        time.sleep(0.2)


def _listed(backend: Backend) -> int | None:
    try:
        return len(backend.list().seen)
    except ListFailed:
        return None


def test_an_sbatch_that_submits_and_then_hangs_is_found_by_listing(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend(timeout_s=3)
    cluster.wrap_once("sbatch", '"$REAL" "$@" >/dev/null\nexec sleep 600')
    submission = site.submission(count=3)
    outcome = backend.launch(submission)
    assert isinstance(outcome, Unknown)
    assert "no answer within 3 s" in outcome.text
    site.reaches(backend, submission.id, WorkerPhase.RUNNING)
    assert sorted(one.index for one in backend.list().seen) == [0, 1, 2]
    again = backend.launch(submission)
    assert isinstance(again, Unknown), "a submission is made once"
    assert len(backend.list().seen) == 3


@pytest.mark.parametrize(
    "answer", ["echo 'Submitted batch job'", "echo '<html>'", ":", "echo 12 34", "yes garbage | head -c 70000000"]
)
def test_an_answer_that_is_none_is_unknown(cluster: SlurmCluster, here: Here, answer: str) -> None:
    site = here(cluster)
    backend = site.backend()
    cluster.wrap_once("sbatch", answer)
    assert isinstance(backend.launch(site.submission()), Unknown)


@pytest.mark.parametrize("answer", ["echo PENDING", "printf 'a\\037b\\037\\n'", "yes | head -c 70000000", "exit 3"])
def test_a_queue_that_is_none_is_an_error(cluster: SlurmCluster, here: Here, answer: str) -> None:
    """In CodaLab a text that did not match crashed the manager."""
    site = here(cluster)
    backend = site.backend()
    cluster.wrap_once("squeue", answer)
    with pytest.raises(ListFailed):
        backend.list()


def test_when_no_more_jobs_are_taken_the_call_ends_at_its_deadline(here: Here) -> None:
    """sbatch would wait for two minutes."""
    with a_cluster(nodes=1, max_job_count=3) as cluster:
        site = here(cluster)
        backend = site.backend(timeout_s=3)
        taken = 0
        while isinstance(outcome := backend.launch(site.submission()), Accepted):
            taken += 1
            begun = time.monotonic()
        assert isinstance(outcome, Unknown), outcome
        assert "temporarily unable to accept job, sleeping and retrying" in outcome.text
        assert time.monotonic() - begun < 10
        assert 0 < taken <= 3
        assert len(backend.list().seen) == taken


# ---------------------------------------------------------------- what Slurm forgets


def test_a_job_that_slurm_has_forgotten_is_over_and_not_pending(here: Here) -> None:
    """In CodaLab it counted as pending for ever."""
    with a_cluster(nodes=1, further=["MinJobAge=2"]) as cluster:
        site = here(cluster)
        backend = site.backend()
        gone = site.submission("/bin/sh", "-c", "exit 0", count=2)
        backend.launch(gone)
        stays = site.start(backend)
        cluster.until(
            lambda: {one.submission for one in backend.list().seen} == {stays.submission}, "it to be forgotten"
        )
        listing = backend.list()
        assert listing.complete
        assert not (site.folder_of(gone.id) / "tokens").exists()
        assert (site.folder_of(stays.submission) / "tokens" / "0").exists()
        assert isinstance(backend.terminate("999_0", force=True), Accepted)


def test_accounting_tells_how_a_forgotten_job_ended(here: Here, tmp_path: Path) -> None:
    with (
        an_accounting() as accounting,
        a_cluster(nodes=1, further=["MinJobAge=2"], accounting=accounting) as cluster,
    ):
        site = here(cluster)
        backend = site.backend()
        submissions = [site.submission("/bin/sh", "-c", f"exit {code}") for code in (0, 7)]
        several = site.submission("/bin/sh", "-c", "exit $WM_INDEX", count=3)
        for each in (*submissions, several):
            backend.launch(each)
        cluster.until(lambda: len(cluster.states()) == 0, "all to be forgotten", 90)
        after = site.backend()
        wanted = {(submissions[0].id, 0, 0), (submissions[1].id, 0, 7)} | {(several.id, n, n) for n in range(3)}

        def told(backend: Backend = after) -> bool:
            seen = backend.list().seen
            return {(one.submission, one.index, one.exit_code) for one in seen} == wanted

        cluster.until(told, "all of them, by their ends")
        assert {one.phase for one in after.list().seen} == {WorkerPhase.ENDED}
        quota_is_told(site, cluster)


def quota_is_told(site: Site, cluster: SlurmCluster) -> None:
    """Limits of accounting: one that lets a job wait, one that refuses it."""
    for words in (
        ("add", "qos", "tiny", "maxjobspu=1", "maxsubmitjobspu=2"),
        ("modify", "user", cluster.user, "set", "qos+=tiny"),
    ):
        cluster.run("sacctmgr", "-i", *words)
    backend = site.backend(qos="tiny")
    cluster.until(lambda: "error" not in _dry(backend), "the controller to know the new quality of service")
    site.start(backend)
    waits = site.submission()
    assert isinstance(backend.launch(waits), Accepted)
    cluster.until(lambda: _of(backend, waits).refusal is RefusalKind.QUOTA, "the limit to be told")
    assert "QOSMaxJobsPerUserLimit" in _of(backend, waits).detail
    refused = backend.launch(site.submission())
    assert isinstance(refused, Refused)
    assert refused.kind is RefusalKind.QUOTA
    wrong = site.backend(account="nonesuch").launch(site.submission())
    assert isinstance(wrong, Refused)
    assert wrong.kind is RefusalKind.CONFIG
    assert "Invalid account" in wrong.text
    findings = [one for one in site.backend(account="nonesuch").check() if one.severity is Severity.ERROR]
    assert [one.subject for one in findings] == ["dry run"]


def _dry(backend: Backend) -> str:
    return " ".join(str(one.severity) for one in backend.check() if one.subject == "dry run")


# ---------------------------------------------------------------- whose a job is, and what it gets


def test_a_comment_that_a_site_rewrites_does_not_lose_the_worker(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend(job_name="gpu.train")
    one = site.start(backend)
    cluster.run("scontrol", "update", f"jobid={one.handle}", "comment=checked by the site\nand more")
    assert [seen.handle for seen in site.backend(job_name="gpu.train").list().seen] == [one.handle]
    site.lose_work_dir()
    assert site.backend().list().seen == (), "with neither comment nor record nobody can know"


def test_without_its_work_dir_a_manager_finds_its_workers_by_their_comments(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    one = site.start(site.backend())
    site.lose_work_dir()
    after = site.backend()
    assert [seen.handle for seen in after.list().seen] == [one.handle]
    assert isinstance(after.terminate(one.handle, force=False), Accepted)
    site.reaches(after, one.submission, WorkerPhase.ENDED)


def test_jobs_of_the_same_person_that_are_no_workers_are_left_alone(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend()
    words = ["sbatch", "--parsable", "--output=/dev/null", "--job-name=a\nb\x1fc|d", "--comment=worker-manager:x"]
    other = cluster.run(*words[:3], "--job-name=a\nb|d", words[4], "--wrap=sleep 600").strip()
    assert backend.list().seen == ()
    for force in (False, True):
        assert isinstance(backend.terminate(other, force), Accepted)
    assert cluster.states()[other] in ("PENDING", "RUNNING")


def test_nothing_of_the_managers_environment_changes_what_is_meant_or_reaches_the_worker(
    cluster: SlurmCluster, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = here(cluster)
    for name, value in {
        "SBATCH_PARTITION": "gpu",
        "SBATCH_ARRAY_INX": "0-3",
        "SBATCH_EXPORT": "NONE",
        "SBATCH_TEST_ONLY": "1",
        "SBATCH_WAIT": "1",
        "SQUEUE_FORMAT": "%i",
        "SQUEUE_STATES": "PENDING",
        "SQUEUE_ACCOUNT": "nobody",
        "SCANCEL_STATE": "PENDING",
        "SLURM_JOB_ID": "999",
        "SLURM_CLUSTERS": "nonesuch",
        "MY_PASSWORD": "canary-7",
        "WANTED": "yes",
    }.items():
        monkeypatch.setenv(name, value)
    backend = site.backend(inherit_environment=("WANTED",))
    one = site.start(backend, "/bin/sh", "-c", "env; sleep 600")
    assert cluster.run("squeue", "-h", "-j", one.handle, "-o", "%P").strip() == "cpu"
    cluster.until(lambda: "SLURM_JOB_ID" in backend.logs(one.handle, 100_000), "its environment")
    said = backend.logs(one.handle, 100_000)
    assert "canary-7" not in said
    assert "WANTED=yes" in said
    assert f"SLURM_JOB_ID={one.handle}\n" in said
    assert "SBATCH_" not in said
    assert isinstance(backend.terminate(one.handle, force=True), Accepted)
    site.reaches(backend, one.submission, WorkerPhase.ENDED)


def test_an_allocation_is_what_was_asked_for_and_no_more(cluster: SlurmCluster, here: Here) -> None:
    """CodaLab's workers asked for a GPU unless told otherwise."""
    site = here(cluster)
    backend = site.backend(directive=("--nice=7", "#SBATCH --mail-type=NONE"))
    plain = site.start(backend)
    shown = cluster.run("scontrol", "show", "job", plain.handle)
    assert "gres/gpu" not in shown
    assert "NumCPUs=1 " in shown
    assert "Nice=7" in shown
    assert "Requeue=0" in shown
    gpus = Shape(cpus=2500, memory=100 * MIB + 1, gpus=2, gpu_type="a100")
    one = site.start(site.backend(partition="gpu"), shape=gpus)
    shown = cluster.run("scontrol", "show", "job", one.handle)
    assert "NumCPUs=3 " in shown
    assert "mem=101M" in shown
    assert "gpu:a100:2" in shown.partition("TresPerNode=")[2]


def test_two_managers_see_only_their_own(cluster: SlurmCluster, here: Here, tmp_path: Path) -> None:
    site = here(cluster)
    (tmp_path / "b").mkdir()
    other = Site(cluster, tmp_path / "b")
    other.work_dir = site.work_dir
    one, two = site.start(site.backend()), other.start(other.backend())
    assert [seen.handle for seen in site.backend().list().seen] == [one.handle]
    assert isinstance(site.backend().terminate(two.handle, force=True), Accepted)
    assert [seen.phase for seen in other.backend().list().seen] == [WorkerPhase.RUNNING]


# ---------------------------------------------------------------- doctor


def subjects(findings: Any, severity: Severity) -> list[str]:
    return [one.subject for one in findings if one.severity is severity]


def test_doctor_finds_nothing_wrong_with_a_good_site(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    findings = site.backend(shape=Shape(cpus=4000, memory=1024 * MIB)).check()
    assert subjects(findings, Severity.ERROR) == []
    assert {"programs", "controller", "partition cpu", "shape in cpu", "dry run", "slurm-work-dir"} <= {
        one.subject for one in findings
    }


@pytest.mark.parametrize(
    ("options", "shape", "wrong"),
    [
        ({"partition": "nonesuch"}, {}, ["partition nonesuch", "dry run"]),
        ({"partition": "short", "time": "2h"}, {}, ["partition short", "dry run"]),
        ({}, {"cpus": 64_000}, ["shape in cpu", "dry run"]),
        ({}, {"memory": 2**40}, ["shape in cpu", "dry run"]),
        ({"partition": "gpu"}, {"gpus": 2, "gpu_type": "h100"}, ["shape in gpu", "dry run"]),
        ({"constraint": "slow"}, {}, ["dry run"]),
        ({"reservation": "nonesuch"}, {}, ["dry run"]),
        ({"directive": ("--bogus=1",)}, {}, ["dry run"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_doctor_names_what_is_wrong(
    cluster: SlurmCluster, here: Here, options: dict[str, Any], shape: dict[str, Any], wrong: list[str]
) -> None:
    site = here(cluster)
    findings = site.backend(shape=Shape(**{"cpus": 1000, "memory": 64 * MIB, **shape}), **options).check()
    assert subjects(findings, Severity.ERROR) == wrong
    assert all(one.mend for one in findings if one.severity is not Severity.OK)


def test_doctor_without_a_controller_or_without_slurm(
    cluster: SlurmCluster, here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = here(cluster)
    cluster.freeze()
    assert subjects(site.backend(timeout_s=1).check(), Severity.ERROR) == ["controller"]
    cluster.thaw()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert subjects(site.backend().check(), Severity.ERROR) == ["programs"]
    outcome = site.backend().launch(site.submission())
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert list(site.work_dir.glob("*/*/*")) == [], "what was refused leaves nothing"


def test_doctor_minds_a_work_dir_that_others_can_read(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    backend = site.backend()
    assert subjects(backend.check(), Severity.ERROR) == []
    (own,) = site.work_dir.glob("*/*")
    own.chmod(0o755)
    assert subjects(backend.check(), Severity.ERROR) == ["slurm-work-dir"]


def test_a_worker_that_slurm_calls_running_before_it_is_can_be_ended(here: Here) -> None:
    """A signal to it would be lost, and it would never hear that it should go."""
    with a_cluster(nodes=1, further=["Prolog={root}/prolog"]) as cluster:
        prolog = cluster.root / "prolog"
        prolog.write_text("#!/bin/sh\nwhile [ ! -e $0.go ]; do sleep 0.1; done\n")
        prolog.chmod(0o755)
        site = here(cluster)
        backend = site.backend()
        one = site.start(backend)
        assert isinstance(backend.terminate(one.handle, force=False), Accepted)
        (cluster.root / "prolog.go").touch()
        site.reaches(backend, one.submission, WorkerPhase.ENDED)
        assert backend.logs(one.handle, 100) == ""


def test_a_work_dir_may_have_any_name_that_slurm_does_not_take_apart(cluster: SlurmCluster, here: Here) -> None:
    site = here(cluster)
    site.work_dir = site.folder / "it's $(touch pwned) `id` ; #SBATCH a, b"
    backend = site.backend()
    submission = site.submission("/bin/sh", "-c", 'cat "$WM_JOIN_TOKEN_FILE"; sleep 600', count=2)
    assert isinstance(backend.launch(submission), Accepted)
    site.reaches(backend, submission.id, WorkerPhase.RUNNING)
    cluster.until(
        lambda: sorted(backend.logs(one.handle, 99) for one in backend.list().seen) == ["wmj_0", "wmj_1"], "both"
    )
    assert not list(site.folder.rglob("pwned"))
