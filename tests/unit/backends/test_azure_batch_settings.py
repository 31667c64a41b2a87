"""The options of Azure Batch, and the autoscale formula: what makes sense together."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.azure_batch import settings
from backends.azure_batch.formula import LONGEST, autoscale
from backends.base import BackendUnusable
from tests.stand_ins.azure_formula import BadFormula, evaluate

GOOD = {"service-url": "https://acct.westeurope.batch.azure.com", "job-id": "workers"}
CODALAB = ("account-name", "account-key", "service-url", "log-container-url", "job-id", "user")
SECRETS = {"KEY": "a2V5LW9mLXRoZS1hY2NvdW50", "SAS": "?sv=1&sp=rwcl&sig=abc"}


def read(**more: Any) -> settings.Settings:
    given = {**GOOD, **{name.replace("_", "-"): value for name, value in more.items()}}
    return settings.read(registry.load("azure-batch").read(given, SECRETS))


def test_codalabs_options_are_there_with_their_defaults() -> None:
    options = {option.name: option for option in settings.OPTIONS}
    assert set(CODALAB) <= set(options)
    assert options["user"].default == "root"
    assert options["account-key"].secret
    assert registry.find("azure")[0] == "azure-batch"


def test_what_was_given_arrives() -> None:
    made = read(
        account_name="acct",
        account_key="env:KEY",
        log_container_url="https://s.blob.core.windows.net/logs/",
        log_container_sas="env:SAS",
        mount="/mnt/a:/b",
        image="python:3.12",
    )
    assert (made.account, made.key, made.job) == ("acct", SECRETS["KEY"], "workers")
    assert made.log_container == "https://s.blob.core.windows.net/logs?sv=1&sp=rwcl&sig=abc"
    assert made.mounts == ("/mnt/a:/b",)
    assert SECRETS["KEY"] not in repr(made)
    assert "sig=abc" not in repr(made)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"service_url": "http://acct.batch.azure.com"}, "service-url: "),
        ({"service_url": "acct"}, "service-url: "),
        ({"job_id": "a b"}, "job-id: "),
        ({"account_key": "env:KEY"}, "account-name: is needed"),
        ({"account_name": "a", "account_key": "env:SAS"}, "account-key: is not a key"),
        ({"log_container_url": "https://s.blob.core.windows.net/logs?sig=secret"}, "log-container-sas env:NAME"),
        ({"log_container_url": "https://s.blob.core.windows.net"}, "names no container"),
        ({"log_container_sas": "env:SAS"}, "log-container-sas: needs log-container-url"),
        ({"log_identity": "/i"}, "log-identity: needs"),
        ({"mount": "/a b", "image": "x"}, "mount: "),
        ({"mount": "/a:/b:/c", "image": "x"}, "mount: "),
        ({"mount": "/a"}, "mount: has a meaning only with image"),
        ({"container_run_options": "--rm"}, "only with image"),
        ({"image": "x", "registry_identity": "/i"}, "registry-identity: needs"),
        ({"slots": 0}, "slots: "),
        ({"create_job": True}, "create-job: needs pool-id"),
        ({"pool_file": "/nonesuch/pool.json"}, "pool-file: "),
    ],
)
def test_what_makes_no_sense_is_named(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendUnusable) as wrong:
        read(**more)
    assert words in str(wrong.value)
    assert "sig=secret" not in str(wrong.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(BackendUnusable) as wrong:
        read(service_url="x", job_id="?", slots=0)
    assert len(str(wrong.value).splitlines()) == 3


def test_a_pool_file_gives_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "pool.json"
    file.write_text(json.dumps({"id": "gpu", "vmSize": "STANDARD_NC16AS_T4_V3"}))
    made = read(create_job=True, pool_file=str(file))
    assert made.pool == "gpu"
    assert made.pool_template == {"id": "gpu", "vmSize": "STANDARD_NC16AS_T4_V3"}
    assert read(create_job=True, pool_file=str(file), pool_id="other").pool_template["id"] == "other"  # type: ignore[index]
    for spoilt in ("{", "[]", "{}", '{"vmSize": "x"}'):
        file.write_text(spoilt)
        with pytest.raises(BackendUnusable, match="pool-file"):
            read(create_job=True, pool_file=str(file))


# ---------------------------------------------------------------- the formula


def nodes(formula: str, pending: list[float], percent: float = 100.0) -> Any:
    found = evaluate(formula, pending, percent)
    assert found["$NodeDeallocationOption"] == "taskcompletion", "no worker is ended by a node that goes"
    return found["$TargetDedicatedNodes"]


def test_a_node_for_every_worker_that_waits_or_runs() -> None:
    formula = autoscale(8)
    assert nodes(formula, [0.0] * 20) == 0
    assert nodes(formula, [3.0] * 20) == 3
    assert nodes(formula, [50.0] * 20) == 8
    assert nodes(formula, [0.0] * 19 + [5.0]) == 5, "new workers need not wait for an average"
    assert nodes(formula, [4.0] * 19 + [0.0]) == 3, "nodes go more slowly than they come"


def test_several_workers_share_a_node() -> None:
    assert nodes(autoscale(8, slots=4), [5.0] * 20) == 2
    assert nodes(autoscale(8, slots=4, per_worker=2), [5.0] * 20) == 3
    assert nodes(autoscale(8, slots=4, per_worker=3), [5.0] * 20) == 5
    assert nodes(autoscale(8, least_nodes=1), [0.0] * 20) == 1


def test_a_young_pool_goes_by_the_last_sample() -> None:
    assert nodes(autoscale(8), [0.0, 6.0], percent=10.0) == 6


def test_spot_nodes_are_another_target() -> None:
    found = evaluate(autoscale(8, spot=True), [2.0] * 20)
    assert found["$TargetLowPriorityNodes"] == 2
    assert "$TargetDedicatedNodes" not in found


def test_a_formula_is_short_and_impossible_ones_are_refused() -> None:
    assert len(autoscale(10**6)) < LONGEST
    for wrong in (
        {"most_nodes": -1},
        {"most_nodes": 1, "least_nodes": 2},
        {"most_nodes": 1, "slots": 1, "per_worker": 2},
    ):
        with pytest.raises(ValueError, match="no pool has"):
            autoscale(**wrong)


def test_the_interpreter_notices_what_is_wrong() -> None:
    for wrong in ("x = 1", "x = 1;", "$TargetDedicatedNodes = y;", "$Tasks = 1;", "$TargetDedicatedNodes = 1 ? 2;"):
        with pytest.raises(BadFormula):
            evaluate(wrong, [1.0])
