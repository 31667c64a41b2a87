"""Idle workers of which no manager takes care."""

from typing import Any

import pytest

from tests.unit.hub.store.house import House, job
from worker_manager.hub.contract import CordonOrder

IDLE_MS = 300_000


def pool(**more: Any) -> dict[str, Any]:
    return {"pool": "p", "min_workers": 0, **more}


def speak(house: House, *pools: dict[str, Any]) -> None:
    house.store.publish("m", {"pools": list(pools)}).result()


def come(house: House, count: int = 2, **more: Any) -> list[str]:
    names = house.claim("s", count)
    for name in names:
        house.worker(name, token="join-" + name, **{"idle_exit_ms": IDLE_MS, **more})
    return names


def wait(house: House, ms: int, *talk: dict[str, Any]) -> None:
    """Workers poll all the time; the manager speaks where `talk` says what."""
    for _ in range(ms // 10_000):
        house.clock.advance(10_000)
        for worker in house.store.list_workers():
            house.poll(worker["id"])
        if talk:
            speak(house, *talk)
        house.store.sweep().result()


def states(house: House) -> dict[str, str]:
    return {worker["id"]: worker["state"] for worker in house.store.list_workers()}


def test_a_manager_that_speaks_decides_itself(house: House) -> None:
    come(house)
    wait(house, 2 * IDLE_MS, pool())
    assert set(states(house).values()) == {"ready"}


def test_after_a_silent_manager_idle_workers_go_when_they_were_to_go(house: House) -> None:
    first, second = come(house)
    speak(house, pool())
    wait(house, IDLE_MS - 10_000)
    assert set(states(house).values()) == {"ready"}
    wait(house, 10_000)
    assert states(house) == {first: "draining", second: "draining"}
    drain = house.poll(first)["drain"]
    assert "no manager takes care of it" in drain["reason"]["text"]
    assert house.store.uncordon("m", [first]).result() == [first], "its manager is back, and wants it"


def test_one_that_is_busy_or_has_work_in_between_stays(house: House) -> None:
    first, second = come(house)
    (name,) = house.submit(job())
    busy = first if house.taken(first) else second
    wait(house, IDLE_MS)
    assert states(house)[busy] == "ready"
    house.end(busy, (name, 1))
    wait(house, IDLE_MS - 10_000)
    assert states(house)[busy] == "ready"
    wait(house, 10_000)
    assert set(states(house).values()) == {"draining"}


def test_as_many_stay_as_the_manager_wanted_at_least(house: House) -> None:
    come(house, 3)
    speak(house, pool(min_workers=2))
    wait(house, 2 * IDLE_MS)
    assert sorted(states(house).values()) == ["draining", "ready", "ready"]


def test_a_pool_that_its_manager_does_not_have_any_more_is_nobodys(house: House) -> None:
    come(house)
    speak(house, pool())
    wait(house, IDLE_MS, {"pool": "other", "min_workers": 1})
    assert set(states(house).values()) == {"draining"}


def test_a_frozen_pool_stays_as_it_is_until_the_frost_is_over(house: House) -> None:
    come(house)
    until = house.clock.now_ms() + 2 * IDLE_MS
    speak(house, pool(frozen={"until_ms": until, "text": "look at it"}))
    wait(house, 2 * IDLE_MS - 10_000)
    assert set(states(house).values()) == {"ready"}
    wait(house, 10_000)
    assert set(states(house).values()) == {"draining"}


def test_a_hub_that_has_just_begun_waits_for_managers_to_speak(house: House) -> None:
    come(house)
    wait(house, IDLE_MS - 10_000)
    house.restart()
    house.clock.advance(10_000)
    house.store.sweep().result()
    assert set(states(house).values()) == {"ready"}
    wait(house, house.settings.silent_manager_ms)
    assert set(states(house).values()) == {"draining"}


@pytest.mark.parametrize("hand", [True, False])
def test_who_was_started_by_hand_or_to_stay_is_left_alone(house: House, hand: bool) -> None:
    if hand:
        house.worker("w", idle_exit_ms=IDLE_MS)
    else:
        come(house, 1, idle_exit_ms=None)
    wait(house, 3 * IDLE_MS)
    assert set(states(house).values()) == {"ready"}


def test_what_drains_already_is_not_told_again(house: House) -> None:
    (name,) = come(house, 1)
    house.store.cordon("m", [CordonOrder(name, True, {"code": "too-old"}, None)]).result()
    wait(house, 2 * IDLE_MS)
    assert house.poll(name)["drain"]["reason"] == {"code": "too-old"}
