"""The real store against a model of it: a dictionary of jobs, each with its state, epoch and worker.

The model does not know who gets which job: it looks at what the store gave out, checks that it was allowed to, and
from then on holds the store to it.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tests.unit.hub.store.house import House, after, job
from worker_manager.hub.contract import CordonOrder

FINAL = ("succeeded", "failed", "cancelled")


@dataclass
class Task:
    """What the model knows of one job, or of one task of an array."""

    retries: int
    state: str = "queued"
    epoch: int = 0
    worker: str | None = None
    tries: int = 0
    losses: int = 0
    cancelling: bool = False
    needs: str | None = None
    needs_success: bool = True

    def over(self, state: str) -> None:
        self.state = state

    def fail(self) -> None:
        if self.cancelling:
            self.over("cancelled")
        elif self.tries < self.retries:
            self.tries += 1
            self.back()
        else:
            self.over("failed")

    def lose(self, counts: bool = True) -> None:
        if self.cancelling:
            self.over("cancelled")
            return
        self.losses += counts
        if counts and self.losses >= 5:
            self.over("failed")
        else:
            self.back()

    def back(self) -> None:
        self.state, self.worker = "queued", None


@dataclass
class Machine:
    cpus: int
    session_alive: bool = True
    state: str = "ready"
    seen: int = 0
    cordoned_by: str | None = None
    last: tuple[int, Any, Any] | None = None  # the last report: seq, message, answer


class StoreMachine(RuleBasedStateMachine):
    submitted = Bundle("submitted")
    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="wm-model-"))
        self.house = House(self.place)
        self.tasks: dict[str, Task] = {}
        self.arrays: dict[str, int] = {}
        self.machines: dict[str, Machine] = {}
        self.booted = self.house.clock.now_ms()
        self.keys: dict[str, tuple[list[str], Any]] = {}

    def teardown(self) -> None:
        failures = self.house.store.feed_failures
        self.house.store.close()
        shutil.rmtree(self.place)
        assert failures == 0

    # ------------------------------------------------------------ clients

    @rule(target=submitted, count=st.integers(1, 3), retries=st.integers(0, 2), priority=st.integers(-1, 1))
    def submit(self, count: int, retries: int, priority: int) -> Any:
        names = self.house.submit(*[job(retries=retries, priority=priority) for _ in range(count)])
        for name in names:
            self.tasks[name] = Task(retries)
        self.look()
        return multiple(*names)

    @rule(target=submitted, count=st.integers(1, 5), retries=st.integers(0, 1))
    def submit_array(self, count: int, retries: int) -> str:
        (name,) = self.house.submit(job(array=count, retries=retries))
        self.arrays[name] = count
        for index in range(count):
            self.tasks[f"{name}-{index}"] = Task(retries)
        self.look()
        return name

    @rule(target=submitted, needed=submitted, success=st.booleans())
    def submit_dependent(self, needed: str, success: bool) -> str:
        (name,) = self.house.submit(job(depends_on=after(needed, needs="success" if success else "end")))
        self.tasks[name] = Task(0, state="blocked", needs=needed, needs_success=success)
        self.settle_dependents()
        self.look()
        return name

    @rule(key=st.sampled_from("abc"), count=st.integers(1, 2))
    def submit_with_a_key(self, key: str, count: int) -> None:
        jobs = [job() for _ in range(count)]
        if key not in self.keys:
            self.keys[key] = (self.house.submit(*jobs, key=key, request_sha256=str(count)), count)
            for name in self.keys[key][0]:
                self.tasks[name] = Task(0)
        elif self.keys[key][1] == count:
            assert self.house.submit(*jobs, key=key, request_sha256=str(count)) == self.keys[key][0]
        self.look()

    @rule(name=submitted)
    def cancel(self, name: str) -> None:
        self.house.store.cancel_job(name, None, "op").result()
        for task in self.tasks_of(name):
            if task.state in ("blocked", "queued"):
                task.over("cancelled")
            elif task.state in ("assigned", "running"):
                task.cancelling = True
        self.settle_dependents()
        self.look()

    # ------------------------------------------------------------ workers

    @rule(target=workers, cpus=st.integers(1, 3))
    def register(self, cpus: int) -> str:
        name = f"w{len(self.machines)}"
        first = self.house.worker(name, cpus=cpus)
        assert self.house.worker(name, cpus=cpus) == first
        self.machines[name] = Machine(cpus, seen=self.house.clock.now_ms())
        self.look()
        return name

    @rule(name=workers, acknowledge=st.booleans())
    def poll(self, name: str, acknowledge: bool) -> None:
        machine = self.machines[name]
        if machine.state == "gone":
            return
        polled = self.house.poll(name, ack=acknowledge)
        for one in polled["assign"]:
            task = self.tasks[one["job"]]
            assert (task.worker, task.epoch) == (name, one["epoch"])
        if not acknowledge:
            assert self.house.poll(name, ack=False)["assign"] == polled["assign"]
        machine.seen = self.house.clock.now_ms()

    @rule(name=workers, chosen=st.data(), outcome=st.sampled_from(["succeeded", "failed", "cancelled", "returned"]))
    def report_results(self, name: str, chosen: st.DataObject, outcome: str) -> None:
        held = self.held_by(name)
        if self.machines[name].state == "gone" or not held:
            return
        picked = chosen.draw(st.lists(st.sampled_from(held), unique=True, min_size=1))
        results = [{"job": j, "epoch": self.tasks[j].epoch, "outcome": outcome, "run_ms": 1000} for j in picked]
        self.send(name, {"results": results})
        for one in picked:
            self.ended(self.tasks[one], outcome)
        self.settle_dependents()
        self.look()

    @rule(name=workers, chosen=st.data())
    def report_started(self, name: str, chosen: st.DataObject) -> None:
        held = self.held_by(name)
        if self.machines[name].state == "gone" or not held:
            return
        picked = chosen.draw(st.sampled_from(held))
        self.send(name, {"started": [[picked, self.tasks[picked].epoch, self.house.clock.now_ms()]]})
        self.tasks[picked].state = "running"
        self.look()

    @rule(name=workers, job_name=submitted)
    def report_what_is_not_its(self, name: str, job_name: str) -> None:
        """A zombie's results: none may be taken."""
        if self.machines[name].state == "gone" or job_name in self.arrays:
            return
        task = self.tasks[job_name]
        epoch = task.epoch if task.worker != name or task.state in FINAL else task.epoch - 1
        result = {"job": job_name, "epoch": epoch, "outcome": "succeeded"}
        answer = self.send(name, {"results": [result]})
        assert answer["stale"] == [[job_name, epoch]]
        self.look()

    @rule(name=workers)
    def repeat_the_last_report(self, name: str) -> None:
        machine = self.machines[name]
        if machine.last is None or machine.state in ("gone", "lost"):
            return
        seq, message, answer = machine.last
        again = self.house.again(name, seq, **message)
        assert (again["ack"], again["stale"]) == (answer["ack"], answer["stale"])

    @rule(name=workers)
    def leave(self, name: str) -> None:
        if self.machines[name].state == "gone":
            return
        held = self.held_by(name)
        self.send(name, {"leaving": "told to"})
        self.machines[name].state = "gone"
        for one in held:
            self.tasks[one].lose()
        self.settle_dependents()
        self.look()

    # ------------------------------------------------------------ managers, operators, time

    @rule(name=consumes(workers))
    def declare_gone(self, name: str) -> None:
        if self.machines[name].state == "gone":
            return
        held = self.held_by(name)
        self.house.store.declare_gone("", [name], "dead").result()
        self.machines[name].state = "gone"
        for one in held:
            self.tasks[one].lose()
        self.settle_dependents()
        self.look()

    @rule(name=workers, only_if_idle=st.booleans())
    def cordon(self, name: str, only_if_idle: bool) -> None:
        machine = self.machines[name]
        idle = not self.held_by(name)
        order = CordonOrder(name, only_if_idle, {"code": "idle"}, 2**60)
        generation = self.house.store.cordon("m", [order]).result()[name]
        assert (generation is not None) == (machine.state != "gone" and (idle or not only_if_idle))
        if generation is not None:
            machine.cordoned_by = "m"
            if machine.state == "ready":
                machine.state = "draining"
        self.look()

    @rule(name=workers)
    def uncordon(self, name: str) -> None:
        machine = self.machines[name]
        self.house.store.uncordon("m", [name]).result()
        if machine.state != "gone":
            machine.cordoned_by = None
            machine.state = "ready" if machine.state == "draining" else machine.state
        self.look()

    @rule(ms=st.sampled_from([100, 5_000, 20_000, 61_000]))
    def time_passes(self, ms: int) -> None:
        self.house.clock.advance(ms)

    @rule()
    def sweep(self) -> None:
        now, lease = self.house.clock.now_ms(), self.house.settings.lease_ms
        found = set(self.house.store.sweep().result().lost)
        silent = {
            name
            for name, m in self.machines.items()
            if m.state in ("ready", "draining") and m.seen < now - lease and now - self.booted >= lease
        }
        assert silent == found
        for name in found:
            for one in self.held_by(name):
                self.tasks[one].lose()
            self.machines[name].state = "lost"
        self.settle_dependents()
        self.look()

    @rule()
    def restart(self) -> None:
        self.house.restart()
        self.booted = self.house.clock.now_ms()
        self.look()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def counters_add_up(self) -> None:
        expected = dict.fromkeys(("blocked", "queued", "assigned", "running", *FINAL), 0)
        for task in self.tasks.values():
            expected[task.state] += 1
        assert self.house.store.info()["jobs"] == expected
        assert sum(self.house.group_counts()) == expected["queued"] + expected["assigned"]

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        for name, task in self.tasks.items():
            shown = self.house.store.get_job(name)
            assert (name, shown["state"]) == (name, task.state)
            if task.state in ("assigned", "running"):
                assert (shown["worker"], shown["attempt"]) == (task.worker, task.epoch)
        for name, count in self.arrays.items():
            array = self.house.store.get_job(name)["array"]
            states = [self.tasks[f"{name}-{i}"].state for i in range(count)]
            assert {s: n for s, n in array.items() if s != "count" and n} == {s: states.count(s) for s in set(states)}

    @invariant()
    def no_worker_holds_more_than_fits_while_run_times_are_long(self) -> None:
        """Jobs here run for a second, so nothing is ever prefetched."""
        for name, machine in self.machines.items():
            assert len(self.held_by(name)) <= machine.cpus

    # ------------------------------------------------------------ the model's own

    def tasks_of(self, name: str) -> list[Task]:
        if name in self.arrays:
            return [self.tasks[f"{name}-{i}"] for i in range(self.arrays[name])]
        return [self.tasks[name]]

    def held_by(self, name: str) -> list[str]:
        return [n for n, t in self.tasks.items() if t.worker == name and t.state in ("assigned", "running")]

    def send(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        machine = self.machines[name]
        answer = self.house.report(name, **message)
        machine.last = (self.house.seqs[name], message, answer)
        machine.seen = self.house.clock.now_ms()
        if machine.state == "lost":
            machine.state = "draining" if machine.cordoned_by else "ready"
        return answer

    def ended(self, task: Task, outcome: str) -> None:
        if outcome in ("succeeded", "cancelled"):
            task.over(outcome)
        elif outcome == "failed":
            task.fail()
        else:
            task.lose(counts=task.state == "running")

    def settle_dependents(self) -> None:
        changed = True
        while changed:
            changed = False
            for task in self.tasks.values():
                if task.state != "blocked" or task.needs is None:
                    continue
                states = [needed.state for needed in self.tasks_of(task.needs)]
                if all(state in FINAL for state in states):
                    good = all(state == "succeeded" for state in states)
                    task.over("queued" if good or not task.needs_success else "cancelled")
                    changed = True

    def look(self) -> None:
        """Learn what the store gave out, and check that it might."""
        for name, machine in self.machines.items():
            shown = self.house.store.get_worker(name)
            if machine.state == "lost" and shown["state"] in ("ready", "draining"):
                machine.state = shown["state"]  # it polled, and the sweep took it back
            assert shown["state"] == machine.state
            held = set(self.held_by(name))
            for given in set(shown["jobs"]) - held:
                task = self.tasks[given]
                assert (task.state, machine.state) == ("queued", "ready")
                task.state, task.worker, task.epoch = "assigned", name, task.epoch + 1
            assert set(shown["jobs"]) == set(self.held_by(name))


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
