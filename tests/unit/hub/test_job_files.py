"""Inputs and outputs as clients may ask for them: paths, sources, places, and what is said of a mistake."""

from typing import Any

import pytest
from pydantic import ValidationError

from worker_manager.hub.files.names import BadName, Storages, is_safe_path, read_prefix, read_source
from worker_manager.hub.problems import from_validation
from worker_manager.hub.types import JobSpec, Submit

DIGEST = "0123456789abcdef" * 4


def submit(**spec: Any) -> JobSpec:
    return Submit.model_validate({"jobs": [{"command": ["true"], **spec}]}).jobs[0]


def mistake(**spec: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as refused:
        submit(**spec)
    (first, *_) = from_validation(refused.value).errors
    return first["where"], first["what"]


def test_inputs_and_outputs_stand_in_the_work_and_ask_for_a_worker_that_knows_them() -> None:
    job = submit(
        inputs=[
            {"from": "https://example.org/data/a.tar.gz?sign=1", "unpack": True, "size": 10},
            {"source": f"blob:{DIGEST}", "to": "model/weights", "copy": True, "run": True},
            {"source": "job:j7/out/table.csv"},
            {"source": "s3://bucket/some/folder/", "to": "folder"},
        ],
        outputs=[{"glob": "out/**"}, {"glob": "log", "to": "s3://bucket/{job}/", "required": False, "always": True}],
    )
    assert job.work["inputs"] == [
        {"to": "a", "source": "https://example.org/data/a.tar.gz?sign=1", "size": 10, "unpack": True},
        {"to": "model/weights", "source": f"blob:{DIGEST}", "sha256": DIGEST, "copy": True, "run": True},
        {"to": "table.csv", "source": "job:j7/out/table.csv"},
        {"to": "folder", "source": "s3://bucket/some/folder/"},
    ]
    assert job.work["outputs"] == [
        {"glob": "out/**", "to": "hub", "required": True, "always": False},
        {"glob": "log", "to": "s3://bucket/{job}/", "required": False, "always": True},
    ]
    assert job.asks.can == ("inputs", "outputs")
    assert submit(inputs=[{"from": "file:///data/x"}]).asks.can == ("inputs", "paths")
    assert (submit().work, submit().asks.can) == ({}, ())


PLAIN = "https://example.org/a"


@pytest.mark.parametrize(
    ("each", "where", "what"),
    [
        ({"from": PLAIN, "to": "/etc/passwd"}, "inputs[0].to", "without / in front"),
        ({"from": PLAIN, "to": "a/../../b"}, "inputs[0].to", "without .."),
        ({"from": PLAIN, "to": "./a"}, "inputs[0].to", "without ."),
        ({"from": PLAIN, "to": "a//b"}, "inputs[0].to", "empty parts"),
        ({"from": PLAIN, "to": "a/"}, "inputs[0].to", "empty parts"),
        ({"from": PLAIN, "to": ""}, "inputs[0].to", "empty"),
        ({"from": PLAIN, "to": "a\0b"}, "inputs[0].to", "control"),
        ({"from": PLAIN, "to": "a\nb"}, "inputs[0].to", "control"),
        ({"from": PLAIN, "to": "ä" * 128}, "inputs[0].to", "longer than 255 bytes"),
        ({"from": PLAIN, "to": ("a" * 99 + "/") * 10 + "b"}, "inputs[0].to", "longer than 1000 bytes"),
        ({"from": PLAIN, "to": "a/" * 64 + "b"}, "inputs[0].to", "64 folders deep"),
        ({"from": PLAIN, "to": 3}, "inputs[0].to", "string"),
        ({"from": PLAIN, "sha256": DIGEST.upper()}, "inputs[0].sha256", "pattern"),
        ({"from": PLAIN, "size": -1}, "inputs[0].size", "greater"),
        ({"from": PLAIN, "unpack": "yes"}, "inputs[0].unpack", "boolean"),
        ({"from": PLAIN, "mode": 7}, "inputs[0].mode", "no such field"),
        ({"to": "a"}, "inputs[0].source", "required"),
        ({"from": f"blob:{DIGEST}"}, "inputs[0]", "say `to`"),
        ({"from": "job:j7/", "unpack": True}, "inputs[0]", "say `to`"),
        ({"from": "s3://bucket/"}, "inputs[0]", "say `to`"),
        ({"from": "s3://bucket/a/", "unpack": True}, "inputs[0]", "everything below"),
        ({"from": "s3://bucket/a.zip", "unpack": True, "run": True}, "inputs[0]", "no run"),
        ({"from": f"blob:{DIGEST}", "to": "a", "sha256": "f" * 64}, "inputs[0]", "another digest"),
        ({"from": "ftp://example.org/a"}, "inputs[0].from", "a source is one of"),
        ({"from": "/data/a"}, "inputs[0].from", "a source is one of"),
        ({"from": "blob:1234", "to": "a"}, "inputs[0].from", "64 digits"),
        ({"from": "job:7/a"}, "inputs[0].from", "job:ID/path"),
        ({"from": "job:j7/../j8/a"}, "inputs[0].from", "without .."),
        ({"from": "job:j7"}, "inputs[0].from", "job:ID/path"),
        ({"from": "https://user:word@example.org/a"}, "inputs[0].from", "no user and password"),
        ({"from": "https:///a"}, "inputs[0].from", "no host"),
        ({"from": "https://[::1/a"}, "inputs[0].from", "no web address"),
        ({"from": "https://example.org/a b"}, "inputs[0].from", "%20"),
        ({"from": "file://host/a"}, "inputs[0].from", "three slashes"),
        ({"from": "file:///data/../etc/shadow"}, "inputs[0].from", "without .."),
        ({"from": "s3://b/x"}, "inputs[0].from", "bucket/name"),
        ({"from": "s3://bucket/prefix/../secret"}, "inputs[0].from", "without .."),
        ({"from": "s3://bucket/prefix//secret"}, "inputs[0].from", "empty parts"),
        ({"from": "az://Account/box/a"}, "inputs[0].from", "account/container/blob"),
        ({"from": "s3://bucket/a\u200b"}, "inputs[0].from", "cannot be seen"),
        ({"from": "s3:/bucket/a"}, "inputs[0].from", "in front"),
        ({"from": "https://example.org/" + "a" * 5000}, "inputs[0].from", "longer than"),
    ],
)
def test_an_input_that_cannot_be_taken_is_explained(each: Any, where: str, what: str) -> None:
    found, said = mistake(inputs=[each])
    assert (found, what in said) == (f"jobs[0].{where}", True), said


@pytest.mark.parametrize(
    ("each", "where", "what"),
    [
        ({"glob": "../*"}, "outputs[0].glob", "without .."),
        ({"glob": "/tmp/*"}, "outputs[0].glob", "without / in front"),
        ({"glob": ""}, "outputs[0].glob", "empty"),
        ({"glob": "a", "to": "s3://bucket/a"}, "outputs[0].to", "ends in /"),
        ({"glob": "a", "to": "https://example.org/a/"}, "outputs[0].to", "object storage"),
        ({"glob": "a", "to": "elsewhere"}, "outputs[0].to", "a source is one of"),
        ({"to": "hub"}, "outputs[0].glob", "required"),
    ],
)
def test_an_output_that_cannot_be_taken_is_explained(each: Any, where: str, what: str) -> None:
    found, said = mistake(outputs=[each])
    assert (found, what in said) == (f"jobs[0].{where}", True), said


def test_what_does_not_go_together() -> None:
    assert "both go to 'a'" in mistake(inputs=[{"from": PLAIN}, {"from": "file:///a"}])[1]
    assert "would lie within inputs[0], 'a'" in mistake(inputs=[{"from": PLAIN}, {"from": PLAIN, "to": "a/b/c"}])[1]
    assert "stands there twice" in mistake(outputs=[{"glob": "a"}, {"glob": "a"}])[1]
    shared = [{"glob": "a", "to": "s3://bucket/x/"}]
    assert "overwrite each other" in mistake(outputs=shared, array={"count": 2})[1]
    assert submit(outputs=[{"glob": "a", "to": "s3://bucket/{job}/"}], array={"count": 2}).array is not None
    assert "at most 1000" in mistake(inputs=[{"from": PLAIN, "to": f"a{n}"} for n in range(1001)])[1]
    assert "at most 100" in mistake(outputs=[{"glob": f"a{n}"} for n in range(101)])[1]
    long = "https://example.org/" + "a" * 4000
    assert "1 MiB together" in mistake(inputs=[{"from": long, "to": f"a{n}"} for n in range(300)])[1]


@pytest.mark.parametrize("text", ["a", "a/b", "ä\n", "a\\b", "-rf", "..a"])
def test_paths_that_a_worker_may_tell(text: str) -> None:
    assert is_safe_path(text)


@pytest.mark.parametrize(
    "text", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a\0", "x" * 256, "a/" * 600 + "b", None, 3]
)
def test_paths_that_leave_their_place(text: Any) -> None:
    assert not is_safe_path(text)


def test_below_the_storages_that_the_operator_named() -> None:
    named = Storages(("s3://bucket/data", "az://account/box/{owner}/", "gs://whole"))
    for source, owner in (
        ("s3://bucket/data/a", "alice"),
        ("az://account/box/alice/a", "alice"),
        ("gs://whole/x/y/", "bob"),
    ):
        assert named.cover(read_source(source), owner)
    for source, owner in (
        ("s3://bucket/database", "alice"),
        ("s3://bucket/data", "alice"),
        ("s3://other/data/a", "alice"),
        ("az://account/box/alice/a", "bob"),
        ("az://account/box/alicex/a", "alice"),
        ("gs://whole2/x", "alice"),
    ):
        assert not named.cover(read_source(source), owner)
    assert named.cover(read_prefix("s3://bucket/data/{job}/"), "alice")
    said = named.refusal(read_source("s3://other/a"), "alice")
    assert "s3://bucket/data/, az://account/box/alice/, gs://whole/" in said
    assert "--storage" in Storages().refusal(read_source("s3://other/a"), "alice")


@pytest.mark.parametrize("text", ["bucket/data", "https://example.org/", "s3://", "s3://bucket/../", "az://account"])
def test_a_storage_that_is_none(text: str) -> None:
    with pytest.raises(BadName, match="is no storage"):
        Storages((text,))
