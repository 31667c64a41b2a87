"""A submission → what sbatch is given: its argv and the script. Pure.

Everything is said in argv, where each option is one word that nothing can break out of. The script has no #SBATCH
line: it is the one of backends/start.py, which becomes the agent.
"""

import shlex

from backends.base import Submission
from backends.slurm.folders import SubmissionFolder
from backends.slurm.names import Owner, comment, job_name
from backends.slurm.settings import SlurmSettings, time_text
from backends.sound import problem_of, texts_of
from backends.start import Site, script
from worker.protocol import Shape

MAX_BATCH = 1000
MIB = 2**20
_LARGEST_SCRIPT = 4 * MIB - 1024  # Slurm's own limit, where a site has not chosen a smaller one

# An older Slurm does not tell a job when it ends; the worker should know, to hand back its jobs before.
_END_KNOWN = 'export SLURM_JOB_END_TIME="${{SLURM_JOB_END_TIME:-$(($(date +%s) + {seconds}))}}"'
_END_ASKED = """if [ -z "${{SLURM_JOB_END_TIME:-}}" ]; then
    wm_end=$(SLURM_TIME_FORMAT=%s squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e 2>/dev/null | tr -cd 0-9)
    export SLURM_JOB_END_TIME="${{wm_end:-$(($(date +%s) + {seconds}))}}"
fi"""


def problem(submission: Submission) -> str:
    """Why this submission can never be started, or nothing."""
    if wrong := problem_of(submission, MAX_BATCH):
        return wrong
    if sum(len(text.encode()) for text in texts_of(submission)) > _LARGEST_SCRIPT:
        return "command, set-up and environment are larger than a Slurm script may be"
    return ""


def argv(submission: Submission, settings: SlurmSettings, folder: SubmissionFolder) -> list[str]:
    words = [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(settings.job_name, submission.id)}",
        f"--comment={comment(Owner(submission.manager, submission.pool), submission.id)}",
        f"--partition={settings.partition}",
        *resources(submission.shape),
        f"--time={time_text(settings.minutes)}",
    ]
    if settings.minutes_min is not None:
        words.append(f"--time-min={time_text(settings.minutes_min)}")
    if settings.signal:
        words.append(f"--signal=B:{settings.signal}")
    words += [f"--{name}={value}" for name, value in settings.selectors]
    words += settings.directives
    if submission.count > 1:
        words.append(f"--array=0-{submission.count - 1}")
    words += [
        "--no-requeue",  # a worker has one life: its join token is used up
        "--export=ALL",  # of the few variables that sbatch is started with
        f"--chdir={folder.path}",
        f"--output={folder.log_pattern(submission.count)}",
        str(folder.script),
    ]
    return words


def resources(shape: Shape) -> list[str]:
    """One node, one task, upward to whole CPUs and MiB. What the shape does not say is left to the partition."""
    words = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={max(1, -(-shape.cpus // 1000))}"]
    if shape.memory:
        words.append(f"--mem={-(-shape.memory // MIB)}M")
    if shape.gpus:
        words.append(f"--gres=gpu:{shape.gpu_type + ':' if shape.gpu_type else ''}{shape.gpus}")
    return words


def script_text(submission: Submission, settings: SlurmSettings, folder: SubmissionFolder) -> str:
    """Set-up lines get a login shell, because that is where a cluster defines `module`."""
    first = "#!/bin/bash -l" if submission.setup else "#!/bin/sh"
    body = script(submission, Site(index='"${SLURM_ARRAY_TASK_ID:-0}"', token=_lines(submission, settings, folder)))
    return f"{first}\n{body}"


def rendered(submission: Submission, settings: SlurmSettings, folder: SubmissionFolder) -> str:
    which = "0" if submission.count == 1 else f"0 … {submission.count - 1}"
    tokens = f"# {folder.token_folder}/{which}, mode 0600: ***\n" if submission.join_tokens else ""
    command = shlex.join(argv(submission, settings, folder))
    return f"{tokens}{command}\n\n# {folder.script}\n{script_text(submission, settings, folder)}"


def _lines(submission: Submission, settings: SlurmSettings, folder: SubmissionFolder) -> tuple[str, ...]:
    lines = []
    if submission.join_tokens:
        lines.append(f'export WM_JOIN_TOKEN_FILE={shlex.quote(str(folder.token_folder))}/"$WM_INDEX"')
    if settings.notice_s is not None:
        lines.append(f"export WM_NOTICE_SECONDS={settings.notice_s}s")
    if settings.minutes_min is None:
        lines.append(_END_KNOWN.format(seconds=settings.minutes * 60))
    else:
        lines.append(_END_ASKED.format(seconds=settings.minutes_min * 60))
    return tuple(lines)
