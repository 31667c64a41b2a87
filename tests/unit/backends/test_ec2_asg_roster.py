"""The record that joins instances with what was asked for."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import WorkerPhase
from backends.ec2_asg.group import Instance, Trouble, read_group
from backends.ec2_asg.roster import FORGET_MS, Order, Place, Record, Roster
from backends.ec2_asg.view import View, awaited, fresh, tags_due

NOW = 1_800_000_000_000


def roster(*orders: Order) -> Roster:
    return Roster(orders)


def names(count: int, begin: int = 0) -> list[str]:
    return [f"i-{number:017x}" for number in range(begin, begin + count)]


def group(desired: int, *members: str, state: str = "InService") -> object:
    return read_group(
        {
            "AutoScalingGroupName": "g",
            "AutoScalingGroupARN": "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:x:y/g",
            "DesiredCapacity": desired,
            "MinSize": 0,
            "MaxSize": 1000,
            "Instances": [{"InstanceId": name, "LifecycleState": state} for name in members],
        }
    )


def test_the_longest_waiting_place_comes_first_and_what_is_sure_before_what_is_not() -> None:
    one = roster(Order("b", 2, NOW + 1, sure=True), Order("c", 1, NOW - 5), Order("a", 1, NOW, sure=True))
    assert one.waiting() == [Place("a", 0), Place("b", 0), Place("b", 1), Place("c", 0)]


def test_who_comes_too_late_is_a_stray_for_ever() -> None:
    one = roster(Order("a", 1, NOW))
    first, second = names(2)
    one.correlate([first, second])
    one.orders["b"] = Order("b", 1, NOW + 1)
    one.correlate([first, second])
    assert one.place_of(first) == Place("a", 0)
    assert one.place_of(second) is None
    assert one.waiting() == [Place("b", 0)]


@given(
    counts=st.lists(st.integers(1, 5), max_size=6),
    arrivals=st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=8),
)
def test_an_instance_is_one_worker_and_stays_it(counts: list[int], arrivals: list[list[int]]) -> None:
    one = roster(*(Order(f"s{at}", count, NOW + at, sure=at % 2 == 0) for at, count in enumerate(counts)))
    before: dict[str, Place] = {}
    for arrival in arrivals:
        came = [f"i-{number:017x}" for number in arrival]
        one.correlate(list(dict.fromkeys(came)))
        one = Roster.from_json(json.loads(json.dumps(one.to_json())))
        places = {name: place for name in names(31) if (place := one.place_of(name))}
        assert len(set(places.values())) == len(places), "two instances are one worker"
        assert before.items() <= places.items(), "a worker has changed its instance"
        assert not one.strays & places.keys()
        assert all(one.knows(name) for name in came)
        before = places


def test_a_workers_name_is_read_strictly() -> None:
    one = roster(Order("wm-a-1", 11, NOW))
    assert one.order_of("wm-a-1-10") == (one.orders["wm-a-1"], 10)
    for wrong in ("wm-a-1-11", "wm-a-1-01", "wm-a-1", "wm-a-1--1", "wm-a-1-²", "", "-", "nobody-0"):
        assert one.order_of(wrong) is None, wrong


def test_tags_bring_back_what_was_lost() -> None:
    a, b = names(2)
    one = roster()
    one.recover([Instance(a, "running", NOW, "g", submission="s", index=2), Instance(b, "running", NOW, "g")])
    assert one.place_of(a) == Place("s", 2)
    assert one.place_of(b) is None
    assert one.waiting() == [], "nothing is awaited that nobody has asked for"
    one.recover([Instance(b, "running", NOW, "g", submission="s", index=2)])
    assert one.place_of(b) is None, "a second one with the same name is not believed"


def test_what_is_over_is_forgotten_and_what_waits_is_not() -> None:
    one = roster(Order("over", 1, NOW, instances={0: "i-1"}), Order("waits", 1, NOW))
    one.prune(set(), NOW)
    one.prune(set(), NOW + FORGET_MS)
    assert set(one.orders) == {"over", "waits"}
    one.prune(set(), NOW + FORGET_MS + 1)
    assert set(one.orders) == {"waits"}
    assert not one.knows("i-1")


def test_the_file_is_private_and_whole(tmp_path: Path) -> None:
    record = Record(tmp_path)
    with record.changing() as one:
        one.orders["s"] = Order("s", 2, NOW)
    path = tmp_path / "ec2-asg.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert record.read().waiting() == [Place("s", 0), Place("s", 1)]
    with pytest.raises(RuntimeError), record.changing() as one:
        one.orders.clear()
        raise RuntimeError
    assert set(record.read().orders) == {"s"}, "what was begun and not finished is not kept"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"orders": 3, "strays": []}', '{"orders": [{}], "strays": []}'])
def test_a_spoilt_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "ec2-asg.json").write_text(text)
    with pytest.raises(ValueError, match="is spoilt"):
        Record(tmp_path).read()


# ---------------------------------------------------------------- what is seen


def test_one_that_died_before_it_was_seen_takes_its_place() -> None:
    one = roster(Order("s", 1, NOW, sure=True))
    (died,) = names(1)
    instances = [
        Instance(died, "terminated", NOW + 5000, "g"),
        Instance("i-before", "terminated", NOW - 10 * 60_000, "g"),
        Instance("i-elsewhere", "terminated", NOW + 5000, "another"),
        Instance("i-stranger", "running", NOW + 5000, "g"),
    ]
    assert fresh(group(1), instances, one) == [died]  # type: ignore[arg-type]


def test_older_instances_come_first_and_names_decide_among_equals() -> None:
    a, b, c = names(3)
    instances = [Instance(c, "running", 1), Instance(b, "running", 2), Instance(a, "running", 2)]
    one = roster(Order("s", 3, NOW))
    assert fresh(group(3, a, b, c), instances, one) == [c, a, b]  # type: ignore[arg-type]


def test_no_more_is_awaited_than_the_group_wants() -> None:
    one = roster(Order("s", 3, NOW, sure=True), Order("lost", 2, NOW - 1))
    assert awaited(group(2), one) == [Place("s", 0), Place("s", 1)]  # type: ignore[arg-type]
    assert awaited(group(0), one) == []  # type: ignore[arg-type]


def test_an_old_trouble_is_not_the_reason_of_a_new_wait() -> None:
    one = roster(Order("s", 1, NOW, sure=True))
    view = View(group(1), (), one, NOW)  # type: ignore[arg-type]
    (old,) = view.seen(Trouble(NOW - 3_600_000, "InsufficientInstanceCapacity"), "")
    assert (old.phase, old.refusal, old.handle) == (WorkerPhase.PENDING, None, "s-0")
    (new,) = view.seen(Trouble(NOW + 1, "InsufficientInstanceCapacity"), "")
    assert new.refusal is not None


def test_the_identity_names_account_role_and_instance() -> None:
    (name,) = names(1)
    one = roster(Order("s", 1, NOW, sure=True, instances={0: name}))
    view = View(group(1, name), (), one, NOW)  # type: ignore[arg-type]
    assert view.seen(None, "workers")[0].identity == f"aws:123456789012:workers:{name}"
    assert view.seen(None, "")[0].identity == f"aws:123456789012:{name}"


def test_tags_are_grouped() -> None:
    a, b, c, d = names(4)
    one = roster(Order("s", 3, NOW, instances={0: a, 1: b, 2: c}), Order("t", 1, NOW, instances={0: d}))
    one.orders["s"].tagged.add(2)
    due = tags_due(one, {a, b, c, d})
    assert sorted((tuple(sorted(tags.items())), len(places)) for tags, places in due) == [
        ((("worker-manager:index", "0"),), 1),
        ((("worker-manager:index", "0"), ("worker-manager:submission", "t")), 1),
        ((("worker-manager:index", "1"),), 1),
        ((("worker-manager:submission", "s"),), 2),
    ]
    assert tags_due(one, set()) == []
