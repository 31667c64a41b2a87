"""Which queued attempt starts next."""

from worker.keeper.packing import PATIENCE_MS, Queue, Room

ONE = (("cpus", 1000),)
FOUR = (("cpus", 4000),)


def queue(cpus: int = 2000) -> tuple[Queue, Room]:
    room = Room((("cpus", cpus),), [])
    return Queue(room), room


def started(queue: Queue, room: Room, asks: tuple[tuple[str, int], ...], now: int = 0) -> object:
    item = queue.next(now)
    if item is not None:
        room.take(asks)
    return item


def test_the_oldest_starts_first_until_nothing_fits() -> None:
    waiting, room = queue(2000)
    for name in "abc":
        waiting.put(name, ONE, 0)
    assert [started(waiting, room, ONE) for _ in range(3)] == ["a", "b", None]
    assert len(waiting) == 1
    room.give_back(ONE, [])
    assert started(waiting, room, ONE) == "c"
    assert len(waiting) == 0
    assert started(waiting, room, ONE) is None


def test_a_small_one_overtakes_until_the_first_has_waited_long_enough() -> None:
    waiting, room = queue(4000)
    room.take(ONE)
    waiting.put("big", FOUR, 0)
    for name in ("small", "smaller"):
        waiting.put(name, ONE, 0)
    assert started(waiting, room, ONE, PATIENCE_MS) == "small"
    assert started(waiting, room, ONE, PATIENCE_MS + 1) is None
    room.give_back(ONE, [])
    room.give_back(ONE, [])
    assert started(waiting, room, FOUR, PATIENCE_MS + 1) == "big"


def test_age_decides_between_those_that_ask_differently() -> None:
    waiting, _ = queue(8000)
    waiting.put("a", FOUR, 0)
    waiting.put("b", ONE, 0)
    waiting.put("c", FOUR, 0)
    assert [waiting.next(0) for _ in range(3)] == ["a", "b", "c"]


def test_what_could_not_start_after_all_is_next_again() -> None:
    waiting, _ = queue()
    waiting.put("a", ONE, 0)
    waiting.put("b", ONE, 0)
    waiting.put_back(waiting.next(0), ONE, 0)
    assert [waiting.next(0), waiting.next(0)] == ["a", "b"]


def test_what_is_removed_does_not_start() -> None:
    waiting, _ = queue()
    waiting.put("a", ONE, 0)
    waiting.put("b", ONE, 0)
    waiting.remove("a", ONE)
    assert len(waiting) == 1
    assert [waiting.next(0), waiting.next(0)] == ["b", None]


def test_everything_asked_must_fit() -> None:
    room = Room((("cpus", 4000), ("custom:license", 1), ("memory", 100)), [])
    assert room.fits((("cpus", 4000), ("memory", 100)))
    assert not room.fits((("cpus", 4000), ("memory", 101)))
    assert not room.fits((("gpus", 1),)), "what it does not have is none"
    room.take((("custom:license", 1),))
    assert not room.fits((("custom:license", 1),))


def test_without_bounds_everything_fits_and_is_still_counted() -> None:
    room = Room(None, [])
    assert room.fits((("cpus", 10**9),))
    room.take(ONE)
    room.resize((("cpus", 1000),))
    assert not room.fits(ONE)
    room.give_back(ONE, [])
    assert room.fits(ONE)


def test_gpus_go_out_and_come_back_each_once() -> None:
    room = Room((("cpus", 8000), ("gpus", 3)), ["x", "y", "z"])
    first = room.take((("gpus", 2),))
    second = room.take((("gpus", 1),))
    assert sorted(first + second) == ["x", "y", "z"]
    assert room.take(ONE) == []
    room.give_back((("gpus", 2),), first)
    assert room.take((("gpus", 2),)) == first
