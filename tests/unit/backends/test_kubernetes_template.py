"""A pod template of the user's, merged over ours."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from backends.base import BackendUnusable
from backends.kubernetes import manifest, template
from tests.unit.backends.kubernetes_words import chosen, submission

WHOLE = """
apiVersion: v1
kind: PodTemplate
template:
  metadata:
    labels: {team: vision}
    annotations: {"cluster-autoscaler.kubernetes.io/safe-to-evict": null}
  spec:
    hostNetwork: true
    affinity:
      podAntiAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {app.kubernetes.io/managed-by: worker-manager}
    securityContext: {fsGroup: 2000}
    tolerations:
      - {key: spot, operator: Exists}
    containers:
      - name: worker
        env:
          - {name: HOME, value: /scratch}
          - {name: HF_HOME, value: /models}
        volumeMounts:
          - {name: models, mountPath: /models, readOnly: true}
        resources:
          limits: {cpu: null}
      - name: sidecar
        image: busybox
    volumes:
      - name: models
        persistentVolumeClaim: {claimName: models}
"""


def merged(tmp_path: Path, text: str, **options: Any) -> dict[str, Any]:
    file = tmp_path / "template.yaml"
    file.write_text(text)
    made = manifest.job(submission(), 0, chosen(pod_template=str(file), **options))
    kubernetes_validate.validate(made, "1.34", strict=True)
    pod: dict[str, Any] = made["spec"]["template"]
    return pod


def test_maps_are_merged_and_lists_by_the_names_of_their_elements(tmp_path: Path) -> None:
    pod = merged(tmp_path, WHOLE, tolerations="gpu")
    spec = pod["spec"]
    assert pod["metadata"]["labels"]["team"] == "vision"
    assert pod["metadata"]["labels"]["worker-manager/submission"] == "m-7"
    assert "cluster-autoscaler.kubernetes.io/safe-to-evict" not in pod["metadata"]["annotations"]
    assert spec["hostNetwork"] is True
    assert spec["restartPolicy"] == "Never"
    assert (spec["securityContext"]["fsGroup"], spec["securityContext"]["runAsUser"]) == (2000, 1000)
    assert [one["key"] for one in spec["tolerations"]] == ["gpu", "spot"]
    assert [volume["name"] for volume in spec["volumes"]] == ["work", "join-token", "models"]
    worker, sidecar = spec["containers"]
    assert sidecar == {"name": "sidecar", "image": "busybox"}
    assert {one["name"]: one["value"] for one in worker["env"]} == {
        "HOME": "/scratch",
        "WM_WORK_DIR": manifest.WORK_DIR,
        "HF_HOME": "/models",
    }
    assert [one["name"] for one in worker["volumeMounts"]] == ["work", "join-token", "models"]
    assert "cpu" not in worker["resources"]["limits"]
    assert worker["resources"]["requests"]["cpu"] == "1500m"
    assert worker["command"] == manifest.command(submission(), 0)


def test_an_affinity_is_sent_as_the_api_wants_it_or_found_wrong(tmp_path: Path) -> None:
    spec = merged(tmp_path, WHOLE)["spec"]
    [rule] = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    with pytest.raises(kubernetes_validate.ValidationError):
        merged(tmp_path, "spec: {affinity: {podAntiAffinity: {required: []}}}")


def test_a_template_of_metadata_and_spec_alone_is_enough(tmp_path: Path) -> None:
    assert merged(tmp_path, "spec: {schedulerName: other}")["spec"]["schedulerName"] == "other"
    assert merged(tmp_path, '{"spec": {"schedulerName": "json"}}')["spec"]["schedulerName"] == "json"
    assert merged(tmp_path, "{}")["spec"]["restartPolicy"] == "Never"


def test_merging_changes_neither_side() -> None:
    ours, theirs = {"spec": {"volumes": [{"name": "a", "x": 1}]}}, {"spec": {"volumes": [{"name": "a", "x": 2}]}}
    assert template.merged(ours, theirs) == theirs
    assert ours == {"spec": {"volumes": [{"name": "a", "x": 1}]}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "it is no YAML"),
        ("[1, 2]", "it is no map"),
        ("just words", "it is no map"),
        ("spec: 3", "are maps"),
        ("containers: []", "'containers' is neither `metadata` nor `spec`"),
        ("spec: {restartPolicy: OnFailure}", "restartPolicy is Never"),
        ("metadata: {labels: {worker-manager/pool: other}}", "the label worker-manager/pool is how the pool is found"),
        ("spec: {containers: [{image: x}]}", "an element of containers lacks its name"),
        ("spec: {containers: [{name: worker, env: [{value: x}]}]}", "an element of env lacks its name"),
        ("spec: {volumes: {name: x}}", "volumes is a list"),
        ("spec: {a: &x [1], b: *x}", "it uses aliases"),
        ("spec: !!python/object/apply:os.system [id]", "it is no YAML"),
    ],
)
def test_what_makes_no_sense_is_said_when_the_pool_is_read(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(text)
    with pytest.raises(BackendUnusable) as wrong:
        chosen(pod_template=str(file))
    assert str(wrong.value).startswith(f"pod-template: {file}: ")
    assert words in str(wrong.value)
