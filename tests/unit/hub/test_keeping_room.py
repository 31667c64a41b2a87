from hypothesis import given
from hypothesis import strategies as st

from worker.protocol import Shape, fits
from worker_manager.hub.keeping import MOST, Host, Kept, keep, starving
from worker_manager.hub.match import Candidate, Serves

BIG = Shape(cpus=4000)


def group(number: int, asks: Shape = BIG, priority: int = 0, oldest: int = 0, owner: str = "ann") -> Candidate:
    return Candidate(number, asks, asks, 5, priority, oldest, owner)


def host(name: str, cpus: int = 4, free: int = 0, **more: Serves) -> Host:
    return Host(name, "p", Shape(cpus=cpus * 1000), Shape(cpus=free * 1000), more.get("serves", Serves()))


def test_only_who_waited_long_starves_the_first_in_order_first() -> None:
    groups = [group(1, oldest=50), group(2, oldest=10), group(3, priority=1, oldest=40), group(4, oldest=90)]
    assert [one.group for one in starving(groups, 150, 60)] == [3, 2, 1, 4]
    assert [one.group for one in starving(groups, 110, 60)] == [3, 2, 1]


def test_the_worker_that_lacks_least_keeps_its_room() -> None:
    hosts = [host("a", free=1), host("b", free=3), host("small", cpus=2, free=2)]
    assert list(keep([group(1)], hosts, {})) == ["b"]


def test_what_was_chosen_stays_chosen_while_it_can_be() -> None:
    hosts = [host("a", free=1), host("b", free=3)]
    assert list(keep([group(1)], hosts, {1: "a"})) == ["a"]
    assert list(keep([group(1)], hosts[1:], {1: "a"})) == ["b"]


def test_who_could_never_run_it_is_not_asked() -> None:
    others = host("a", serves=Serves(owners=("bob",)))
    assert keep([group(1)], [others, host("small", cpus=2)], {}) == {}


def test_earlier_and_equal_jobs_pass_later_ones_do_not() -> None:
    kept = Kept("w", "p", 1, 0, 100)
    assert kept.lets(group(1, oldest=500)), "its own"
    assert kept.lets(group(2, oldest=99))
    assert kept.lets(group(3, priority=1, oldest=500))
    assert not kept.lets(group(4, oldest=101))
    assert not kept.lets(group(5, priority=-1, oldest=1))


hosts_of = st.lists(
    st.builds(
        lambda cpus, free, owner: (cpus, min(cpus, free), owner),
        st.integers(1, 8),
        st.integers(-2, 8),
        st.sampled_from([(), ("ann",), ("bob",)]),
    ),
    max_size=8,
)
groups_of = st.lists(st.tuples(st.integers(1, 8), st.integers(-1, 1), st.integers(0, 100)), max_size=8)


@given(hosts_of, groups_of)
def test_each_keeps_for_one_that_it_could_run_and_none_keeps_in_vain(
    machines: list[tuple[int, int, tuple[str, ...]]], asked: list[tuple[int, int, int]]
) -> None:
    hosts = [host(f"w{n}", cpus, free, serves=Serves(owners=owner)) for n, (cpus, free, owner) in enumerate(machines)]
    groups = [group(n, Shape(cpus=cpus * 1000), priority, oldest) for n, (cpus, priority, oldest) in enumerate(asked)]
    waiting = starving(groups, 1000, 60)
    kept = keep(waiting, hosts, {})
    by_name = {one.id: one for one in hosts}
    assert len(kept) <= MOST
    assert len({one.group for one in kept.values()}) == len(kept)
    for name, one in kept.items():
        assert name == one.worker
        assert not fits(groups[one.group].asks, by_name[name].shape)
        assert by_name[name].serves.admits("ann", "default")
    able = [one for one in waiting if any(not fits(one.asks, h.shape) and h.serves.admits("ann", "") for h in hosts)]
    assert bool(kept) == bool(able)
    if able:
        assert able[0].group in {one.group for one in kept.values()}
