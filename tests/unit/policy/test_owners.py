from tests.unit.policy.worlds import NOW
from worker.protocol import Shape
from worker_manager.policy.derive import derive
from worker_manager.policy.facts import BacklogFact, Memory, PoolSettings


def test_a_pool_serves_its_managers_owner_unless_it_names_others() -> None:
    def served(*owners: str, own: str = "ada") -> tuple[str, ...]:
        pool = PoolSettings("p", "local", Shape(), owners=owners)
        return derive(NOW, [pool], Memory(), {}, BacklogFact(owner=own)).pools[0].owners

    assert served() == ("ada",)
    assert served("bob", "eve") == ("bob", "eve")
    assert served("bob", "*") == ()
    assert served(own="") == (), "a source that knows no owners"
