"""A submission as tasks of Azure Batch: the request's JSON, held against the official client's own models."""

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.batch import models

from backends.azure_batch import recipe
from backends.azure_batch.formula import autoscale
from backends.azure_batch.settings import Settings
from backends.base import Submission
from tests.stand_ins.azure_models import unknown
from worker.protocol import Shape
from worker_manager.control.ids import new_submission_id

PLAIN = Settings("https://a.westeurope.batch.azure.com", "workers")
LOGS = replace(PLAIN, log_url="https://s.blob.core.windows.net/logs", log_sas="sv=1&sp=rwcl&sig=c2VjcmV0")
IMAGE = replace(PLAIN, image="python:3.12")
SHAPE = Shape(cpus=1500, memory=2**31)


def submission(**more: Any) -> Submission:
    made = Submission("m-7", 2, "p", "m", SHAPE, ("/bin/echo", "{worker}"), {"A": "1"}, ("wmj_one", "wmj_two"))
    return replace(made, **more)


def task(settings: Settings = PLAIN, **more: Any) -> dict[str, Any]:
    return recipe.task(submission(**more), 1, settings)


NO_SAS = replace(LOGS, log_sas="", log_identity="/i")
EVERYTHING = replace(
    LOGS,
    image="python:3.12",
    run_options="--shm-size 1g",
    registry_server="registry.example",
    registry_identity="/subscriptions/1/i",
    mounts=("/mnt/cache",),
    slots=2,
    retention_ms=3_600_000,
)


@pytest.mark.parametrize(
    "settings",
    [PLAIN, LOGS, IMAGE, EVERYTHING, replace(PLAIN, user="me"), replace(LOGS, log_sas="", log_identity="/i")],
)
def test_every_property_of_a_task_is_one_of_the_clients_model(settings: Settings) -> None:
    made = task(settings, shape=replace(SHAPE, walltime=3_600_000, gpus=1), setup=("true",), work_dir="/data/work")
    assert unknown(made, models.BatchTaskCreateOptions) == []


def test_the_check_of_properties_finds_what_is_wrong() -> None:
    assert unknown({"id": "x", "commandline": "y"}, models.BatchTaskCreateOptions) == [".commandline"]
    deep = {"outputFiles": [{"destination": {"container": {"containerURL": "x"}}}]}
    assert unknown(deep, models.BatchTaskCreateOptions) == [".outputFiles.destination.container.containerURL"]


def test_job_and_pool_are_of_the_clients_models() -> None:
    settings = replace(PLAIN, pool="pool-1", pool_template={"id": "pool-1", "vmSize": "STANDARD_D4S_V3"})
    assert unknown(recipe.job(settings, "m"), models.BatchJobCreateOptions) == []
    made = recipe.pool(settings, "m", autoscale(4))
    assert unknown(made, models.BatchPoolCreateOptions) == []
    assert made["autoScaleFormula"].startswith("mostNodes = 4;")
    fixed = replace(settings, pool_template={"id": "p", "vmSize": "x", "targetDedicatedNodes": 2})
    assert "autoScaleFormula" not in recipe.pool(fixed, "m", autoscale(4))


# ---------------------------------------------------------------- what a worker is


def test_a_task_is_named_like_its_worker_and_says_whose_it_is() -> None:
    made = task()
    assert made["id"] == "m-7-1"
    assert recipe.owner(made["displayName"]) == ("m", "p", "m-7", 1)
    for other in (None, "", "my task", '{"worker":1}', '{"worker":{"manager":"m"}}', "[]", '{"worker":{"manager":1}}'):
        assert recipe.owner(other) is None


def test_it_is_never_retried_and_ends_after_its_walltime() -> None:
    assert task()["constraints"] == {"maxTaskRetryCount": 0}
    timed = task(shape=replace(SHAPE, walltime=3_600_000))["constraints"]
    assert timed["maxWallClockTime"] == "PT3900S", "later than the worker itself knows"


def test_the_token_is_in_one_variable_and_nowhere_else() -> None:
    made = task(LOGS)
    named = {one["name"]: one["value"] for one in made["environmentSettings"]}
    assert named[recipe.TOKEN] == "wmj_two"
    named.pop(recipe.TOKEN)
    rest = json.dumps({**made, "environmentSettings": named}) + recipe.unpacked(named[recipe.START])
    assert "wmj_" not in rest


def test_the_start_script_moves_the_token_to_a_file_before_the_worker_begins(tmp_path: Path) -> None:
    shows = 'printf "%s %s" "$(stat -c %a "$WM_JOIN_TOKEN_FILE")" "$(cat "$WM_JOIN_TOKEN_FILE")"; env'
    for setup in ((), ("MORE=(1 2); export FROM_BASH=${MORE[1]}",)):
        made = task(command=("/bin/sh", "-c", shows), setup=setup)
        variables = {one["name"]: one["value"] for one in made["environmentSettings"]}
        environment = {"PATH": "/usr/bin:/bin", "AZ_BATCH_TASK_DIR": str(tmp_path), **variables}
        argv = shlex.split(made["commandLine"])
        said = subprocess.run(argv, env=environment, capture_output=True, text=True).stdout
        assert said.startswith("600 wmj_two")
        assert "WM_JOIN_TOKEN=" not in said
        assert "WM_START=" not in said
        assert ("FROM_BASH=2" in said) == bool(setup)


def test_the_token_finds_a_place_where_the_tasks_folder_is_not_ours_to_write(tmp_path: Path) -> None:
    made = task(command=("/bin/sh", "-c", 'stat -c %a "$WM_JOIN_TOKEN_FILE"; cat "$WM_JOIN_TOKEN_FILE"'))
    variables = {one["name"]: one["value"] for one in made["environmentSettings"]}
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "AZ_BATCH_TASK_DIR": "/nonesuch", **variables}
    said = subprocess.run(shlex.split(made["commandLine"]), env=environment, capture_output=True, text=True).stdout
    assert said == "600\nwmj_two"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_command_line_is_the_same_whatever_a_worker_is_told() -> None:
    assert task()["commandLine"] == task(command=("$(id)", "'\"\n"), environment={"X": "`id`"})["commandLine"]


# ---------------------------------------------------------------- containers, users, logs


def options(settings: Settings, **more: Any) -> str:
    return str(task(settings, **more)["containerSettings"]["containerRunOptions"])


def test_a_container_is_held_to_the_shape() -> None:
    assert "--cpus 1.5 --memory 2147483648" in options(IMAGE)
    assert "--cpus" not in options(replace(IMAGE, container_limits=False))
    assert "--gpus all" not in options(IMAGE)
    assert "--gpus all" in options(IMAGE, shape=replace(SHAPE, gpus=1))
    own = replace(IMAGE, run_options="--gpus device=1")
    assert options(own, shape=replace(SHAPE, gpus=1)).endswith(" --gpus device=1")
    assert options(own, shape=replace(SHAPE, gpus=1)).count("--gpus") == 1


def test_the_shared_work_dir_is_seen_in_the_container() -> None:
    assert "-v /data/w:/data/w" in options(IMAGE, work_dir="/data/w")
    assert "-v" not in options(IMAGE, work_dir="/mnt/batch/tasks/fsmounts/nfs/w"), "Azure shows that to every container"
    mounted = replace(IMAGE, mounts=("/mnt/big:/data", "/opt/x"))
    assert options(mounted, work_dir="/data/w").count("-v") == 2
    assert "-v /mnt/big:/data -v /opt/x:/opt/x" in options(mounted, work_dir="/data/w")
    assert "-v /database/w:/database/w" in options(mounted, work_dir="/database/w"), "beside the place, not below it"


def test_without_an_image_there_is_no_container() -> None:
    assert "containerSettings" not in task()


def test_whose_process_it_is() -> None:
    assert task()["userIdentity"] == {"autoUser": {"scope": "pool", "elevationLevel": "admin"}}
    assert task(replace(PLAIN, user="auto"))["userIdentity"]["autoUser"]["elevationLevel"] == "nonadmin"
    assert task(replace(PLAIN, user="runner"))["userIdentity"] == {"username": "runner"}
    assert "--user root" in options(IMAGE)


def test_output_is_copied_to_the_container_at_the_end() -> None:
    (output,) = task(LOGS)["outputFiles"]
    assert output["destination"]["container"]["path"] == "m-7-1"
    assert output["uploadOptions"] == {"uploadCondition": "taskcompletion"}
    assert "outputFiles" not in task()
    (own,) = task(NO_SAS)["outputFiles"]
    assert own["destination"]["container"]["containerUrl"] == LOGS.log_url
    assert own["destination"]["container"]["identityReference"] == {"resourceId": "/i"}


def test_what_is_rendered_holds_no_secret() -> None:
    text = recipe.rendered(submission(), replace(LOGS, key="a2V5"))
    assert "wmj_" not in text
    assert "c2VjcmV0" not in text
    assert "a2V5" not in text
    assert text.count('"value": "***"') == 2
    assert "/bin/echo" in text, "the packed script is shown"


# ---------------------------------------------------------------- what cannot be launched


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"id": "M-7"}, "not a name"),
        ({"id": "other-7"}, "no listing would find it"),
        ({"count": 101, "join_tokens": ()}, "1 to 100"),
        ({"count": 0, "join_tokens": ()}, "1 to 100"),
        ({"join_tokens": ("one",)}, "1 join tokens for 2"),
        ({"environment": {"A B": "1"}}, "not the name"),
        ({"environment": {"A": "1\0"}}, "NUL"),
        ({"command": ()}, "no command"),
        ({"work_dir": "/a b"}, "not an absolute path"),
        ({"work_dir": "data"}, "not an absolute path"),
        ({"environment": {"A": "x" * 200_000}}, "too long"),
    ],
)
def test_what_cannot_be_launched_says_why(more: dict[str, Any], words: str) -> None:
    assert recipe.problem(submission()) == ""
    assert words in recipe.problem(submission(**more))


def test_a_hundred_workers_fit_into_one_call() -> None:
    many = submission(count=100, join_tokens=tuple("t" * 43 for _ in range(100)), setup=("module load x",) * 50)
    made = recipe.tasks(many, EVERYTHING)
    assert recipe.too_large(made) == ""
    assert len(json.dumps({"value": made})) < recipe.MOST_BYTES / 2
    assert "one call takes" in recipe.too_large(made * 10)


@pytest.mark.parametrize("manager", ["main", "Lab_A", "7up", "-x-", "a-very-long-name-of-a-manager", "ü", "a--b", "x."])
def test_real_ids_begin_as_the_listing_expects(manager: str) -> None:
    for now in (1, 1_795_000_000_000):
        assert new_submission_id(manager, now).startswith(recipe.prefix(manager))


def test_a_handle_of_another_manager_is_none() -> None:
    assert recipe.is_handle("m-7-0", "m")
    assert recipe.is_handle("m-7-999", "m")
    for other in ("", "m", "n-7-0", "m7", "m-7-00", "../m-7-0", "m-7-1000", "M-7-0", "m-7-0\n", "x\0y"):
        assert not recipe.is_handle(other, "m"), other
