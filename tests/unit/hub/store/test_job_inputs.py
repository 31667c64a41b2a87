"""Jobs that take what other jobs left: they wait for them, know them by number, and only their owner's."""

from typing import Any

import pytest

from tests.unit.hub.store.house import House, job
from worker_manager.hub.contract import Dependency, NewJob
from worker_manager.hub.refusals import Invalid


def taking(*sources: str, **more: Any) -> NewJob:
    """As the route makes it of a JobSpec."""
    inputs = [{"to": f"in{n}", "source": source} for n, source in enumerate(sources)]
    of_jobs = [(n, each.removeprefix("job:").partition("/")[0]) for n, each in enumerate(sources) if each[:4] == "job:"]
    waits = tuple(Dependency(name.partition("-")[0], "success", f"inputs[{n}].source") for n, name in of_jobs)
    return job(work={"inputs": inputs}, depends_on=waits, **more)


def sources(house: House, name: str) -> list[str]:
    return [each["source"] for each in house.store.get_job(name)["inputs"]]


def test_a_source_of_the_same_request_gets_its_number(house: House) -> None:
    first, second = house.submit(job(), taking("job:#0/out/a", "https://example.org/b"))
    assert sources(house, second) == [f"job:{first}/out/a", "https://example.org/b"]
    assert (house.state(first), house.state(second)) == ("queued", "blocked")
    house.worker("w")
    house.end("w", *house.taken("w"))
    assert house.state(second) == "assigned"
    (given,) = house.poll("w")["assign"]
    assert given["work"]["inputs"][0] == {"to": "in0", "source": f"job:{first}/out/a"}


def test_a_task_is_named_and_its_whole_array_waited_for(house: House) -> None:
    whole, one = house.submit(job(array=3), taking("job:#0-2/a"))
    assert sources(house, one) == [f"job:{whole}-2/a"]
    assert house.store.get_job(one)["waits_for"] == [whole]
    later = house.submit(taking(f"job:{whole}-0/a"))[0]
    assert house.store.get_job(later)["waits_for"] == [whole]
    all_of_them = house.submit(taking(f"job:{whole}/a"))[0]
    assert house.store.get_job(all_of_them)["waits_for"] == [whole]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("job:j99/a", "there is no job j99"),
        ("job:j1-0/a", "no such task"),
        ("job:j2-3/a", "no such task"),
        ("job:j3/a", "no such job of yours"),
        ("job:#0/a", "earlier job"),
        ("job:#5/a", "earlier job"),
    ],
)
def test_what_is_not_there_to_be_taken_refuses_the_whole_request(house: House, source: str, says: str) -> None:
    house.submit(job(), job(array=3))
    house.submit(job(), owner="bob")
    with pytest.raises(Invalid) as refused:
        house.submit(taking("https://example.org/x", source))
    assert says in refused.value.detail
    assert refused.value.errors[0][0] == "jobs[0].inputs[1].source"
    assert len(house.group_counts()) == 2


def test_one_that_needs_what_has_failed_is_cancelled(house: House) -> None:
    (first,) = house.submit(job())
    house.worker("w")
    house.end("w", *house.taken("w"), outcome="failed")
    (second,) = house.submit(taking(f"job:{first}/a"))
    assert house.state(second) == "cancelled"
