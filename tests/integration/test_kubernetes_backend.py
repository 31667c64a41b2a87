"""The Kubernetes backend against the stand-in cluster: what only it promises."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends import registry
from backends.base import (
    Accepted,
    Backend,
    Context,
    Finding,
    ListFailed,
    RefusalKind,
    Refused,
    Seen,
    Severity,
    Submission,
    Unknown,
    WorkerPhase,
)
from tests.stand_ins.kubernetes import Cluster, Fault, Say
from tests.stand_ins.kubernetes_store import Thing
from worker.protocol import Shape
from worker_manager.clock import SystemClock

ROLES = Path(__file__).parents[2] / "docs" / "backends" / "kubernetes"
RUNS = ("/bin/sleep", "600")


class Place:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.later_ms = 0
        self.count = 0

    def backend(self, shape: Shape | None = None, timeout_s: float = 30.0, **options: Any) -> Backend:
        values = {"cluster-host": self.cluster.url, **{name.replace("_", "-"): one for name, one in options.items()}}
        context = Context("m", "p", "/nonexistent", self.now_ms, timeout_s, shape)
        return registry.create("kubernetes", values, context)

    def now_ms(self) -> int:
        return SystemClock().now_ms() + self.later_ms

    def submission(self, count: int = 1, command: tuple[str, ...] = RUNS) -> Submission:
        self.count += 1
        tokens = tuple(f"token-{index}" for index in range(count))
        return Submission(f"m-{self.count}", count, "p", "m", Shape(cpus=100), command, {}, tokens)

    def launched(self, backend: Backend, **more: Any) -> Submission:
        made = self.submission(**more)
        assert isinstance(backend.launch(made), Accepted)
        return made

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.01)

    def seen(self, backend: Backend, *phases: WorkerPhase) -> Seen:
        """The only worker, once it is in one of these phases."""
        found: list[Seen] = []

        def there() -> bool:
            found[:] = backend.list().seen
            return [one.phase in phases for one in found] == [True]

        self.until(there, f"one worker {phases}")
        return found[0]

    def left(self) -> dict[str, int]:
        store = self.cluster.store
        return {kind: len(store.select(kind)) for kind in ("jobs", "pods", "secrets") if store.select(kind)}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    cluster = Cluster(tmp_path)
    yield Place(cluster)
    cluster.close()


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[Place]:
    """Nothing runs there, so that there may be thousands."""
    cluster = Cluster(tmp_path, runs=False, validates=False)
    yield Place(cluster)
    cluster.close()


# ---------------------------------------------------------------- calls


def test_workers_cost_a_call_each_and_one_more_for_every_fifty(virtual: Place) -> None:
    backend = virtual.backend(watch=False)
    handles: list[str] = []
    for _ in range(4):
        outcome = backend.launch(virtual.submission(50))
        assert isinstance(outcome, Accepted)
        handles += outcome.handles.values()
    calls = virtual.cluster.calls
    assert dict(calls) == {"create jobs": 200, "create secrets": 4}
    calls.clear()
    assert len(backend.list().seen) == 200
    assert dict(calls) == {"list jobs": 1, "list pods": 1}
    calls.clear()
    for handle in handles:
        assert isinstance(backend.terminate(handle, force=False), Accepted)
    assert dict(calls) == {"delete jobs": 200}
    assert backend.list().seen == ()
    assert virtual.left() == {}


# ---------------------------------------------------------------- all or none


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (
            Fault("create", "secrets", Say(403, "Forbidden", 'User "x" cannot create resource "secrets"')),
            RefusalKind.AUTH,
        ),
        (Fault("create", "secrets", Say(422, "Invalid", "too big: dG9rZW4tMA== token-0")), RefusalKind.CONFIG),
    ],
)
def test_a_launch_whose_secret_is_refused_leaves_nothing_and_ran_nothing(
    place: Place, tmp_path: Path, fault: Fault, kind: RefusalKind
) -> None:
    place.cluster.faults.append(fault)
    witness = tmp_path / "ran"
    outcome = place.backend().launch(place.submission(3, command=("/usr/bin/touch", str(witness))))
    assert isinstance(outcome, Refused)
    assert outcome.kind is kind
    assert "token-0" not in outcome.text
    assert "dG9rZW4tMA==" not in outcome.text
    assert place.left() == {}
    assert not witness.exists()


def test_a_launch_that_is_refused_half_way_leaves_nothing(place: Place) -> None:
    def fourth(asked: Any) -> None:
        if (asked.verb, asked.kind) == ("create", "jobs") and asked.body["metadata"]["name"].endswith("-3"):
            raise Say(403, "Forbidden", 'jobs.batch "x" is forbidden: exceeded quota: workers')

    place.cluster.before = fourth
    backend = place.backend()
    outcome = backend.launch(place.submission(5))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.QUOTA
    assert place.left() == {}
    assert backend.list().seen == ()


def test_what_cannot_be_taken_back_is_unknown(place: Place) -> None:
    place.cluster.faults += [
        Fault("create", "secrets", Say(403, "Forbidden", 'User "x" cannot create resource "secrets"')),
        Fault("deletecollection", "jobs", Say(503, "ServiceUnavailable", "later")),
    ]
    backend = place.backend()
    outcome = backend.launch(place.submission(2))
    assert isinstance(outcome, Unknown)
    assert "are there still" in outcome.text
    assert [one.phase for one in backend.list().seen] == [WorkerPhase.STARTING] * 2


def test_a_launch_that_lost_an_answer_is_completed_so_that_its_workers_can_start(place: Place) -> None:
    place.cluster.faults.append(Fault("create", "jobs", "cut-after"))
    backend = place.backend()
    made = place.submission(2)
    assert isinstance(backend.launch(made), Unknown)
    place.until(lambda: [one.phase for one in backend.list().seen] == [WorkerPhase.RUNNING], "the first runs")
    outcome = backend.launch(made)
    assert isinstance(outcome, Accepted), "by its name the second time is the same launch"
    place.until(lambda: [one.phase for one in backend.list().seen] == [WorkerPhase.RUNNING] * 2, "both run")
    assert place.cluster.calls["create jobs"] == 3


def test_a_secret_whose_answer_was_lost_is_asked_for_once_more(place: Place) -> None:
    place.cluster.faults.append(Fault("create", "secrets", "cut-after"))
    backend = place.backend()
    assert isinstance(backend.launch(place.submission(2)), Accepted)
    assert place.left() == {"jobs": 2, "pods": 2, "secrets": 1}


def test_a_job_of_somebody_else_by_that_name_is_not_taken_for_ours(place: Place) -> None:
    made = place.launched(place.backend())
    other = registry.create(
        "kubernetes", {"cluster-host": place.cluster.url}, Context("m", "other", "/x", place.now_ms)
    )
    outcome = other.launch(Submission(**{**vars(made), "pool": "other"}))
    assert isinstance(outcome, Refused)
    assert outcome.kind is RefusalKind.CONFIG
    assert "not of this pool" in outcome.text
    assert place.left() == {"jobs": 1, "pods": 1, "secrets": 1}


def test_a_refusal_of_ten_megabytes_is_clipped(place: Place) -> None:
    place.cluster.faults.append(Fault("create", "jobs", Say(422, "Invalid", "x" * 10**7)))
    outcome = place.backend().launch(place.submission())
    assert isinstance(outcome, Refused)
    assert len(outcome.text) <= 2000


def test_the_server_hears_of_a_job_once_though_it_is_in_trouble(place: Place) -> None:
    place.cluster.faults.append(Fault("create", "jobs", Say(503, "ServiceUnavailable", "x", Retry_After="1"), times=5))
    assert isinstance(place.backend().launch(place.submission()), Unknown)
    assert place.cluster.calls["create jobs"] == 1


def test_a_server_that_is_not_there_is_no_empty_list(place: Place) -> None:
    backend = place.backend(timeout_s=5.0, **{"cluster-host": "http://127.0.0.1:1"})
    with pytest.raises(ListFailed, match="cannot be reached"):
        backend.list()
    assert isinstance(backend.launch(place.submission()), Unknown)
    assert isinstance(backend.terminate("m-1-0/uid", force=False), Unknown)
    assert backend.logs("m-1-0/uid", 100) == ""
    [finding] = backend.check()
    assert (finding.subject, finding.severity) == ("cluster", Severity.ERROR)


# ---------------------------------------------------------------- what is seen


def test_workers_that_wait_are_counted_however_many_ticks_go_by(place: Place) -> None:
    """Where only running pods count, a limit of one makes a new worker at every tick."""
    place.cluster.node.unschedulable = True
    backend = place.backend()
    place.launched(backend)
    for _ in range(5):
        [waits] = backend.list().seen
        assert (waits.phase, waits.refusal) == (WorkerPhase.PENDING, RefusalKind.CAPACITY)
        assert "Insufficient nvidia.com/gpu" in waits.detail


def test_what_is_over_goes_by_itself(place: Place) -> None:
    backend = place.backend(keep_ended=1000)
    place.launched(backend, count=2, command=("/bin/true",))
    place.until(lambda: not place.left(), "Jobs, pods and the Secret to go")
    place.until(lambda: backend.list().seen == (), "an empty list")


def test_a_secret_stays_until_the_last_of_its_jobs_is_gone(place: Place) -> None:
    backend = place.backend()
    place.launched(backend, count=2)
    place.until(lambda: [one.phase for one in backend.list().seen] == [WorkerPhase.RUNNING] * 2, "both run")
    first, second = backend.list().seen
    backend.terminate(first.handle, force=True)
    place.until(lambda: len(backend.list().seen) == 1, "the end of the first")
    assert place.left() == {"jobs": 1, "pods": 1, "secrets": 1}
    backend.terminate(second.handle, force=True)
    place.until(lambda: not place.left(), "nothing to be left")


def test_why_a_job_gets_no_pod_is_told_from_its_events(place: Place) -> None:
    place.cluster.node.pod_quota = 0
    backend = place.backend()
    place.launched(backend)
    [waits] = backend.list().seen
    assert (waits.phase, waits.refusal) == (WorkerPhase.PENDING, None)
    assert place.cluster.calls["list events"] == 0, "a Job may be a moment without a pod"
    place.later_ms = 60_000
    [waits] = backend.list().seen
    assert (waits.phase, waits.refusal) == (WorkerPhase.PENDING, RefusalKind.QUOTA)
    assert "exceeded quota" in waits.detail
    place.cluster.faults.append(Fault("list", "events", Say(403, "Forbidden", "no")))
    [waits] = backend.list().seen
    assert waits.phase is WorkerPhase.PENDING, "without the events it still waits"


def test_a_pod_that_the_profile_forbids_is_a_matter_of_configuration(place: Place) -> None:
    place.cluster.node.admission = lambda _pod: 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
    backend = place.backend()
    place.launched(backend)
    place.later_ms = 60_000
    [waits] = backend.list().seen
    assert (waits.phase, waits.refusal) == (WorkerPhase.PENDING, RefusalKind.CONFIG)
    assert "PodSecurity" in waits.detail


def test_images_evictions_memory_and_lost_nodes_are_told_apart(place: Place) -> None:
    node, backend = place.cluster.node, place.backend()
    node.bad_images["nonesuch"] = "ImagePullBackOff"
    bad = place.backend(image="nonesuch")
    names = [f"{place.launched(one).id}-0" for one in (backend, backend, backend, bad)]

    def all_run() -> bool:
        phases = [one.phase for one in backend.list().seen]
        return phases == [WorkerPhase.RUNNING] * 3 + [WorkerPhase.STARTING]

    place.until(all_run, "three to run")
    node.evict(place.cluster.pod_of(names[0]), "The node was low on resource: ephemeral-storage.")
    node.out_of_memory(place.cluster.pod_of(names[1]))
    node.lose(place.cluster.pod_of(names[2]))
    expected = [
        (WorkerPhase.ENDED, RefusalKind.CAPACITY, "Evicted"),
        (WorkerPhase.ENDED, RefusalKind.CONFIG, "OOMKilled"),
        (WorkerPhase.UNKNOWN, RefusalKind.CAPACITY, "NodeLost"),
        (WorkerPhase.STARTING, RefusalKind.CONFIG, "ImagePullBackOff"),
    ]

    def told() -> bool:
        seen = backend.list().seen
        return [(one.phase, one.refusal, one.detail.partition(":")[0]) for one in seen] == expected

    place.until(told, "each with its reason")
    assert backend.list().seen[1].exit_code == 137


# ---------------------------------------------------------------- ends


def test_a_job_that_took_the_name_of_another_is_not_ended_for_it(place: Place) -> None:
    backend = place.backend()
    made = place.launched(backend)
    old = place.seen(backend, WorkerPhase.RUNNING).handle
    backend.terminate(old, force=True)
    place.until(lambda: not place.left(), "the first to be gone")
    assert isinstance(backend.launch(made), Accepted)
    new = place.seen(backend, WorkerPhase.RUNNING).handle
    assert new != old
    for force in (False, True):
        assert isinstance(backend.terminate(old, force=force), Accepted)
    assert place.seen(backend, WorkerPhase.RUNNING).handle == new


@pytest.mark.parametrize("force", [False, True])
def test_a_pod_from_over_which_the_job_was_taken_away_can_be_ended(place: Place, force: bool) -> None:
    backend = place.backend()
    made = place.launched(backend)
    one = place.seen(backend, WorkerPhase.RUNNING)
    job = place.cluster.store.get("jobs", made.worker_id(0))
    assert job is not None
    place.cluster.node.delete_job(made.worker_id(0), job["metadata"]["uid"], "Orphan")
    assert place.seen(backend, WorkerPhase.RUNNING).handle == one.handle
    assert isinstance(backend.terminate(one.handle, force=force), Accepted)
    place.until(lambda: not place.left(), "the end of the pod")
    place.until(lambda: backend.list().seen == (), "an empty list")


def test_force_asks_the_node_to_confirm_the_end(place: Place) -> None:
    """With a grace of 0 the cluster would forget the pod while it may still run."""
    graces: list[object] = []
    place.cluster.before = lambda asked: graces.append(asked.body.get("gracePeriodSeconds", "unset"))
    backend = place.backend(grace_period=120_000)
    place.launched(backend, command=("/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
    one = place.seen(backend, WorkerPhase.RUNNING)
    backend.terminate(one.handle, force=True)
    place.until(lambda: not place.left(), "the end")
    assert 1 in graces
    assert 0 not in graces


# ---------------------------------------------------------------- rights


def rules(*names: str) -> list[Thing]:
    things = [thing for name in names for thing in yaml.safe_load_all((ROLES / name).read_text())]
    return [rule for thing in things if thing["kind"] in ("Role", "ClusterRole") for rule in thing["rules"]]


def test_the_role_is_enough_for_a_whole_life_and_nothing_in_it_is_idle(place: Place) -> None:
    place.cluster.rules = rules("role.yaml")
    backend = place.backend()
    place.launched(backend)
    one = place.seen(backend, WorkerPhase.RUNNING)
    place.until(lambda: ("watch", "pods") in place.cluster.used, "the watch to begin")
    backend.logs(one.handle, 1000)
    assert isinstance(backend.terminate(one.handle, force=False), Accepted)
    assert isinstance(backend.terminate(one.handle, force=True), Accepted)
    place.until(lambda: not place.left(), "the end")
    place.cluster.faults.append(Fault("create", "secrets", Say(422, "Invalid", "no")))
    assert isinstance(backend.launch(place.submission()), Refused)
    place.cluster.node.pod_quota = 0
    place.launched(backend)
    place.later_ms = 60_000
    assert backend.list().seen[0].refusal is RefusalKind.QUOTA
    granted = {(verb, kind) for rule in place.cluster.rules for kind in rule["resources"] for verb in rule["verbs"]}
    assert place.cluster.used == granted


def test_doctor_says_which_right_is_missing_and_what_grants_it(place: Place) -> None:
    place.cluster.rules = [rule for rule in rules("role.yaml") if rule["resources"] != ["secrets"]]
    wrong = found(place.backend(), "rights")
    assert (wrong.severity, "create secrets" in wrong.text) == (Severity.ERROR, True)
    assert "role.yaml" in wrong.mend
    place.cluster.rules = rules("role.yaml", "role-doctor.yaml")
    assert found(place.backend(), "rights").severity is Severity.OK


# ---------------------------------------------------------------- doctor


def found(backend: Backend, subject: str) -> Finding:
    [finding] = [one for one in backend.check() if one.subject == subject]
    assert finding.severity is Severity.OK or finding.mend
    return finding


SMALL, LARGE = Shape(cpus=1000, memory=2**30), Shape(cpus=64_000, memory=255 * 2**30)


def test_doctor_compares_the_shape_with_what_a_node_has_left_not_with_what_it_is_sold_as(place: Place) -> None:
    assert found(place.backend(SMALL), "node size").severity is Severity.OK
    wrong = found(place.backend(LARGE), "node size")
    assert wrong.severity is Severity.ERROR
    assert "64 CPUs and 255 GiB of memory" in wrong.text
    assert "63.5 CPUs, 251 GiB" in wrong.text


def test_doctor_takes_a_stated_part_of_a_nominal_node_while_the_pool_is_empty(place: Place) -> None:
    options: dict[str, Any] = {"node_selector": ("pool=gpu",), "node_cpus": 8000, "node_memory": 30 * 2**30}
    fits = found(place.backend(Shape(cpus=4000, memory=20 * 2**30), **options), "node size")
    assert (fits.severity, "74%" in fits.text) == (Severity.OK, True)
    wrong = found(place.backend(Shape(cpus=4000, memory=28 * 2**30), **options), "node size")
    assert wrong.severity is Severity.ERROR
    assert "28 GiB" in wrong.text
    unsaid = found(place.backend(SMALL, node_selector=("pool=gpu",)), "node size")
    assert (unsaid.severity, "--node-memory" in unsaid.mend) == (Severity.WARNING, True)


def test_doctor_finds_what_the_options_name_and_is_not_there(place: Place) -> None:
    store = place.cluster.store
    store.add("persistentvolumeclaims", {"metadata": {"name": "work"}, "status": {"phase": "Pending"}})
    options = {"service_account": "nobody", "work_claim": "work", "priority_class": "none"}
    backend = place.backend(**options)
    assert found(backend, "service account").severity is Severity.ERROR
    assert found(backend, "priority class").severity is Severity.ERROR
    assert found(backend, "volume claim").severity is Severity.WARNING
    store.update("persistentvolumeclaims", {"metadata": {"name": "work"}, "status": {"phase": "Bound"}})
    assert found(backend, "volume claim").severity is Severity.OK
    place.cluster.rules = rules("role.yaml")
    assert "may not be looked at" in found(backend, "volume claim").text


def test_doctor_shows_a_quota_that_is_used_up(place: Place) -> None:
    status = {"hard": {"requests.cpu": "4", "pods": "10"}, "used": {"requests.cpu": "4000m", "pods": "3"}}
    place.cluster.store.add("resourcequotas", {"metadata": {"name": "team"}, "status": status})
    finding = found(place.backend(), "quota team")
    assert (finding.severity, finding.text) == (Severity.WARNING, "requests.cpu: 4000m of 4 used")


def test_doctor_passes_on_what_the_server_warns_of(place: Place) -> None:
    place.cluster.node.admission = lambda _pod: "violates PodSecurity restricted"
    finding = found(place.backend(), "dry run")
    assert (finding.severity, "violates PodSecurity" in finding.text) == (Severity.WARNING, True)


def test_doctor_asks_the_server_without_changing_anything(place: Place) -> None:
    place.backend(SMALL).check()
    assert place.left() == {}
    place.cluster.faults.append(Fault("create", "jobs", Say(422, "Invalid", "priorityClassName: not found")))
    wrong = found(place.backend(), "dry run")
    assert (wrong.severity, "priorityClassName: not found" in wrong.text) == (Severity.ERROR, True)
    assert found(place.backend(namespace="nowhere"), "dry run").severity is Severity.ERROR
