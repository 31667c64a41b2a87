"""Flags over environment over defaults; every mistake says where; no token is shown."""

from pathlib import Path

import pytest

from worker.options import Options, UsageError, parse

TOKEN = "tok-12345"


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return str(path)


def options(*argv: str, **env: str) -> Options:
    return parse(["--server", "http://127.0.0.1:1", *argv], env)


def test_defaults(token_file: str) -> None:
    read = options("--join-token-file", token_file)
    assert (read.token, read.by_hand, read.terms.idle_exit_ms, read.join_ms) == (TOKEN, False, None, 300_000)
    assert read.worker and len(read.worker) <= 40
    assert TOKEN not in repr(read)


def test_flags_win_over_the_environment(token_file: str) -> None:
    env = {"WM_JOIN_TOKEN_FILE": token_file, "WM_POOL": "env", "WM_IDLE_SECONDS": "90", "WM_TAG": "a b", "WM_CPUS": ""}
    read = options("--pool", "flag", "--tag", "x", "--tag", "y,z", **env)
    assert read.pool == "flag"
    assert read.terms.idle_exit_ms == 90_000
    assert read.wishes.tags == ("x", "y", "z")
    assert read.wishes.cpus is None, "an empty variable says nothing"
    assert options(**env).wishes.tags == ("a", "b")


def test_amounts_have_units(token_file: str) -> None:
    argv = ["--cpus", "1.5", "--memory", "2GiB", "--walltime", "1h", "--custom", "licence=2,tape=1", "--gpus", "0"]
    wishes = options("--join-token-file", token_file, *argv).wishes
    assert (wishes.cpus, wishes.memory, wishes.walltime, wishes.gpus) == (1500, 2 * 2**30, 3_600_000, 0)
    assert wishes.custom == (("licence", 2), ("tape", 1))
    both = options("--join-token-file", token_file, "--resource", "fpga=2", "--resource", "dsp=1", "--custom", "tape=1")
    assert both.wishes.custom == (("dsp", 1), ("fpga", 2), ("tape", 1)), "--resource is another word for it"


def test_limits_by_groups_or_by_looking(token_file: str) -> None:
    assert options("--join-token-file", token_file).limits == "auto"
    assert options("--join-token-file", token_file, WM_LIMITS="watch").limits == "watch"
    with pytest.raises(UsageError, match="--limits"):
        options("--join-token-file", token_file, "--limits", "none")


def test_the_platform_may_say_how_long_before_its_end_it_signals(token_file: str) -> None:
    argv = ["--server", "https://hub", "--join-token-file", token_file]
    assert parse(argv, {}).terms.notice_ms == 60_000
    assert parse(argv, {"WM_NOTICE_SECONDS": "90s"}).terms.notice_ms == 90_000


def test_switches(token_file: str) -> None:
    read = options("--join-token-file", token_file, "--exit-on-exception", WM_PASS_DOWN_TERMINATION="yes")
    assert read.exit_on_exception and read.terms.pass_down
    assert not read.delete_work_dir


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--memory", "2XB"], "--memory"),
        (["--cpus", "many"], "--cpus"),
        (["--worker-id", "No_Good"], "--worker-id"),
        (["--exit-after-num-runs", "0"], "--exit-after-num-runs"),
        (["--custom", "x"], "--custom"),
        (["--log-format", "xml"], "--log-format"),
        (["--tag-exclusive"], "--tag-exclusive"),
        (["--server", "http://elsewhere:1"], "--server"),
        (["--ca-fingerprint", "ab"], "--server"),
        (["--serv", "x"], "unrecognized"),
        (["--token-file", "/nowhere"], "one token"),
    ],
)
def test_mistakes_say_where(token_file: str, argv: list[str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        options("--join-token-file", token_file, *argv)


def test_a_mistake_in_the_environment_names_the_variable(token_file: str) -> None:
    with pytest.raises(UsageError, match="WM_MEMORY"):
        options("--join-token-file", token_file, WM_MEMORY="lots")


def test_without_a_server_or_a_token() -> None:
    with pytest.raises(UsageError, match="--server"):
        parse([], {})
    with pytest.raises(UsageError, match="one token"):
        options()


def test_a_long_lived_token_must_be_private(token_file: str) -> None:
    assert options("--token-file", token_file).by_hand
    Path(token_file).chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        options("--token-file", token_file)


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", b"a\nb", b"x" * 5000])
def test_files_that_hold_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="--join-token-file") as caught:
        options("--join-token-file", str(path))
    assert not content or content.decode("latin-1") not in str(caught.value)


def test_a_token_in_the_environment_is_taken_out_of_it() -> None:
    env = {"WM_JOIN_TOKEN": TOKEN}
    assert parse(["--server", "http://127.0.0.1:1"], env).token == TOKEN
    assert env == {}


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--hook-start", "  ", "no line of shell"),
        ("--hook-before-job", "", "no line of shell"),
        ("--hook-seconds", "0", "none could ever end"),
        ("--wrap", "'open", "cannot be split"),
        ("--wrap", " ", "no word"),
    ],
)
def test_hooks_that_are_none(token_file: str, flag: str, value: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        options("--join-token-file", token_file, flag, value)


def test_a_worker_without_hooks_has_none_for_its_keeper(token_file: str) -> None:
    found = options("--join-token-file", token_file)
    assert found.hooks.for_keeper({}) is None
    assert found.wrap == ()
    found = options("--join-token-file", token_file, "--hook-after-job", "true")
    told = found.hooks.for_keeper({"PATH": "/bin"})
    assert told == {"before": "", "after": "true", "limit_ms": 60_000, "env": {"PATH": "/bin"}}


def test_an_identity_stands_in_for_a_token_and_never_beside_one(token_file: str) -> None:
    options = parse(["--server", "http://127.0.0.1:1"], {"WM_JOIN_IDENTITY": "aws"})
    assert (options.identity, options.token, options.by_hand) == ("aws", "", False)
    for more in (["--join-token-file", token_file], ["--token-file", token_file]):
        with pytest.raises(UsageError, match="give one token"):
            parse(["--server", "http://127.0.0.1:1", "--join-identity", "aws", *more], {})
    with pytest.raises(UsageError, match="give one token"):
        parse(["--server", "http://127.0.0.1:1", "--join-identity", "aws"], {"WM_JOIN_TOKEN": "t" * 20})
    with pytest.raises(UsageError, match="--join-identity: 'gcp' is none of aws"):
        parse(["--server", "http://127.0.0.1:1", "--join-identity", "gcp"], {})
