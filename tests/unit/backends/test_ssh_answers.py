"""What ssh and a host said → what it means."""

import pytest

from backends.base import RefusalKind, WorkerPhase
from backends.ssh.answers import PHASES, Trouble, answer, failure, report, result

KEY_CHANGED = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n…\nHost key verification failed.\n"


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        ("me@gpu1: Permission denied (publickey).", RefusalKind.AUTH, "does not accept our key"),
        ("Received disconnect: Too many authentication failures", RefusalKind.AUTH, "identity-file"),
        ("Host key verification failed.", RefusalKind.CONFIG, "ssh-keyscan -H gpu1"),
        (KEY_CHANGED, RefusalKind.CONFIG, "ssh-keygen -R gpu1"),
        ("ssh: connect to host gpu1 port 22: Connection refused", RefusalKind.CAPACITY, "Connection refused"),
        ("ssh: connect to host gpu1 port 22: No route to host", RefusalKind.CAPACITY, "cannot be reached"),
        (
            "ssh: Could not resolve hostname gpu1: Name or service not known",
            RefusalKind.CONFIG,
            "correct it in `hosts`",
        ),
        ("ssh: Could not resolve hostname x: Temporary failure in name resolution", RefusalKind.CAPACITY, "now"),
        ("Connection timed out during banner exchange", RefusalKind.CAPACITY, "sshd does not answer"),
        ("kex_exchange_identification: read: Connection reset by peer", RefusalKind.CAPACITY, "sshd does not answer"),
        ("Can't open user config file /x: No such file or directory", RefusalKind.CONFIG, "own configuration"),
        ("/x: line 1: Bad configuration option: foo", RefusalKind.CONFIG, "own configuration"),
    ],
)
def test_what_ssh_says_before_it_runs_anything_is_certain(log: str, kind: RefusalKind, words: str) -> None:
    found = failure("gpu1", 255, f"Warning: Permanently added 'gpu1' to the list.\n{log}\n", "", "")
    assert (found.kind, found.certain) == (kind, True)
    assert words in found.text


@pytest.mark.parametrize(
    ("status", "log", "err", "out"),
    [
        (255, "Connection to gpu1 closed by remote host.", "", ""),
        (255, "", "", ""),
        (255, "mux_client_request_session: read from master failed: Broken pipe", "", ""),
        (255, "", "me@gpu1: Permission denied (publickey).", ""),  # said by the far side, not by ssh
        (0, "", "", "<html>login first</html>"),
        (1, "", "This account is currently not available.", ""),
        (-9, "", "", ""),
    ],
)
def test_what_may_have_happened_is_not_certain(status: int, log: str, err: str, out: str) -> None:
    found = failure("gpu1", status, log, err, out)
    assert not found.certain
    assert found.text


def test_a_host_without_python_is_told() -> None:
    found = failure("gpu1", 127, "", "wm-ssh: there is no Python 3.9 or newer here (looked for: python3)\n", "")
    assert (found.kind, found.certain) == (RefusalKind.CONFIG, True)


def test_ten_megabytes_are_told_in_short() -> None:
    assert len(failure("gpu1", 1, "", "", "x" * 10_000_000).text) <= 2100


def test_the_answer_is_found_among_what_else_is_said() -> None:
    said = 'Welcome!\nwm-other {"answer": 1}\n\nwm-mine {"answer": {"live": 2}}\nGoodbye\n'
    assert answer(said, "wm-mine") == {"answer": {"live": 2}}
    for garbage in ("", "wm-mine", "wm-mine {", "wm-mine []", "x wm-mine {}"):
        assert answer(garbage, "wm-mine") is None


@pytest.mark.parametrize(
    ("said", "certain"),
    [
        ({"refused": "quota", "text": "disk"}, True),
        ({"refused": "slots", "text": "full", "live": 3}, True),
        ({"unknown": "who knows"}, False),
        ({}, False),
        ({"answer": "no"}, False),
    ],
)
def test_a_refusal_of_the_far_side_is_certain_and_nonsense_is_not(said: dict[str, object], certain: bool) -> None:
    with pytest.raises(Trouble) as trouble:
        result(said)
    assert trouble.value.certain is certain


def one(phase: str, **more: object) -> dict[str, object]:
    worker = {"submission": "m-1", "index": 0, "phase": phase, "at": 5, **more}
    return {"workers": [worker], "boot": "b", "kept": True, "folder": "/f"}


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_is_known(phase: str) -> None:
    found = report(one(phase, exit_code=7, detail="words"), "gpu1")
    assert found.seen[0].phase is PHASES[phase]
    assert found.seen[0].handle == "m-1-0@gpu1"
    assert found.live == (0 if phase == "ended" else 1)
    assert found.seen[0].exit_code == (7 if phase == "ended" else None)


def test_a_phase_in_no_table_is_unknown_and_counts() -> None:
    found = report(one("spoilt"), "gpu1")
    assert (found.seen[0].phase, found.live) == (WorkerPhase.UNKNOWN, 1)


@pytest.mark.parametrize(
    "said", [{}, {"workers": 5}, {"workers": [{}]}, one("running", index="x"), {**one("running"), "workers": ["x"]}]
)
def test_a_list_that_makes_no_sense_is_trouble(said: dict[str, object]) -> None:
    with pytest.raises(Trouble, match="makes no sense"):
        report(said, "gpu1")
