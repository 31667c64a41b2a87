"""Ways to run a job that a worker may or may not know: promised by nobody, learned from the first that comes."""

from dataclasses import replace

from tests.unit.policy.worlds import ONE_CPU, SHAPE, group, launched, pool, ready, snapshot
from worker.protocol import ANYTHING, Shape, fits
from worker_manager.policy.plan import plan as decide

ASKS = Shape(can=("sandbox",))


def test_a_worker_that_does_not_know_a_way_is_not_given_the_job() -> None:
    (misfit,) = fits(ASKS, Shape(can=("docker",)))
    assert str(misfit) == "can: job asks sandbox, worker has docker"
    assert fits(ASKS, Shape())
    assert not fits(ASKS, Shape(can=("docker", "sandbox")))
    assert not fits(Shape(), Shape())


def test_one_that_is_not_there_yet_may_know_any() -> None:
    assert not fits(ASKS, Shape(can=(ANYTHING,)))


def test_it_travels() -> None:
    shape = Shape(can=("b", "a"))
    assert Shape.from_wire(shape.to_wire()) == replace(shape, can=("a", "b"))


def test_a_pool_is_tried_once_and_then_known_not_to_serve() -> None:
    promise = replace(SHAPE, can=(ANYTHING,))
    asks = replace(ONE_CPU, can=("sandbox",))
    first = decide(snapshot([group(asks=asks)], pools=[pool(shape=promise)]))
    assert launched(first) == 1
    came = ready(shape=replace(SHAPE, can=("docker",)))
    second = decide(snapshot([group(asks=asks)], [came], [pool(shape=promise)], first.notes))
    assert launched(second) == 0
    (verdict,) = second.verdicts
    assert (verdict.status, verdict.reason.text) == ("never", "job asks sandbox, worker can docker")
    after_it_left = decide(snapshot([group(asks=asks)], pools=[pool(shape=promise)], notes=second.notes))
    assert launched(after_it_left) == 0
    knows = ready(shape=replace(SHAPE, can=("sandbox",)))
    assert decide(snapshot([group(asks=asks)], [knows], [pool(shape=promise)])).verdicts[0].status == "served"


def test_what_neighbours_on_its_machine_hold_is_not_learned_as_lacking() -> None:
    """A worker that shares its machine has what is left of it now; the next one may have all."""
    asks = replace(SHAPE, can=())
    came = ready(shape=replace(SHAPE, cpus=0, memory=0, machine="m1"))
    decided = decide(snapshot([group(asks=asks)], [came], [pool(shape=SHAPE)]))
    (verdict,) = decided.verdicts
    assert verdict.status != "never"
    assert decided.notes == decide(snapshot([group(asks=asks)], pools=[pool(shape=SHAPE)])).notes
