"""Workers that hold no token: bound to a launch by their manager's word about who they are."""

import re
from typing import Any

import pytest

from tests.unit.hub.store.house import House, sha
from worker.protocol import Shape
from worker_manager.hub.contract import Claim
from worker_manager.hub.refusals import Conflict, Invalid, NotYet, Unauthorized

ONE = "aws:123456789012:i-00000000000000001"
TWO = "aws:123456789012:i-00000000000000002"


def claim(house: House, submission: str, count: int = 1, manager: str = "m", **more: Any) -> list[str]:
    names = tuple(f"{submission}-{index}" for index in range(count))
    claimed = Claim(submission, more.pop("pool", "p"), names, (), house.clock.now_ms() + 30_000, identity="aws", **more)
    house.store.claim_launch(manager, claimed, "ann").result()
    return list(names)


def identify(house: House, manager: str = "m", **told: str) -> list[str]:
    named = {worker.replace("_", "-"): identity for worker, identity in told.items()}
    return house.store.identify(manager, named).result()


def join(house: House, *names: str, nonce: str = "n", **more: Any) -> dict[str, Any]:
    message: Any = {
        "worker": "",
        "nonce": nonce,
        "credential_sha256": sha("c-" + nonce),
        "shape": Shape(cpus=2000).to_wire(),
        "pool": "p",
        **more,
    }
    return dict(house.store.join(message, names or (ONE,)).result())


def test_a_worker_gets_the_name_that_its_launch_has_for_it(house: House) -> None:
    assert not house.store.awaits_identities()
    claim(house, "a", 2)
    assert house.store.awaits_identities()
    assert identify(house, a_0=TWO, a_1=ONE) == ["a-0", "a-1"]
    assert join(house, ONE)["worker"] == "a-1"
    assert join(house, TWO, nonce="other")["worker"] == "a-0"
    shown = house.store.get_worker("a-1")
    assert (shown["pool"], shown["manager"], shown["state"]) == ("p", "m", "ready")


def test_nobody_is_admitted_before_the_manager_has_said_so(house: House) -> None:
    with pytest.raises(NotYet, match="no manager has said yet that aws:"):
        join(house)
    claim(house, "a")
    with pytest.raises(NotYet):
        join(house)
    identify(house, a_0=TWO)
    with pytest.raises(NotYet):
        join(house, ONE)
    assert house.store.list_workers() == []


def test_a_role_that_the_manager_names_must_be_the_workers(house: House) -> None:
    with_role = "aws:123456789012:workers:i-00000000000000001"
    claim(house, "a")
    identify(house, a_0=with_role)
    with pytest.raises(NotYet):
        join(house, "aws:123456789012:eve:i-00000000000000001", ONE)
    assert join(house, with_role, ONE)["worker"] == "a-0"


def test_an_identical_repeat_is_the_same_registration_and_another_is_refused(house: House) -> None:
    claim(house, "a")
    identify(house, a_0=ONE)
    first = join(house)
    assert join(house) == first
    with pytest.raises(Conflict) as refused:
        join(house, nonce="after a reboot, or somebody else")
    assert refused.value.code == "second-registrant"


def test_a_burial_keeps_its_worker_out_at_once(house: House) -> None:
    claim(house, "a")
    identify(house, a_0=ONE)
    assert house.store.bury("m", ["a-0"], "never came").result() == ["a-0"]
    with pytest.raises(Unauthorized) as refused:
        join(house)
    assert refused.value.code == "token-revoked"
    assert identify(house, a_0=ONE) == ["a-0"], "still the same"
    claim(house, "b")
    assert identify(house, b_0=ONE) == ["b-0"], "an instance may be given to another launch"
    assert join(house)["worker"] == "b-0"


def test_the_managers_word_may_change_until_the_worker_has_come(house: House) -> None:
    claim(house, "a", 2)
    identify(house, a_0=ONE)
    assert identify(house, a_1=ONE) == ["a-1"]
    with pytest.raises(NotYet):
        join(house, TWO)
    assert identify(house, a_0=TWO) == ["a-0"]
    assert join(house, ONE)["worker"] == "a-1"
    assert identify(house, a_1=TWO) == [], "it has registered"
    assert identify(house, a_0=ONE) == [], "it is another's, who works"
    assert join(house, TWO, nonce="b")["worker"] == "a-0"


def test_no_manager_takes_anothers_instance_or_names_anothers_worker(house: House) -> None:
    claim(house, "a")
    claim(house, "b", manager="other")
    assert identify(house, "m", b_0=ONE) == []
    identify(house, "m", a_0=ONE)
    assert identify(house, "other", b_0=ONE) == []
    assert join(house)["worker"] == "a-0"


def test_a_worker_started_for_another_pool_is_refused(house: House) -> None:
    claim(house, "a")
    identify(house, a_0=ONE)
    with pytest.raises(Conflict) as refused:
        join(house, pool="q")
    assert refused.value.code == "pool-differs"
    assert join(house, pool="")["worker"] == "a-0"


def test_workers_with_tokens_and_those_without_do_not_pass_for_each_other(house: House) -> None:
    house.claim("t")
    assert identify(house, t_0=ONE) == [], "it holds a token"
    claim(house, "a")
    assert identify(house, a_0="gcp:1:2", nobody_0=ONE) == []
    with house.store._reads.connect() as connection:
        stands = connection.exec_driver_sql("SELECT token_sha256 FROM intents WHERE worker = 'a-0'").scalar_one()
    assert not re.fullmatch("[0-9a-f]{64}", stands), "what stands in the place of a hash is the hash of nothing"
    with pytest.raises(Unauthorized):
        house.worker("a-0", token=stands)


def test_a_claim_by_identity_names_no_hashes_and_may_be_repeated(house: House) -> None:
    claim(house, "a", 2)
    claim(house, "a", 2)
    with pytest.raises(Conflict):
        claim(house, "a", 1)
    with pytest.raises(Invalid):
        house.store.claim_launch("m", Claim("b", "p", ("b-0",), (sha("x"),), 0, identity="aws")).result()
    long = tuple(f"{'x' * 60}-{index}" for index in range(3))
    house.store.claim_launch("m", Claim("c", "p", long, (), 0, identity="aws")).result()


def test_a_join_without_nonce_or_credential_makes_no_sense(house: House) -> None:
    for wrong in ({"nonce": ""}, {"credential_sha256": "no"}):
        with pytest.raises(Invalid):
            join(house, **wrong)  # type: ignore[arg-type]


def test_what_was_said_outlives_a_restart(house: House) -> None:
    claim(house, "a")
    identify(house, a_0=ONE)
    house.restart()
    assert join(house)["worker"] == "a-0"
