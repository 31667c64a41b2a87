"""The files that a person applies to a cluster: valid in every version, and a Role with exactly the rights in use."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from backends import registry
from backends.kubernetes import doctor, manifest, settings
from tests.unit.backends.kubernetes_words import chosen, submission
from tests.unit.backends.test_kubernetes_manifest import VERSIONS, restricted_problems
from tests.unit.test_docs import parsed
from worker_manager.cli.main import cli, spread_words

FOLDER = Path(__file__).parents[3] / "docs" / "backends" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
TO_APPLY = [path for path in FILES if path.name != "pod-template.yaml"]


def things(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", TO_APPLY, ids=lambda path: path.name)
def test_what_is_applied_is_valid(path: Path, version: str) -> None:
    for thing in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_page_speaks_of_every_file(path: Path) -> None:
    assert f"kubernetes/{path.name}" in FOLDER.with_suffix(".md").read_text()


def granted(name: str, kind: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for thing in things(name)
        if thing["kind"] == kind
        for rule in thing["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_grants_exactly_what_the_backend_uses() -> None:
    assert granted("role.yaml", "Role") == set(doctor.RIGHTS)


def test_the_role_of_doctor_grants_exactly_what_doctor_reads_beyond_that() -> None:
    assert granted("role-doctor.yaml", "Role") == set(doctor.RIGHTS_TO_LOOK)
    assert granted("role-doctor.yaml", "ClusterRole") == set(doctor.RIGHTS_IN_THE_CLUSTER)


def test_every_binding_binds_a_role_that_is_there_to_the_managers_account() -> None:
    for name in ("role.yaml", "role-doctor.yaml"):
        roles = {thing["metadata"]["name"] for thing in things(name) if thing["kind"].endswith("Role")}
        for thing in things(name):
            if thing["kind"].endswith("Binding"):
                assert thing["roleRef"]["name"] in roles
                assert [subject["name"] for subject in thing["subjects"]] == ["worker-manager"]


def test_the_example_of_a_template_is_one(tmp_path: Path) -> None:
    options = chosen(pod_template=str(FOLDER / "pod-template.yaml"))
    made = manifest.job(submission(), 0, options)
    kubernetes_validate.validate(made, "1.34", strict=True)
    spec = made["spec"]["template"]["spec"]
    assert "preferredDuringSchedulingIgnoredDuringExecution" in spec["affinity"]["podAntiAffinity"]
    assert restricted_problems(spec) == []


def test_the_manager_of_the_file_is_started_with_options_that_there_are() -> None:
    [deployment] = [thing for thing in things("manager.yaml") if thing["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    parsed(cli, "worker-manager", spread_words(words, {}), None)
    of_the_backend = words[words.index("kubernetes") + 1 :]
    known = {option.name for option in registry.load("kubernetes").options} | {"cpus", "memory-mb"}
    assert {word[2:].partition("=")[0] for word in of_the_backend} <= known
    assert restricted_problems(deployment["spec"]["template"]["spec"]) == []
    assert {thing["metadata"].get("namespace") for thing in things("manager.yaml")}.pop() == "workers"


def test_the_page_explains_every_option() -> None:
    page = FOLDER.with_suffix(".md").read_text()
    assert [option.name for option in settings.OPTIONS if f"`--{option.name}" not in page] == []
