"""What is sent to a cluster: valid in every version we speak to, restricted, and without a secret in the open."""

import base64
import json
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from backends.base import AGENT, AgentFile
from backends.kubernetes import manifest
from tests.conformance.of_contents import HOSTILE
from tests.stand_ins.kubernetes_node import expanded
from tests.unit.backends.kubernetes_words import chosen, submission
from worker.protocol import Shape

VERSIONS = ("1.25", "1.28", "1.31", "1.34", "1.37")
BIG = Shape(cpus=7500, memory=30 * 2**30, gpus=2, gpu_type="nvidia-l4", disk=10**11, walltime=3_600_000)

EVERYTHING = {
    "image": "team/worker:3",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry", "other"],
    "service_account": "worker",
    "priority_class": "low",
    "node_selector": ["pool=gpu", "empty="],
    "tolerations": ["dedicated=batch:NoSchedule", "spot:NoExecute", "any", "*"],
    "gpu_type_label": "cloud.google.com/gke-accelerator",
    "work_claim": "work",
    "grace_period": "90s",
}
CHOICES: list[dict[str, Any]] = [
    {},
    EVERYTHING,
    {"nfs_volume_name": "nfs"},
    {"work_nfs": "10.0.0.2:/export/work"},
    {"work_host_path": "/data"},
    {"run_as_user": "0"},
]


def job(**options: Any) -> dict[str, Any]:
    return manifest.job(submission(), 0, chosen(**options))


def spec_of(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", CHOICES, ids=lambda options: ", ".join(options)[:40] or "nothing")
def test_every_version_of_the_api_knows_what_is_sent(options: dict[str, Any], version: str) -> None:
    for shape in (Shape(), BIG):
        made = submission(3, shape=shape, setup=("module load x",), work_dir="/shared/work")
        kubernetes_validate.validate(manifest.job(made, 2, chosen(**options)), version, strict=True)
        kubernetes_validate.validate(manifest.secret(made, {"m-7-0": "uid"}), version, strict=True)


def test_a_wrong_manifest_would_be_found() -> None:
    wrong = job()
    spec_of(wrong)["affinity"] = {"podAntiAffinity": {"requiredDuringScheduling": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_a_launch_is_never_repeated_and_cleans_up_after_itself() -> None:
    made = job(keep_ended="10m")
    assert made["metadata"]["name"] == "m-7-0"
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["ttlSecondsAfterFinished"] == 600
    assert spec_of(made)["restartPolicy"] == "Never"


def test_job_and_pod_say_whose_they_are() -> None:
    made = manifest.job(submission(2, manager="m" * 40, pool="p" * 40), 1, chosen())
    for thing in (made, made["spec"]["template"]):
        labels = thing["metadata"]["labels"]
        assert labels["worker-manager/manager"] == "m" * 40
        assert labels["worker-manager/pool"] == "p" * 40
        assert labels["worker-manager/submission"] == "m-7"
        assert labels["worker-manager/index"] == "1"
        assert thing["metadata"]["annotations"]["worker-manager/config"] == "digest"


def test_no_node_is_taken_from_under_a_worker() -> None:
    annotations = job()["spec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


# ---------------------------------------------------------------- secrets


def test_a_join_token_stands_in_the_secret_alone() -> None:
    made = submission(3)
    for index in range(3):
        text = json.dumps(manifest.job(made, index, chosen(auth_token="env:TOKEN", cluster_host="https://k")))
        assert "canary" not in text
        assert base64.b64encode(made.join_tokens[index].encode()).decode() not in text
    data = manifest.secret(made, {})["data"]
    assert [base64.b64decode(data[str(index)]).decode() for index in range(3)] == list(made.join_tokens)


def test_a_pod_is_shown_its_own_key_as_a_file_for_nobody_else() -> None:
    spec = spec_of(manifest.job(submission(3), 2, chosen()))
    [volume] = [one["secret"] for one in spec["volumes"] if "secret" in one]
    assert volume == {"secretName": "m-7", "defaultMode": 0o400, "items": [{"key": "2", "path": "join-token"}]}
    assert f"WM_JOIN_TOKEN_FILE={manifest.TOKEN_FILE}" in spec["containers"][0]["command"][2]


def test_a_worker_without_a_token_has_no_secret() -> None:
    spec = spec_of(manifest.job(submission(1, join_tokens=()), 0, chosen()))
    assert [volume["name"] for volume in spec["volumes"]] == ["work"]
    assert "WM_JOIN_TOKEN_FILE" not in spec["containers"][0]["command"][2]


def test_the_secret_belongs_to_every_job_so_that_it_goes_with_the_last() -> None:
    owners = manifest.secret(submission(2), {"m-7-0": "u0", "m-7-1": "u1"})["metadata"]["ownerReferences"]
    assert [(owner["kind"], owner["name"], owner["uid"]) for owner in owners] == [
        ("Job", "m-7-0", "u0"),
        ("Job", "m-7-1", "u1"),
    ]


def test_what_is_rendered_is_what_is_sent_but_for_the_tokens() -> None:
    made, options = submission(2), chosen(namespace="batch")
    text = manifest.rendered(made, options, "batch")
    assert "canary" not in text
    *jobs, secret = yaml.safe_load_all(text)
    for index, one in enumerate(jobs):
        assert one["metadata"].pop("namespace") == "batch"
        assert one == manifest.job(made, index, options)
    assert secret["data"] == {"0": "***", "1": "***"}


# ---------------------------------------------------------------- the command


def test_a_command_comes_through_the_expansion_of_the_cluster_as_it_was() -> None:
    show = ("python3", "-c", "import os,sys; print(repr((sys.argv[1:], dict(os.environ))))")
    hostile = (*HOSTILE, "$(HOME) $$ $$(HOME) $(WM_WORK_DIR) $", "$$$(HOME)")
    environment = {f"V{number}": text for number, text in enumerate(hostile)}
    made = submission(1, command=(*show, *hostile), environment=environment)
    variables = {"HOME": "/expanded", "WM_WORK_DIR": "/expanded"}
    argv = [expanded(word, variables) for word in manifest.command(made, 0)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    words, found = eval(done.stdout)  # noqa: S307 -- our own repr
    expected = [made.filled(text, 0) for text in hostile]
    assert words == expected
    assert [found[name] for name in environment] == expected


def test_the_agent_is_fetched_by_digest_and_no_image_of_ours_is_needed() -> None:
    agent = AgentFile("https://hub/v1/worker/abc.pyz", "abc", "/here")
    spec = spec_of(manifest.job(submission(1, agent=agent, command=(AGENT, "--server", "https://hub")), 0, chosen()))
    assert spec["containers"][0]["image"] == "python:3.13-slim"
    script = spec["containers"][0]["command"][2]
    assert "https://hub/v1/worker/abc.pyz" in script
    assert "sha256" in script


# ---------------------------------------------------------------- resources, volumes, security


def test_requests_equal_limits_and_follow_the_shape() -> None:
    resources = spec_of(manifest.job(submission(1, shape=BIG), 0, chosen()))["containers"][0]["resources"]
    wanted = {"cpu": "7500m", "memory": str(30 * 2**30), "ephemeral-storage": str(10**11), "nvidia.com/gpu": "2"}
    assert resources == {"requests": wanted, "limits": wanted}


def test_a_gpu_may_have_another_name_and_its_taint_is_tolerated() -> None:
    spec = spec_of(manifest.job(submission(1, shape=BIG), 0, chosen(gpu_resource="amd.com/gpu")))
    assert spec["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    without = spec_of(job())
    assert "tolerations" not in without
    assert "nvidia.com/gpu" not in without["containers"][0]["resources"]["limits"]


def test_the_type_of_a_gpu_selects_nodes_where_a_label_names_it() -> None:
    made = submission(1, shape=BIG)
    assert "nodeSelector" not in spec_of(manifest.job(made, 0, chosen()))
    options = chosen(gpu_type_label="gpu-type", node_selector="zone=a")
    assert spec_of(manifest.job(made, 0, options))["nodeSelector"] == {"gpu-type": "nvidia-l4", "zone": "a"}


@pytest.mark.parametrize(
    ("options", "volume"),
    [
        ({"nfs_volume_name": "nfs"}, {"persistentVolumeClaim": {"claimName": "nfs-claim"}}),
        ({"work_claim": "work"}, {"persistentVolumeClaim": {"claimName": "work"}}),
        ({"work_nfs": "host:/a/b"}, {"nfs": {"server": "host", "path": "/a/b"}}),
        ({"work_host_path": "/data"}, {"hostPath": {"path": "/data", "type": "DirectoryOrCreate"}}),
        ({}, {"emptyDir": {}}),
    ],
)
def test_the_work_dir_is_a_volume_where_the_pool_says(options: dict[str, str], volume: dict[str, Any]) -> None:
    spec = spec_of(manifest.job(submission(1, work_dir="/shared/work"), 0, chosen(**options)))
    assert {"name": "work", **volume} in spec["volumes"]
    assert {"name": "work", "mountPath": "/shared/work"} in spec["containers"][0]["volumeMounts"]
    elsewhere = spec_of(job(**options))
    assert {"name": "work", "mountPath": manifest.WORK_DIR} in elsewhere["containers"][0]["volumeMounts"]
    assert {"name": "WM_WORK_DIR", "value": manifest.WORK_DIR} in elsewhere["containers"][0]["env"]


def test_by_itself_a_pod_is_as_the_restricted_profile_wants_it() -> None:
    spec = spec_of(job())
    assert restricted_problems(spec) == []
    assert spec["securityContext"]["fsGroup"] == 1000, "or the token's file could not be read"
    assert spec["automountServiceAccountToken"] is False


def test_root_is_outside_the_restricted_profile_and_still_bounded() -> None:
    spec = spec_of(job(run_as_user="0"))
    assert restricted_problems(spec) == ["runAsNonRoot", "capabilities"]


def restricted_problems(spec: dict[str, Any]) -> list[str]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod = spec.get("securityContext", {})
    found = []
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        found += ["runAsNonRoot"] if not own.get("runAsNonRoot", pod.get("runAsNonRoot")) else []
        found += ["runAsUser"] if own.get("runAsUser", pod.get("runAsUser")) == 0 else []
        found += ["privilege escalation"] if own.get("allowPrivilegeEscalation") is not False else []
        found += ["capabilities"] if "ALL" not in own.get("capabilities", {}).get("drop", []) else []
        profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
        found += ["seccomp"] if profile not in ("RuntimeDefault", "Localhost") else []
        found += ["privileged"] if own.get("privileged") else []
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {volume['name']}" for volume in spec["volumes"] if set(volume) - {"name"} - allowed]
    found += [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    return found


def test_walltime_ends_a_worker_that_does_not_leave() -> None:
    assert spec_of(manifest.job(submission(1, shape=BIG), 0, chosen()))["activeDeadlineSeconds"] == 3600 + 120
    assert "activeDeadlineSeconds" not in spec_of(job())


# ---------------------------------------------------------------- what can never be started


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "Upper"}, "is not a name"),
        ({"id": "x" * 37}, "is not a name"),
        ({"count": 51}, "1 to 50"),
        ({"count": 0, "join_tokens": ()}, "1 to 50"),
        ({"join_tokens": ("a", "b")}, "2 join tokens for 1 workers"),
        ({"environment": {"a b": "c"}}, "environment variable"),
        ({"command": ("a\0b",)}, "NUL"),
        ({"command": ()}, "no command"),
        ({"work_dir": "relative"}, "not an absolute path"),
    ],
)
def test_what_can_never_be_started_is_said(change: dict[str, Any], words: str) -> None:
    assert words in manifest.problem(submission(**{"count": 1, **change}), 50)
    assert manifest.problem(submission(), 50) == ""
