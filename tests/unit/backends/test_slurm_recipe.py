"""What sbatch is given."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backends.base import AGENT, AgentFile, Submission
from backends.slurm.folders import WorkDir
from backends.slurm.recipe import MAX_BATCH, argv, problem, rendered, resources, script_text
from backends.slurm.settings import SlurmSettings
from worker.protocol import Shape

MIB = 2**20


def a_submission(**more: Any) -> Submission:
    words: dict[str, Any] = {
        "id": "main-1",
        "count": 1,
        "pool": "gpu",
        "manager": "main",
        "shape": Shape(cpus=1500, memory=100 * MIB + 1),
        "command": ("/bin/true",),
        "environment": {},
        "join_tokens": ("wmj_canary",) * more.get("count", 1),
    }
    return Submission(**{**words, **more})


def settings(tmp_path: Path, **more: Any) -> SlurmSettings:
    return SlurmSettings(**{"partition": "a,b", "minutes": 90, "work_dir": tmp_path, "signal": "USR2@90", **more})


def words_of(submission: Submission, made: SlurmSettings) -> list[str]:
    return argv(submission, made, WorkDir(made.work_dir, submission.manager, submission.pool).folder(submission.id))


def script_of(submission: Submission, made: SlurmSettings) -> str:
    return script_text(submission, made, WorkDir(made.work_dir, "main", "gpu").folder(submission.id))


def test_every_option_is_a_word_of_its_own(tmp_path: Path) -> None:
    made = settings(
        tmp_path,
        selectors=(("account", "lab"), ("constraint", "a100&nvlink")),
        directives=("--licenses=a,b",),
        minutes_min=30,
        job_name="train",
    )
    assert words_of(a_submission(), made) == [
        *("sbatch", "--parsable", "--job-name=train.main-1", "--comment=worker-manager:main:gpu:main-1"),
        *("--partition=a,b", "--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem=101M", "--time=0-01:30:00"),
        *("--time-min=0-00:30:00", "--signal=B:USR2@90", "--account=lab", "--constraint=a100&nvlink"),
        *("--licenses=a,b", "--no-requeue", "--export=ALL", f"--chdir={tmp_path}/main/gpu/main-1"),
        f"--output={tmp_path}/main/gpu/main-1/worker-0.log",
        f"{tmp_path}/main/gpu/main-1/script",
    ]


def test_many_workers_are_one_array_and_one_is_none(tmp_path: Path) -> None:
    assert not [word for word in words_of(a_submission(), settings(tmp_path)) if word.startswith("--array")]
    many = words_of(a_submission(count=1000), settings(tmp_path))
    assert "--array=0-999" in many
    assert f"--output={tmp_path}/main/gpu/main-1/worker-%a.log" in many


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape(cpus=0, memory=0), ["--cpus-per-task=1"]),
        (Shape(cpus=1000, memory=MIB), ["--cpus-per-task=1", "--mem=1M"]),
        (Shape(cpus=1001, memory=0, gpus=2), ["--cpus-per-task=2", "--gres=gpu:2"]),
        (Shape(cpus=1000, memory=0, gpus=1, gpu_type="a100"), ["--cpus-per-task=1", "--gres=gpu:a100:1"]),
        (Shape(cpus=1000, memory=0, gpu_type="a100"), ["--cpus-per-task=1"]),
    ],
)
def test_resources(shape: Shape, words: list[str]) -> None:
    """Without memory in the shape nothing is said: --mem=0 would be the whole node."""
    assert resources(shape)[2:] == words


def test_no_token_is_in_argv_script_or_what_is_shown(tmp_path: Path) -> None:
    submission = a_submission(count=3)
    made = settings(tmp_path)
    folder = WorkDir(tmp_path, "main", "gpu").folder("main-1")
    everything = " ".join(words_of(submission, made)) + script_of(submission, made) + rendered(submission, made, folder)
    assert "wmj_canary" not in everything
    assert "WM_JOIN_TOKEN_FILE=" in everything
    assert "0 … 2, mode 0600: ***" in everything


def test_the_script_has_no_line_that_sbatch_would_read(tmp_path: Path) -> None:
    evil = "x\n#SBATCH --wrap=id\n#PBS -q x"
    text = script_of(
        a_submission(environment={"EVIL": evil}, setup=(evil,), command=("/bin/echo", evil)), settings(tmp_path)
    )
    begun = text.splitlines()
    first_command = next(number for number, line in enumerate(begun) if line and not line.startswith("#"))
    assert not [line for line in begun[:first_command] if line.startswith(("#SBATCH", "#PBS", "#BSUB"))]


def run_script(tmp_path: Path, text: str, **environment: str) -> str:
    script = tmp_path / "script"
    script.write_text(text)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", str(script)], capture_output=True, text=True, env={"PATH": path, "SLURM_JOB_ID": "7", **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_worker_finds(tmp_path: Path) -> None:
    submission = a_submission(
        count=5, command=("/usr/bin/env",), environment={"NAME": "{worker}", "HARD": "a'b\n$(id)"}
    )
    said = run_script(tmp_path, script_of(submission, settings(tmp_path)), SLURM_ARRAY_TASK_ID="3")
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert (found["WM_INDEX"], found["WM_WORKER"], found["NAME"]) == ("3", "main-1-3", "main-1-3")
    assert found["WM_JOIN_TOKEN_FILE"] == f"{tmp_path}/main/gpu/main-1/tokens/3"
    assert found["WM_NOTICE_SECONDS"] == "90s"
    assert "HARD=a'b\n$(id)\n" in said


def test_the_end_is_told_where_slurm_does_not(tmp_path: Path) -> None:
    submission = a_submission(command=("/bin/sh", "-c", "echo $((SLURM_JOB_END_TIME - $(date +%s)))"))
    text = script_of(submission, settings(tmp_path))
    assert 5390 < int(run_script(tmp_path, text)) <= 5400
    given = script_of(a_submission(command=("/bin/sh", "-c", "echo $SLURM_JOB_END_TIME")), settings(tmp_path))
    assert run_script(tmp_path, given, SLURM_JOB_END_TIME="123") == "123\n"


def test_a_limit_that_may_be_cut_is_asked_for_and_else_the_least_counts(tmp_path: Path) -> None:
    submission = a_submission(command=("/bin/sh", "-c", "echo $SLURM_JOB_END_TIME $(date +%s)"))
    text = script_of(submission, settings(tmp_path, minutes_min=10))
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$SLURM_TIME_FORMAT $2" = "%s --jobs=7" ] && echo 456\n')
    squeue.chmod(0o755)
    assert run_script(tmp_path, text).split()[0] == "456"
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error' >&2\nexit 1\n")
    end, now = map(int, run_script(tmp_path, text).split())
    assert 590 < end - now <= 600


def test_set_up_lines_get_a_login_shell_because_there_module_is_a_command(tmp_path: Path) -> None:
    assert script_of(a_submission(), settings(tmp_path)).startswith("#!/bin/sh\n")
    assert script_of(a_submission(setup=("module load x",)), settings(tmp_path)).startswith("#!/bin/bash -l\n")


def test_an_agent_that_is_fetched(tmp_path: Path) -> None:
    agent = AgentFile("https://hub/v1/worker/abc.pyz", "abc", "/here/abc.pyz")
    text = script_of(a_submission(command=(AGENT, "--server", "https://hub"), agent=agent), settings(tmp_path))
    assert "https://hub/v1/worker/abc.pyz" in text
    assert "/here/abc.pyz" not in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": "Main"}, "not a name"),
        ({"id": "../x"}, "not a name"),
        ({"id": "a" * 37}, "not a name"),
        ({"count": 0, "join_tokens": ()}, "1 to 1000"),
        ({"count": MAX_BATCH + 1}, "1 to 1000"),
        ({"join_tokens": ("a", "b")}, "2 join tokens for 1"),
        ({"environment": {"A-B": "x"}}, "environment variable"),
        ({"environment": {"A": "x\0"}}, "NUL"),
        ({"command": ()}, "no command"),
        ({"command": ("/bin/echo", "x" * 5_000_000)}, "larger than a Slurm script"),
    ],
)
def test_what_can_never_be_started(more: dict[str, Any], said: str) -> None:
    assert said in problem(a_submission(**more))


def test_what_is_shown_is_what_would_be_typed(tmp_path: Path) -> None:
    made = settings(tmp_path)
    folder = WorkDir(tmp_path, "main", "gpu").folder("main-1")
    shown = rendered(a_submission(), made, folder)
    (line,) = (line for line in shown.splitlines() if line.startswith("sbatch "))
    assert shlex.split(line) == words_of(a_submission(), made)


# ---------------------------------------------------------------- folders


def test_folders_of_two_managers_are_two_and_no_name_leads_out(tmp_path: Path) -> None:
    names = ["a", "a/b", "a=2f=b", "..", ".", "", "é", "a b"]
    made = {WorkDir(tmp_path, name, "p").own for name in names}
    assert len(made) == len(names)
    assert all(path.parent.parent == tmp_path for path in made)
    for name in ("..", "a/b", "", "A"):
        with pytest.raises(ValueError, match="no submission"):
            WorkDir(tmp_path, "m", "p").folder(name)


def test_a_folder_is_for_its_owner_alone_and_tokens_go(tmp_path: Path) -> None:
    work_dir = WorkDir(tmp_path / "shared", "m", "p")
    folder = work_dir.folder("m-1")
    folder.prepare("#!/bin/sh\n", ("one", "two"), 2)
    for path in (folder.path, folder.token_folder):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (folder.script, folder.token_folder / "0", folder.token_folder / "1"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (folder.job(), folder.record()) == (None, {"count": 2})
    folder.note_job(12)
    assert (folder.job(), folder.record()) == (12, {"count": 2, "job": 12})
    folder.drop_token(0)
    folder.drop_token(0)
    assert [path.name for path in folder.token_folder.iterdir()] == ["1"]
    folder.drop_tokens()
    assert not folder.token_folder.exists()
    with pytest.raises(FileExistsError):
        folder.prepare("", (), 1)


def test_old_folders_go_a_few_at_a_time(tmp_path: Path) -> None:
    work_dir = WorkDir(tmp_path, "m", "p")
    folders = [work_dir.folder(f"m-{number}") for number in range(12)]
    for folder in folders:
        folder.prepare("", (), 1)
    assert work_dir.remove_old(folders, before_s=0, keep=10) == 2
    left = [folder for folder in folders if folder.path.exists()]
    assert len(left) == 10
    assert work_dir.remove_old(left, before_s=2**40, keep=100) == 8
    assert len(work_dir.submissions()) == 2
