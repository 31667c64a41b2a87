"""The options of aws-batch: CodaLab's names and defaults, and every mistake said at once."""

from typing import Any

import pytest

from backends.aws_batch.settings import OPTIONS, Settings, Volume, settings
from backends.base import BackendUnusable
from backends.options import read


def chosen(**given: Any) -> Settings:
    return settings(read(OPTIONS, given))


def test_codalabs_options_have_their_names_and_defaults() -> None:
    defaults = {option.name: option.default for option in OPTIONS}
    assert defaults["region"] == "us-east-1"
    assert defaults["user"] == "root"
    assert defaults["job-queue"] == "codalab-batch-cpu"
    assert {"job-definition-name", "job-filter"} <= set(defaults)
    given = {"job-definition-name": "codalab-worker", "job-filter": "worker.*", "job-queue": "q", "user": "me"}
    made = chosen(**given)
    assert (made.prefix, made.queue, made.user) == ("codalab-worker", "q", "me")


def test_mounts() -> None:
    made = chosen(volume=["/a:/b", "/c:/d:ro", "fs-0123abcd:/e", "fs-0123abcd/f/g:/h:rw"])
    assert made.volumes == (
        Volume("/a", "/b"),
        Volume("/c", "/d", read_only=True),
        Volume("/", "/e", "fs-0123abcd"),
        Volume("/f/g", "/h", "fs-0123abcd"),
    )


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"job-queue": ""}, "job-queue"),
        ({"job-definition-name": "a b"}, "job-definition-name"),
        ({"job-definition-name": "x" * 101}, "job-definition-name"),
        ({"image": ""}, "image"),
        ({"image": "a b"}, "image"),
        ({"volume": ["relative:/x"]}, "volume"),
        ({"volume": ["/a"]}, "volume"),
        ({"volume": ["/a:b"]}, "volume"),
        ({"volume": ["/a:/b:wx"]}, "volume"),
        ({"volume": ["fs-XYZ:/b"]}, "volume"),
        ({"work-dir-volume": "somewhere"}, "work-dir-volume"),
        ({"secret": ["A=arn:aws:x"]}, "execution-role-arn"),
        ({"secret": ["A"], "execution-role-arn": "r"}, "secret"),
        ({"secret": ["1A=x"], "execution-role-arn": "r"}, "secret"),
        ({"tag": ["a"]}, "tag"),
        ({"tag": ["aws:x=y"]}, "tag"),
        ({"tag": ["wm-pool=y"]}, "tag"),
        ({"tag": [f"t{number}=x" for number in range(46)]}, "tag"),
        ({"scheduling-priority": "10000"}, "scheduling-priority"),
        ({"public-ip": "yes"}, "public-ip"),
        ({"platform": "fargate"}, "execution-role-arn"),
        ({"platform": "fargate", "execution-role-arn": "r", "privileged": "yes"}, "privileged"),
        ({"platform": "fargate", "execution-role-arn": "r", "shared-memory": "1g"}, "shared-memory"),
        ({"platform": "fargate", "execution-role-arn": "r", "volume": ["/a:/b"]}, "EFS only"),
        ({"platform": "fargate", "execution-role-arn": "r", "work-dir-volume": "/a"}, "EFS only"),
    ],
)
def test_a_mistake_is_named(given: dict[str, Any], word: str) -> None:
    with pytest.raises(BackendUnusable, match=word):
        chosen(**given)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(BackendUnusable) as wrong:
        chosen(**{"job-queue": "", "image": "", "volume": ["x"], "tag": ["y"]})
    assert len(str(wrong.value).splitlines()) == 4


def test_a_platform_that_is_not_there() -> None:
    with pytest.raises(BackendUnusable, match="ec2, fargate"):
        chosen(platform="eks")
