"""What an instance is started with."""

import ast
import base64
import gzip
import random
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from backends.base import AgentFile, Submission
from backends.ec2_asg import on_node, recipe
from backends.ec2_asg.userdata import MOST_BYTES, BadMount, Machine, packed, read_mount, user_data
from worker.protocol import Shape

AGENT = AgentFile("https://hub.example:8443/v1/worker/abc.pyz", "a" * 64, "/nowhere")
COMMAND = ("wm-worker", "--server", "https://hub.example:8443", "--join-identity", "aws", "--pool", "p")


def submission(
    command: tuple[str, ...] = COMMAND,
    environment: Mapping[str, str] | None = None,
    setup: tuple[str, ...] = (),
    tokens: tuple[str, ...] = (),
) -> Submission:
    return Submission(
        "s1", 2, "p", "m", Shape(1000, 2**30), command, environment or {}, tokens, setup=setup, agent=AGENT
    )


def text(machine: Machine = Machine(), **more: object) -> str:  # noqa: B008 - frozen
    return user_data(submission(**more), "workers", "eu-west-1", machine)  # type: ignore[arg-type]


def is_shell(script: str) -> bool:
    return subprocess.run(["/bin/sh", "-n"], input=script.encode(), capture_output=True).returncode == 0


EVERYTHING = Machine(
    boot=("dnf install -y git", "echo 'two words' $HOME"),
    mounts=(read_mount("fs-0123456789abcdef0:/jobs"), read_mount("nfs.example:/export/x:/data:ro")),
    tmp_device="/dev/sdf",
    docker_device="/dev/sdg",
    swap=2**30,
)


def test_it_is_a_script_of_the_plain_shell_and_fits() -> None:
    for machine in (Machine(), EVERYTHING, Machine(leaves=False)):
        script = text(machine, setup=("module load python",), environment={"A": "it's\n$(x)"})
        assert is_shell(script)
        assert len(base64.b64decode(packed(script))) <= MOST_BYTES


def test_the_same_launch_is_the_same_text_and_names_no_worker_and_no_token() -> None:
    assert text() == text()
    assert text() == text(tokens=("wmj_one", "wmj_two"))
    assert "wmj_" not in text(tokens=("wmj_one", "wmj_two"))
    assert "s1" not in text()
    assert 'on_node.py" worker' not in text(), "the agent learns at the hub who it is"


@pytest.mark.parametrize(
    "more",
    [
        {"command": ("/bin/echo", "{worker}")},
        {"environment": {"NUMBER": "{index}"}},
        {"setup": ('echo "$WM_WORKER"',)},
    ],
)
def test_who_asks_for_its_name_waits_until_it_is_told(more: dict[str, object]) -> None:
    assert 'on_node.py" worker 900' in text(**more)
    assert is_shell(text(**more))


def test_volumes_mounts_and_boot_lines_come_before_the_worker_and_in_that_order() -> None:
    script = text(EVERYTHING)
    order = [
        "disk /dev/sdf",
        "disk /dev/sdg",
        "mkswap",
        "dnf install -y nfs-utils",
        "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com:/ /jobs nfs4",
    ]
    order += ["nfs.example:/export/x /data nfs4 ro", "dnf install -y git", "systemctl enable --now"]
    places = [script.index(words) for words in order]
    assert places == sorted(places)
    assert f"fallocate -l {2**30} /swapfile" in script
    assert is_shell(script)


def test_a_boot_line_that_fails_starts_no_worker(tmp_path: Path) -> None:
    script = text(Machine(boot=("echo first", "false", "echo never"), home=str(tmp_path)))
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert done.stdout == "first\n"
    assert "a boot line failed" in done.stderr


def test_what_leaves_by_itself_says_so_and_may_be_kept_from_it() -> None:
    assert "leave workers" in text()
    assert 'on_node.py" leave' in text()
    assert 'on_node.py" leave' not in text(Machine(leaves=False))


def test_a_text_that_looks_like_the_end_of_a_file_is_not_one() -> None:
    script = text(setup=("cat <<WM_END\nhello\nWM_END", "cat <<WM_END_\nhello\nWM_END_"))
    assert is_shell(script)
    assert "<<'WM_END__'" in script


def test_what_is_long_is_compressed_and_what_is_too_long_is_refused() -> None:
    long = "#!/bin/sh\n" + "echo the same words again and again\n" * 2000
    data = base64.b64decode(packed(long))
    assert gzip.decompress(data).decode() == long
    assert packed(long) == packed(long)
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=60_000))  # noqa: S311
    with pytest.raises(ValueError, match="shorten boot"):
        packed(noise)


def test_mounts_are_read() -> None:
    efs, nfs = read_mount("fs-0123:/jobs"), read_mount("10.0.0.1:/export/a:/jobs/b")
    assert (efs.source, efs.target, efs.is_efs) == ("fs-0123", "/jobs", True)
    assert (nfs.source, nfs.target, nfs.is_efs) == ("10.0.0.1:/export/a", "/jobs/b", False)
    assert "hard" in nfs.options
    assert read_mount("fs-0123:/jobs:ro,hard").options == "ro,hard"


@pytest.mark.parametrize(
    "wrong", ["", "x", "/a:/b", ":/a:/b", "host:/only", "fs-1", "fs-1:", "a b:/c:/d", "h:/a:/b\nc"]
)
def test_a_mount_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(BadMount):
        read_mount(wrong)


# ---------------------------------------------------------------- on the node


def test_the_program_for_the_node_is_python_3_9() -> None:
    source = Path(on_node.__file__).read_text()
    ast.parse(source, feature_version=(3, 9))
    imported = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
    }
    assert not any(name.startswith(("backends", "worker", "boto")) for name in imported)


def test_its_signature_is_the_one_of_awss_own_signer() -> None:
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = {"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "secret/+key", "Token": "token=="}
    body = b"Action=TerminateInstanceInAutoScalingGroup&InstanceId=i-1"
    ask = on_node.signed("https://autoscaling.eu-west-1.amazonaws.com", body, "eu-west-1", keys)
    headers = {name.lower(): value for name, value in ask.header_items()}
    request = AWSRequest(
        "POST", ask.full_url, headers={k: v for k, v in headers.items() if k != "authorization"}, data=body
    )
    request.context["timestamp"] = headers["x-amz-date"]
    signer = auth.SigV4Auth(Credentials(*keys.values()), "autoscaling", "eu-west-1")
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert headers["authorization"].endswith(f"Signature={expected}")
    assert dict(parse_qsl(body.decode()))["InstanceId"] == "i-1"


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"id": "UPPER"}, "not a name"),
        ({"id": "x" * 37}, "not a name"),
        ({"count": 101}, "101 workers"),
        ({"count": 0}, "0 workers"),
        ({"join_tokens": ("a",)}, "1 join tokens for 2"),
        ({"environment": {"not-a-name": "x"}}, "not the name"),
        ({"environment": {"A": "\0"}}, "NUL"),
        ({"pool": "another"}, "this backend serves"),
        ({"command": ()}, "no command"),
    ],
)
def test_what_can_never_be_launched_is_refused(changed: dict[str, object], words: str) -> None:
    assert recipe.problem(submission(), 100, ("m", "p")) == ""
    assert words in recipe.problem(replace(submission(), **changed), 100, ("m", "p"))  # type: ignore[arg-type]


def test_what_is_rendered_is_what_would_be_sent() -> None:
    shown = recipe.rendered(submission(), "workers", "eu-west-1", Machine(), "auto")
    assert '"ClientToken": "s1"' in shown
    assert "HonorCooldown" in shown
    assert text() in shown
    only = recipe.rendered(submission(), "workers", "eu-west-1", Machine(), "desired-capacity")
    assert "ClientToken" not in only
