"""What a person may set for Slurm, and what nobody can smuggle into it."""

from pathlib import Path
from typing import Any

import pytest

from backends import registry
from backends.base import BackendUnusable
from backends.slurm.settings import OURS, SlurmSettings, directive, minutes_of, settings_from, time_text
from worker.protocol import Shape


def made(shape: Shape | None = None, **options: Any) -> SlurmSettings:
    given = {"partition": "cpu", **{name.replace("_", "-"): value for name, value in options.items()}}
    return settings_from(registry.load("slurm").read(given), shape)


def refused(**options: Any) -> str:
    with pytest.raises(BackendUnusable) as error:
        made(**options)
    return str(error.value)


def test_the_alias_is_codalabs_name() -> None:
    assert registry.load("slurm-batch").name == "slurm"


def test_codalabs_defaults_but_for_the_gpu_that_nobody_asked_for() -> None:
    settings = made()
    assert (settings.minutes, settings.work_dir) == (10 * 24 * 60, Path.home() / "slurm-worker-scratch")
    assert Shape().gpus == 0


def test_a_partition_is_required_and_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(BackendUnusable, match="partition: is required"):
        registry.load("slurm").read({})
    said = refused(partition="a b", time="soon", signal="KILL", directive=["--wrap=id"], slurm_work_dir="a%j")
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        *("partition", "time", "signal", "directive", "slurm-work-dir")
    ]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("10-0", 14_400),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-12:30:01", 2191),
        ("90", 90),
        ("90:01", 91),
        ("2:30:00", 150),
        ("12h", 720),
        ("1h30m", 90),
        ("20s", 1),
    ],
)
def test_times_are_slurms_or_ours(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "-", "1-", "soon", "1:2:3:4", "0", "0:00", "1-2:3:4:5", "٣", "-5", "1\n2"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        minutes_of(text)


@pytest.mark.parametrize("minutes", [1, 59, 60, 1439, 1440, 14_400])
def test_a_time_is_written_so_that_it_reads_as_the_same(minutes: int) -> None:
    assert minutes_of(time_text(minutes)) == minutes


def test_the_limit_leaves_room_for_the_walltime() -> None:
    hour = Shape(walltime=3_600_000)
    assert made(hour).minutes == 62
    assert made(hour, time="2h").minutes == 120
    with pytest.raises(BackendUnusable, match="less than the workers' walltime"):
        made(hour, time="30")
    assert "more than the time limit" in refused(time="30", time_min="1h")


@pytest.mark.parametrize(
    ("text", "signal", "notice"),
    [("USR2@90", "USR2@90", 90), ("B:TERM@60", "TERM@60", None), ("none", "", None), ("USR2@0", "USR2@0", 0)],
)
def test_signals(text: str, signal: str, notice: int | None) -> None:
    settings = made(signal=text)
    assert (settings.signal, settings.notice_s) == (signal, notice)


@pytest.mark.parametrize("text", ["USR2", "R:TERM@60", "TERM@", "TERM@99999", "USR2@60\n#SBATCH --wrap=id", "@60"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    assert "signal" in refused(signal=text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("--licenses=matlab:2,comsol", "--licenses=matlab:2,comsol"),
        ("--exclusive", "--exclusive"),
        ("--mail-user me@example.org", "--mail-user=me@example.org"),
        ("#SBATCH --hint=nomultithread", "--hint=nomultithread"),
        ("--comment-like=a; rm -rf / $(id)", "--comment-like=a; rm -rf / $(id)"),  # one word of argv: no shell reads it
        ("--mem-per-cpu=2G", "--mem-per-cpu=2G"),
    ],
)
def test_a_directive_is_one_word_of_argv(text: str, word: str) -> None:
    assert directive(text) == word


@pytest.mark.parametrize(
    "text",
    [
        *("", "licenses=a", "-p gpu", "--", "--Licenses=a", "rm -rf /", "#SBATCH", "# --licenses=a", "--a\n--b"),
        *("--licenses=a\n#SBATCH --wrap=id", "--licenses=a\r", "--licenses=a\0", "--licenses=a\x1b[2J", "--=x"),
    ],
)
def test_what_is_not_one_option_of_one_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no sbatch option of one line"):
        directive(text)


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_to_say_cannot_be_said_by_a_directive_nor_by_the_beginning_of_its_name(name: str) -> None:
    """sbatch takes --wra for --wrap."""
    for length in range(1, len(name) + 1):
        with pytest.raises(
            ValueError, match=r"is for the worker manager|is an option of this backend|no sbatch option"
        ):
            directive(f"--{name[:length]}=x")


def test_a_directive_with_an_option_of_its_own_says_which() -> None:
    with pytest.raises(ValueError, match="give it as --qos"):
        directive("--qos=high")


@pytest.mark.parametrize("value", ["a b", "a\nb", "$(id)", "`id`", "a;b", "'a'", "--wrap=id", "-x", "", "a\\b"])
@pytest.mark.parametrize("name", ["partition", "nodelist", "exclude", "constraint", "account", "qos", "reservation"])
def test_texts_for_slurm_hold_nothing_that_a_shell_or_a_file_could_take_for_more(name: str, value: str) -> None:
    assert refused(**{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["a100&nvlink", "[rack1*2|rack2*4]", "n[1-3,7]", "gpu,cpu", "a|b", "proj-x_1.y"])
def test_what_slurm_means_by_its_signs_goes_through(value: str) -> None:
    assert ("constraint", value) in made(constraint=value).selectors


@pytest.mark.parametrize("name", ["-x", "a b", "a/b", "a" * 101, "a\nb", "%j"])
def test_job_names_are_plain(name: str) -> None:
    assert "job-name" in refused(job_name=name)
