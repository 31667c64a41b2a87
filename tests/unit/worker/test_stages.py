"""Jobs with files between the agent and its keeper: whatever happens in whatever order, each ends exactly once, and
nothing is left with the stager or on the disk."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from worker.happened import Ended, Event, Started
from worker.keeper.filling import ALWAYS, NEVER, ON_SUCCESS
from worker.protocol import Shape
from worker.runner import KeeperDied
from worker.stages import filejob
from worker.stages.layer import MOST_DEATHS, Stages
from worker.stages.stagehand import StagerDied
from worker.stages.stagernews import Cached, NoMoreFiles, Noted, Progress
from worker.staging import messages

Key = tuple[str, int]
INPUT = {"to": "in", "source": "https://example.org/in"}
OUTPUT = {"glob": "out/*", "to": "hub"}


class FakeKeeper:
    """The runner's contract, with a keeper that does what the test says."""

    def __init__(self) -> None:
        self.queued: dict[Key, Any] = {}
        self.begun: dict[Key, Any] = {}
        self.files: dict[Key, Any] = {}
        self.events: list[Event] = []
        self.kept: set[str] = set()
        self.misfits: set[Key] = set()
        self.dead = False
        self.hand_back: Any = None

    def start(self, assignments: Sequence[Any], files: Any = None) -> None:
        for each in assignments:
            key = (each["job"], each["epoch"])
            assert key not in self.queued and key not in self.begun
            self.queued[key] = each
            self.files[key] = (files or {}).get(key)
            if key in self.misfits:
                self.end(key, "returned", reason="does-not-fit")

    def why_not(self, assignment: Any) -> str:
        return "too big" if (assignment["job"], assignment["epoch"]) in self.misfits else ""

    def end(self, key: Key, outcome: str, reason: str = "", lost: bool = False) -> None:
        ran = self.begun.pop(key, None) is not None
        self.queued.pop(key, None)
        when = self.files[key][2] if self.files[key] else NEVER
        wanted = ran and ((when == ALWAYS and outcome == "failed") or (when != NEVER and outcome == "succeeded"))
        kept = f"/kept/{key[0]}" if wanted and not lost else ""
        if kept:
            self.kept.add(kept)
        self.events.append(Ended(result_of(key, outcome, reason), kept))

    def begin(self, key: Key) -> None:
        self.begun[key] = self.queued.pop(key)
        self.events.append(Started(*key, 1))

    def cancel(self, job: str, epoch: int, reason: str, text: str, grace_ms: Any, outcome: str) -> None:
        if (job, epoch) in {**self.queued, **self.begun}:
            self.end((job, epoch), outcome, reason)

    def recall(self, attempts: Sequence[Key]) -> None:
        for key in attempts:
            if key in self.queued:
                self.end(key, "returned", "recalled")

    def resize(self, has: Shape) -> None:
        self.recall([key for key in self.queued if key in self.misfits])

    def stop(self, grace_ms: int, reason: str, text: str, outcome: str) -> None:
        for key in [*self.queued, *self.begun]:
            self.end(key, outcome, reason)

    def hand_back_by(self, *told: Any) -> None:
        self.hand_back = told

    def discard(self, kept: Sequence[str]) -> None:
        for each in kept:
            self.kept.remove(each)

    def read(self) -> list[Event]:
        events, self.events = self.events, []
        if self.dead and not events:
            raise KeeperDied("it is dead")
        return events

    def running(self) -> dict[Key, str]:
        unread = [event.result for event in self.events if isinstance(event, Ended)]
        ends = {(each["job"], each["epoch"]): "running" for each in unread}
        return {**dict.fromkeys(self.queued, "queued"), **dict.fromkeys(self.begun, "running"), **ends}

    def flush(self) -> bool:
        return True


class FakeStager:
    """The handle on a stager that does what the test says."""

    def __init__(self) -> None:
        self.pid = 0
        self.asked: dict[Key, Any] = {}
        self.named: set[Key] = set()  # those that need a `drop`
        self.said: list[Any] = []
        self.cannot_begin = False
        self.failed = False
        self.begun = 0

    def begin(self, held: Callable[[], Sequence[Key]]) -> None:
        if self.pid:
            return
        if self.cannot_begin:
            self.failed = True
            return
        self.begun += 1
        self.pid = 100 + self.begun
        self.named = set(held())

    def tell(self, message: Any, held: Callable[[], Sequence[Key]] = list) -> None:
        self.begin(held)
        if not self.pid:
            return
        name, *words = message
        key = (words[0], words[1])
        if name == "drop":
            self.named.discard(key)
            self.asked.pop(key, None)
        else:
            assert key not in self.asked, "asked twice"
            self.named.add(key)
            self.asked[key] = message

    def die(self) -> None:
        self.pid, self.said = 0, []
        self.asked.clear()
        self.named.clear()
        self.failed = True

    def read(self) -> list[Any]:
        if self.failed:
            self.failed = False
            raise StagerDied("it is dead")
        said, self.said = self.said, []
        return said

    def fileno(self) -> int:
        return -1

    def flush(self) -> bool:
        return True


def result_of(key: Key, outcome: str, reason: str = "") -> Any:
    return {"job": key[0], "epoch": key[1], "outcome": outcome, "reason": reason, "text": "", "started_ms": 1}


def job(name: str, inputs: bool = False, outputs: bool = False, always: bool = False, **more: Any) -> Any:
    work: dict[str, Any] = {}
    if inputs:
        work["inputs"] = [INPUT]
    if outputs:
        work["outputs"] = [{**OUTPUT, "always": always}]
    return {"job": name, "epoch": 1, "owner": "ann", "command": ["true"], "work": work, **more}


class Everything(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.keeper, self.stager = FakeKeeper(), FakeStager()
        self.now = 0
        self.stages = Stages(self.keeper, self.stager, clock=lambda: self.now)  # type: ignore[arg-type]
        self.given: dict[Key, Any] = {}
        self.ends: dict[Key, Any] = {}
        self.started: set[Key] = set()
        self.count = 0
        self.no_more = 0
        self.could_not_begin = False

    # ------------------------------------------------------------ the agent

    @rule(target=jobs, inputs=st.booleans(), outputs=st.booleans(), always=st.booleans(), fits=st.booleans())
    def start(self, inputs: bool, outputs: bool, always: bool, fits: bool) -> Any:
        self.count += 1
        one = job(f"j{self.count}", inputs, outputs, always)
        key = (one["job"], 1)
        if not fits and self.count % 3 == 0:
            self.keeper.misfits.add(key)
        self.given[key] = one
        self.stages.start([one])
        return key

    @rule(key=jobs)
    def start_again(self, key: Key) -> None:
        """A poll that comes twice; the state lets none through that has ended, and the runner none that it has."""
        if key in self.stages.running() and self.given[key]["work"] and key not in self.keeper.running():
            before = dict(self.stager.asked)
            self.stages.start([self.given[key]] if key not in self.ended_unread else [])
            assert self.stager.asked == before

    @property
    def ended_unread(self) -> set[Key]:
        events = [event.result for event in self.stages._events if isinstance(event, Ended)]
        return {(each["job"], each["epoch"]) for each in events}

    @rule(key=jobs, outcome=st.sampled_from(["cancelled", "returned", "failed"]))
    def cancel(self, key: Key, outcome: str) -> None:
        self.stages.cancel(*key, "told", "to", None, outcome)

    @rule(key=jobs)
    def recall(self, key: Key) -> None:
        self.stages.recall([key])

    @rule(key=jobs)
    def it_fits_no_more(self, key: Key) -> None:
        if key not in self.keeper.queued:
            self.keeper.misfits.add(key)
            self.stages.resize(Shape())

    @rule(grace_ms=st.sampled_from([0, 1000]))
    @precondition(lambda self: self.count > 4)
    def stop(self, grace_ms: int) -> None:
        self.stages.stop(grace_ms, "stop", "all of it")

    @rule(ms=st.sampled_from([1, 1000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule()
    def read(self) -> None:
        for aside in self.stages.read_stager():
            self.no_more += isinstance(aside, NoMoreFiles)
        for event in self.stages.read():
            key = event_key(event)
            if isinstance(event, Started):
                assert key not in self.ends and key not in self.started
                self.started.add(key)
            elif isinstance(event, Ended):
                assert key not in self.ends, "two ends"
                self.ends[key] = event.result

    # ------------------------------------------------------------ the keeper

    @rule(data=st.data())
    def keeper_begins(self, data: Any) -> None:
        if self.keeper.queued:
            key = data.draw(st.sampled_from(sorted(self.keeper.queued)))
            if self.given[key]["work"].get("inputs"):
                assert self.keeper.files[key][0] == f"/staged/{key[0]}", "without its inputs"
            self.keeper.begin(key)

    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed"]), lost=st.booleans())
    def keeper_ends(self, data: Any, outcome: str, lost: bool) -> None:
        if self.keeper.begun:
            self.keeper.end(data.draw(st.sampled_from(sorted(self.keeper.begun))), outcome, lost=lost)

    @rule(key=jobs)
    def it_goes_a_step_further(self, key: Key) -> None:
        """Else few would ever get to their end."""
        self.read()
        asked = self.stager.asked.pop(key, (None,))
        if asked[0] == "stage":
            self.stager.said.append(messages.Staged(*key, f"/staged/{key[0]}", ["/cache/in"], {}))
        elif asked[0] == "collect":
            self.stager.said.append(messages.Collected(*key, [], {}))
        elif key in self.keeper.queued:
            self.keeper.begin(key)
        elif key in self.keeper.begun:
            self.keeper.end(key, "succeeded")
        self.read()

    # ------------------------------------------------------------ the stager

    @rule(data=st.data(), well=st.booleans(), outcome=st.sampled_from(["returned", "failed"]), late=st.booleans())
    def stager_answers(self, data: Any, well: bool, outcome: str, late: bool) -> None:
        if not self.stager.asked:
            return
        key = data.draw(st.sampled_from(sorted(self.stager.asked)))
        kind = self.stager.asked.pop(key)[0]
        said: Any
        if kind == "stage":
            said = messages.Staged(*key, f"/staged/{key[0]}", ["/cache/in"], {}) if well else None
            said = said or messages.NotStaged(*key, outcome, "staging-failed", "no")
        elif well:
            said = messages.Collected(*key, [{"path": "out/1", "size": 1, "at": "blob:1"}], {})
        else:
            said = messages.NotCollected(*key, outcome, "staging-failed", "no", [])
        self.stager.said.append(said)
        if not late:
            self.read()

    @rule(key=jobs, phase=st.sampled_from(["staging", "collecting"]))
    def stager_tells(self, key: Key, phase: str) -> None:
        self.stager.said += [messages.Progress(*key, phase, 1, None), messages.Cache({}), messages.Note("x")]

    @rule()
    @precondition(lambda self: self.stager.pid)
    def stager_dies(self) -> None:
        self.stager.die()

    @rule(whether=st.booleans())
    def stager_cannot_begin(self, whether: bool) -> None:
        self.stager.cannot_begin = whether
        self.could_not_begin = self.could_not_begin or whether

    # ------------------------------------------------------------ what always holds

    @invariant()
    def each_has_ended_or_goes_on(self) -> None:
        held = set(self.stages.running())
        assert held == set(self.given) - set(self.ends), "lost, or held after its end"

    @invariant()
    def what_is_kept_belongs_to_somebody(self) -> None:
        unread = {event.kept for event in self.keeper.events if isinstance(event, Ended) and event.kept}
        collected = {one.kept for one in self.stages._jobs.values() if one.kept}
        assert self.keeper.kept == unread | collected

    @invariant()
    def the_stager_holds_for_those_that_go_on_only(self) -> None:
        assert self.stager.named <= set(self.stages._jobs), "no drop came"

    @invariant()
    def inputs_in_use_are_held(self) -> None:
        if not (self.stager.failed or self.could_not_begin or self.no_more):
            using = {key for key, one in self.stages._jobs.items() if one.inputs and one.phase == filejob.HANDED}
            fit = {key for key in using if self.stages._jobs[key].visible}
            assert fit <= self.stager.named

    def teardown(self) -> None:
        self.stages.stop(0, "stop", "at last")
        for _ in range(3):
            self.read()
        assert set(self.ends) == set(self.given)
        assert not self.keeper.kept and not self.stager.named
        assert self.no_more <= 1
        for key, result in self.ends.items():
            if result.get("files"):
                assert self.given[key]["work"]["outputs"] and key in self.started


def event_key(event: Any) -> Key:
    if isinstance(event, Ended):
        return event.result["job"], event.result["epoch"]
    return event.job, event.epoch


TestEverything = Everything.TestCase
TestEverything.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# ---------------------------------------------------------------- one after the other


@pytest.fixture
def keeper() -> FakeKeeper:
    return FakeKeeper()


@pytest.fixture
def stager() -> FakeStager:
    return FakeStager()


@pytest.fixture
def stages(keeper: FakeKeeper, stager: FakeStager) -> Stages:
    return Stages(keeper, stager, lambda _: (7, 7), clock=lambda: 1000)  # type: ignore[arg-type]


def ends(stages: Stages) -> list[Any]:
    return [event.result for event in stages.read() if isinstance(event, Ended)]


def test_a_plain_job_needs_no_stager(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    stages.start([job("a"), {**job("b"), "work": None}])
    assert set(keeper.queued) == {("a", 1), ("b", 1)} and stager.begun == 0
    assert keeper.files == {("a", 1): None, ("b", 1): None}


def test_inputs_come_first_and_the_keeper_learns_where_they_are(
    stages: Stages, keeper: FakeKeeper, stager: FakeStager
) -> None:
    stages.start([job("a", inputs=True), job("b")])
    assert stager.asked["a", 1] == ("stage", "a", 1, "ann", [INPUT], (7, 7))
    assert set(keeper.queued) == {("b", 1)}
    assert stages.phases() == {("a", 1): "staging"} and stages.running()["a", 1] == "queued"
    stager.said = [messages.Progress("a", 1, "staging", 5, 10), messages.Staged("a", 1, "/s/a", ["/cache/x"], {})]
    assert stages.read_stager() == [Progress("a", 1, "staging", 5, 10)]
    assert keeper.files["a", 1] == ("/s/a", ("/cache/x",), NEVER)


@pytest.mark.parametrize(("outputs", "when"), [([], NEVER), ([OUTPUT], ON_SUCCESS),
                                               ([OUTPUT, {**OUTPUT, "always": True}], ALWAYS)])  # fmt: skip
def test_when_a_directory_is_set_aside(outputs: list[Any], when: int) -> None:
    assert filejob.when_kept(outputs) == when


def test_the_end_is_told_when_the_outputs_are_kept(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    stages.start([job("a", outputs=True)])
    assert stager.begun == 0, "not before there is something to do"
    keeper.begin(("a", 1))
    keeper.end(("a", 1), "succeeded")
    assert ends(stages) == []
    assert stages.running() == {("a", 1): "running"} and stages.phases() == {("a", 1): "collecting"}
    assert stager.asked["a", 1] == ("collect", "a", 1, "ann", "/kept/a", [{**OUTPUT, "always": False}], True)
    stager.said = [messages.Collected("a", 1, [{"path": "out/1"}], {})]
    stages.read_stager()
    assert stages.has_news
    (result,) = ends(stages)
    assert (result["outcome"], result["files"]) == ("succeeded", [{"path": "out/1"}])
    assert not keeper.kept


def test_a_failed_job_stays_failed_whatever_becomes_of_its_outputs(
    stages: Stages, keeper: FakeKeeper, stager: FakeStager
) -> None:
    stages.start([job("a", outputs=True, always=True)])
    keeper.begin(("a", 1))
    keeper.end(("a", 1), "failed", "exit")
    stages.read()
    assert stager.asked["a", 1][-1] is False
    stager.said = [messages.NotCollected("a", 1, "returned", "staging-failed", "no hub", [{"path": "log"}])]
    stages.read_stager()
    (result,) = ends(stages)
    assert (result["outcome"], result["reason"], result["files"]) == ("failed", "exit", [{"path": "log"}])


def test_a_directory_that_is_gone_is_no_success(stages: Stages, keeper: FakeKeeper) -> None:
    stages.start([job("a", outputs=True)])
    keeper.begin(("a", 1))
    keeper.end(("a", 1), "succeeded", lost=True)
    (result,) = ends(stages)
    assert (result["outcome"], result["reason"]) == ("failed", "output-missing")


def test_a_cancel_while_collecting_keeps_what_the_process_did(stages: Stages, keeper: FakeKeeper) -> None:
    stages.start([job("a", outputs=True)])
    keeper.begin(("a", 1))
    keeper.end(("a", 1), "succeeded")
    stages.read()
    stages.cancel("a", 1, "cancelled", "by ann")
    (result,) = ends(stages)
    assert (result["outcome"], result["text"], result["started_ms"]) == ("cancelled", "by ann", 1)


def test_a_cancel_that_crosses_the_end_counts(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    stages.start([job("a", outputs=True)])
    keeper.begin(("a", 1))
    keeper.end(("a", 1), "succeeded")
    stages.cancel("a", 1, "cancelled", "by ann")
    assert [each["outcome"] for each in ends(stages)] == ["cancelled"]
    assert stager.begun == 0 and not keeper.kept


def test_what_is_sent_has_the_grace_of_a_stop(keeper: FakeKeeper, stager: FakeStager) -> None:
    now = [1000]
    stages = Stages(keeper, stager, clock=lambda: now[0])  # type: ignore[arg-type]
    stages.start([job(name, outputs=True) for name in ("sent", "late", "after")])
    for name in ("sent", "late", "after"):
        keeper.begin((name, 1))
    keeper.end(("sent", 1), "succeeded")
    keeper.end(("late", 1), "succeeded")
    stages.read()
    keeper.end(("after", 1), "succeeded")  # not read yet
    stages.stop(5000, "drained", "its worker goes")
    assert ends(stages) == [] and stages.due_in() == 5000
    now[0] += 4000
    stager.said = [messages.Collected("sent", 1, [{"path": "x"}], {})]
    stages.read_stager()
    assert [(each["job"], each["outcome"]) for each in ends(stages)] == [("sent", "succeeded")]
    now[0] += 1000
    assert stages.due_in() == 0 and stages.has_news
    assert [(each["job"], each["outcome"], each["reason"]) for each in ends(stages)] == [
        ("late", "returned", "drained"), ("after", "returned", "drained")]  # fmt: skip
    assert stages.due_in() is None and not keeper.kept


def test_a_stager_that_dies_is_begun_again_for_what_is_in_use(
    stages: Stages, keeper: FakeKeeper, stager: FakeStager
) -> None:
    stages.start([job("uses", inputs=True), job("sends", outputs=True), job("waits", inputs=True)])
    stager.said = [messages.Staged("uses", 1, "/s/uses", ["/cache/x"], {})]
    stages.read_stager()
    keeper.begin(("uses", 1))
    keeper.begin(("sends", 1))
    keeper.end(("sends", 1), "succeeded")
    stages.read()
    stager.die()
    assert stages.has_news
    assert stages.read_stager() == [Noted("stager-died", "it is dead")]
    (result,) = ends(stages)
    assert (result["job"], result["outcome"], result["reason"]) == ("waits", "returned", "stager-died")
    assert stager.pid and stager.named == {("uses", 1), ("sends", 1)}
    assert stager.asked["sends", 1][0] == "collect"


def test_a_stager_that_dies_again_and_again_is_given_up(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    stages.start([job("sends", outputs=True)])
    keeper.begin(("sends", 1))
    keeper.end(("sends", 1), "succeeded")
    stages.read()
    told = []
    for _ in range(MOST_DEATHS):
        assert stages.running() == {("sends", 1): "running"}
        stager.die()
        told += stages.read_stager()
    assert told[-1] == NoMoreFiles("it is dead")
    (result,) = ends(stages)
    assert (result["outcome"], result["reason"]) == ("returned", "stager-died")
    stages.start([job("late", inputs=True)])
    (result,) = ends(stages)
    assert (result["outcome"], result["reason"], stager.pid) == ("returned", "stager-died", 0)


def test_what_ran_already_may_try_a_stager_that_was_given_up(
    stages: Stages, keeper: FakeKeeper, stager: FakeStager
) -> None:
    stages.start([job("runs", outputs=True)])
    keeper.begin(("runs", 1))
    for number in range(MOST_DEATHS):
        stages.start([job(f"a{number}", inputs=True)])
        stager.die()
        stages.read_stager()
    assert {each["reason"] for each in ends(stages)} == {"stager-died"}
    keeper.end(("runs", 1), "succeeded")
    stages.read()
    stager.said = [messages.Collected("runs", 1, [], {})]
    assert stages.read_stager() == []
    assert [each["outcome"] for each in ends(stages)] == ["succeeded"]
    stages.start([job("late", outputs=True)])
    assert [each["reason"] for each in ends(stages)] == ["stager-died"]


def test_one_that_came_through_forgives_earlier_deaths(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    for number in range(2 * MOST_DEATHS):
        stages.start([job(f"a{number}", inputs=True)])
        stager.said = [messages.Staged(f"a{number}", 1, "/s/a", [], {})]
        told = stages.read_stager()
        stager.die()
        told += stages.read_stager()
        assert not any(isinstance(each, NoMoreFiles) for each in told)


def test_what_cannot_end_here_any_more_is_not_begun(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    stages.hand_back_by(500_000, "walltime", "")
    stages.start([job("long", inputs=True, time_limit_ms=3_600_000), job("short", inputs=True, time_limit_ms=60_000)])
    stager.said = [messages.Staged("long", 1, "/s/long", [], {}), messages.Staged("short", 1, "/s/short", [], {})]
    stages.read_stager()
    assert [(each["job"], each["reason"]) for each in ends(stages)] == [("long", "walltime")]
    assert set(keeper.queued) == {("short", 1)}


def test_what_does_not_fit_is_not_fetched(stages: Stages, keeper: FakeKeeper, stager: FakeStager) -> None:
    keeper.misfits.add(("a", 1))
    stages.start([job("a", inputs=True)])
    assert stager.begun == 0
    assert [each["reason"] for each in ends(stages)] == ["does-not-fit"]


def test_the_death_of_the_keeper_is_told_after_the_ends(stages: Stages, keeper: FakeKeeper) -> None:
    stages.start([job("a", inputs=True)])
    stages.recall([("a", 1)])
    keeper.dead = True
    assert [each["reason"] for each in ends(stages)] == ["recalled"]
    with pytest.raises(KeeperDied):
        stages.read()


def test_no_user_for_a_job_is_the_workers_fault(keeper: FakeKeeper, stager: FakeStager) -> None:
    def user_of(_: Any) -> Any:
        raise OSError("the list is full")

    stages = Stages(keeper, stager, user_of)  # type: ignore[arg-type]
    stages.start([job("a", inputs=True)])
    assert [(each["outcome"], each["reason"]) for each in ends(stages)] == [("returned", "start-failed")]


def test_news_of_the_cache_pass(stages: Stages, stager: FakeStager) -> None:
    stages.start([job("a", inputs=True)])
    stager.said = [messages.Cache({"all": True, "added": []}), messages.Note("the disk is slow")]
    assert stages.read_stager() == [Cached({"all": True, "added": []}), Noted("stager", "the disk is slow")]


@pytest.mark.parametrize("to", ["", "/etc", "..", "a/../b", "a//b", "./a", "a\0b", "x" * 5000, None, 3])
def test_paths_that_lead_out_are_refused(to: Any) -> None:
    assert not filejob.are_inputs([{**INPUT, "to": to}])
    assert not filejob.are_outputs([{**OUTPUT, "glob": to}])


def test_what_makes_sense_is_taken() -> None:
    assert filejob.are_inputs([INPUT, {"to": "d/e", "source": "blob:" + "0" * 64, "unpack": True, "size": 4}])
    assert filejob.are_outputs(
        [OUTPUT, {"glob": "**/*.txt", "to": "s3://b/p/", "required": True}, {**OUTPUT, "glob": "d/"}]
    )
    for wrong in (None, {}, ["x"], [{**INPUT, "size": -1}], [{**INPUT, "copy": "yes"}], [{**INPUT, "source": ""}]):
        assert not filejob.are_inputs(wrong)
