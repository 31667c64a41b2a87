"""What a server says no with → what kind of refusal it is, or that nobody can know."""

import json

import pytest

from backends.base import RefusalKind, Refused, Unknown
from backends.kubernetes import names
from backends.kubernetes.answers import refused
from backends.kubernetes.api import Answer, NoAnswer
from backends.kubernetes.doctor import RIGHTS
from backends.kubernetes.quantities import amount, fits_words, shown
from tests.unit.backends.kubernetes_words import submission
from worker.protocol import Shape


def answer(status: int, message: str = "words", **headers: str) -> Answer:
    body = {"kind": "Status", "message": message, "reason": "Some"}
    return Answer(status, json.dumps(body).encode(), headers)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "x", RefusalKind.CONFIG),
        (401, "Unauthorized", RefusalKind.AUTH),
        (403, 'jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group', RefusalKind.AUTH),
        (403, 'jobs.batch "m" is forbidden: exceeded quota: q, requested: count/jobs.batch=1', RefusalKind.QUOTA),
        (403, 'jobs.batch "m" is forbidden: failed quota: q: must specify limits.cpu', RefusalKind.CONFIG),
        (403, 'jobs.batch "m" is forbidden: unable to create new content: it is being terminated', RefusalKind.CONFIG),
        (403, "admission webhook x denied the request", RefusalKind.CONFIG),
        (404, 'namespaces "x" not found', RefusalKind.CONFIG),
        (409, "the object has been modified; please apply your changes to the latest version", RefusalKind.THROTTLED),
        (409, 'jobs.batch "m" already exists', RefusalKind.CONFIG),
        (413, "too large", RefusalKind.CONFIG),
        (422, "Invalid value", RefusalKind.CONFIG),
        (429, "too many requests", RefusalKind.THROTTLED),
    ],
)
def test_a_server_that_looked_and_said_no_has_refused(status: int, message: str, kind: RefusalKind) -> None:
    no = refused(answer(status, message))
    assert isinstance(no, Refused)
    assert (no.kind, no.text) == (kind, message)


@pytest.mark.parametrize("status", [100, 302, 408, 418, 500, 502, 503, 504])
def test_after_anything_else_nobody_knows(status: int) -> None:
    assert isinstance(refused(answer(status, "etcdserver: request timed out")), Unknown)


def test_a_throttled_call_says_when_to_come_back() -> None:
    no = refused(answer(429, "later", **{"Retry-After": "7"}))
    assert isinstance(no, Refused)
    assert no.retry_after_s == 7
    assert refused(answer(429, "later", **{"retry-after": "soon"})) == Refused(RefusalKind.THROTTLED, "later")


def test_words_are_the_servers_own_and_on_one_page() -> None:
    assert answer(422, "x" * 10**7).words().startswith("xxx")
    assert len(answer(422, "x" * 10**7).words()) <= 2000
    assert Answer(502, b"<html>Bad Gateway</html>").words() == "<html>Bad Gateway</html>"
    assert Answer(502, b"").words() == "HTTP 502"
    assert Answer(502, b"\xff\xfe").words()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"3", b'"x"', b"\xff"])
def test_what_is_no_object_is_no_answer(body: bytes) -> None:
    with pytest.raises(NoAnswer):
        Answer(200, body).thing()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "text", ["", "x", "m-7-0", "m-7-0/", "/u", "../u", "m/../x", "M/u", "m/u$(id)", "x\0y/u", "m/a,b"]
)
def test_what_is_no_handle_of_ours_is_known_at_once(text: str) -> None:
    assert names.handle(text) is None


def test_a_handle_names_one_job_and_no_later_one() -> None:
    made = names.Handle("m-7-0", "0b6cf3aa-6a5c-4f0e-9a57-2f1f7d1f3c55")
    assert names.handle(str(made)) == made


def test_a_selector_finds_what_the_labels_say() -> None:
    selector = names.pool_selector("m", "p")
    labels = names.labels(submission())
    assert all(f"{name}={value}" in selector for name, value in labels.items() if name != names.SUBMISSION)


@pytest.mark.parametrize("text", ["a b", "x" * 64, "-x", "ü", "a,b=c", "a\nb"])
def test_what_cannot_be_a_label_has_one_that_stands_for_it(text: str) -> None:
    value = names.label_value(text)
    assert value != text
    assert names.label_value(value) == value
    assert names.label_value(text + "x") != value


# ---------------------------------------------------------------- amounts


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), ("1.5Gi", 1.5 * 2**30), ("128974848", 128974848), ("129e6", 129e6), ("1k", 1000),
     ("100M", 1e8), ("3Ti", 3 * 2**40), ("", 0), ("nan", 0), ("much", 0), (None, 0), (4, 4)],
)  # fmt: skip
def test_amounts_are_read_as_the_api_writes_them(text: object, number: float) -> None:
    assert amount(text) == pytest.approx(number)


def test_what_does_not_fit_is_named() -> None:
    shape = Shape(cpus=4000, memory=16 * 2**30, gpus=1)
    assert fits_words(shape, (4000, 16 * 2**30, 1)) == ""
    assert fits_words(shape, (3900, 2**30, 1)) == "no node has 4 CPUs and 16 GiB of memory for a worker"
    assert "1 GPUs" in fits_words(shape, (4000, 16 * 2**30, 0))
    assert shown(0, 0, 0) == "nothing"


def test_no_right_is_asked_for_twice_and_none_to_read_secrets() -> None:
    assert len(set(RIGHTS)) == len(RIGHTS)
    assert [verb for _, kind, verb in RIGHTS if kind == "secrets"] == ["create"]
