"""What a person may set for Slurm, checked before anything is submitted. Pure, but for the home folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import BackendUnusable, Option
from worker.protocol import Shape, UnitError, parse_duration

OPTIONS = (
    Option("partition", required=True, help="partition, or several with commas: the first that has room"),
    Option("job-name", help="beginning of the jobs' names; the submission's id follows it after a dot"),
    Option("nodelist", help="run on these nodes"),
    Option("exclude", help="never run on these nodes"),
    Option("constraint", help="features that a node must have, such as `a100&nvlink`"),
    Option("account", help="account that pays"),
    Option("qos", help="quality of service"),
    Option("reservation", help="run in this reservation"),
    Option("time", help="time limit as Slurm writes it (10-0) or as 12h; default: the shape's walltime, else 10-0"),
    Option("time-min", help="accept a shorter time limit down to this, to start sooner"),
    Option("signal", default="USR2@90", help="signal to the worker before the limit, NAME@SECONDS, or `none`"),
    Option("directive", "list", (), help="a further sbatch option, such as --licenses=matlab (repeatable)"),
    Option(
        "slurm-work-dir",
        default="slurm-worker-scratch",
        help="folder, shared with the nodes, for scripts, join tokens and logs; relative to the home folder",
    ),
    Option("keep-ended", "duration", 86_400_000, "how long the log of an ended worker is kept"),
    Option("keep-ended-count", "int", 100, "of how many submissions that are over the logs are kept at most"),
    Option("inherit-environment", "list", (), "further variables of the manager that its workers get"),
)

DEFAULT_MINUTES = 10 * 24 * 60
AFTER_WALLTIME_MINUTES = 2  # a worker's start and farewell
_WORDS = re.compile(r"[^\s\x00-\x1f\x7f'\"\\`$;<>]+")
_PLAIN = ("partition", "nodelist", "exclude", "constraint", "account", "qos", "reservation")
_SIGNAL = re.compile(r"(?:B:)?(USR1|USR2|TERM|INT|HUP|[1-9]\d?)@(\d{1,5})")
_DIRECTIVE = re.compile(r"--([a-z][a-z0-9-]*)(?:[= ]\s*([^\x00-\x1f\x7f]*))?")

# What is ours to say: by these a worker is found, started, logged and ended. sbatch takes any unambiguous beginning of
# a name for the name, so a directive may be no beginning of one of these either.
OURS = (
    *("array", "chdir", "clusters", "comment", "cpus-per-task", "error", "export", "export-file", "get-user-env"),
    *("gid", "gres", "help", "hold", "input", "job-name", "mem", "no-requeue", "nodes", "ntasks", "open-mode"),
    *("output", "parsable", "quiet", "requeue", "signal", "test-only", "time", "time-min", "uid", "usage"),
    *("verbose", "version", "wait", "wrap"),
)
_OPTIONS_FOR = (*_PLAIN, "job-name", "time", "time-min", "signal")


@dataclass(frozen=True)
class SlurmSettings:
    partition: str
    minutes: int
    work_dir: Path
    job_name: str = ""
    minutes_min: int | None = None
    signal: str = ""  # NAME@SECONDS
    selectors: tuple[tuple[str, str], ...] = ()  # (sbatch's option, value)
    directives: tuple[str, ...] = ()
    keep_ended_ms: int = 86_400_000
    keep_ended_count: int = 100
    inherited: tuple[str, ...] = ()

    @property
    def notice_s(self) -> int | None:
        """How long before the end a worker hears that its machine is taken away; None: by its own clock alone."""
        name, _, seconds = self.signal.partition("@")
        return int(seconds) if name == "USR2" else None


def settings_from(options: Mapping[str, Any], shape: Shape | None) -> SlurmSettings:
    """Raises BackendUnusable with every mistake."""
    problems: list[str] = []

    def tried(name: str, read: Any, *words: Any) -> Any:
        try:
            return read(*words)
        except ValueError as wrong:
            problems.append(f"{name}: {wrong}")
            return None

    for name in _PLAIN:
        if options[name] is not None:
            tried(name, _word, options[name])
    walltime = shape.walltime if shape is not None else None
    minutes = tried("time", _time_limit, options["time"], walltime)
    minutes_min = tried("time-min", minutes_of, options["time-min"]) if options["time-min"] else None
    if minutes and minutes_min and minutes_min > minutes:
        problems.append(f"time-min: {options['time-min']} is more than the time limit")
    job_name = tried("job-name", _job_name, options["job-name"] or "")
    signal = tried("signal", _signal, options["signal"])
    directives = [tried("directive", directive, text) for text in options["directive"]]
    work_dir = tried("slurm-work-dir", _work_dir, options["slurm-work-dir"])
    if problems:
        raise BackendUnusable("\n".join(problems))
    return SlurmSettings(
        partition=options["partition"],
        minutes=minutes,
        work_dir=work_dir,
        job_name=job_name,
        minutes_min=minutes_min,
        signal=signal,
        selectors=tuple((name, options[name]) for name in _PLAIN[1:] if options[name]),
        directives=tuple(directives),
        keep_ended_ms=options["keep-ended"],
        keep_ended_count=options["keep-ended-count"],
        inherited=tuple(options["inherit-environment"]),
    )


# ---------------------------------------------------------------- times


def minutes_of(text: str) -> int:
    """Slurm's forms (minutes, minutes:seconds, h:m:s, d-h, d-h:m, d-h:m:s) and ours (90m, 12h), in minutes, upward."""
    days, dash, clock = text.partition("-")
    parts = (clock if dash else text).split(":")
    if not all(part.isascii() and part.isdigit() for part in (*parts, *([days] if dash else []))) or len(parts) > 3:
        try:
            return max(1, -(-parse_duration(text.encode("ascii").decode()) // 60_000))
        except (UnitError, UnicodeEncodeError):
            raise ValueError(f"{text!r} is no time: write it as 10-0, 12:00:00 or 12h") from None
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        seconds += ((int(days) * 24 + hours) * 60 + minutes) * 60
    else:
        hours, minutes, seconds = {1: (0, *numbers, 0), 2: (0, *numbers), 3: tuple(numbers)}[len(numbers)]
        seconds += (hours * 60 + minutes) * 60
    if seconds <= 0:
        raise ValueError(f"{text!r} is no time at all")
    return -(-seconds // 60)


def time_text(minutes: int) -> str:
    """As sbatch takes it, and as people read it: 10-00:00:00."""
    return f"{minutes // 1440}-{minutes % 1440 // 60:02}:{minutes % 60:02}:00"


def _time_limit(text: str | None, walltime_ms: int | None) -> int:
    """A limit below the walltime would kill workers that count on it."""
    least = -(-walltime_ms // 60_000) if walltime_ms is not None else None
    if text is None:
        return DEFAULT_MINUTES if least is None else least + AFTER_WALLTIME_MINUTES
    minutes = minutes_of(text)
    if least is not None and minutes < least:
        raise ValueError(f"{text} is less than the workers' walltime")
    return minutes


# ---------------------------------------------------------------- texts


def _word(text: str) -> str:
    """No option of these holds a space, a quote or a control character; and none may look like another option."""
    if not _WORDS.fullmatch(text) or text.startswith("-"):
        raise ValueError(f"{text!r} is no value for Slurm")
    return text


def _job_name(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", text):
        raise ValueError(f"{text!r} is no name: at most 100 of letters, digits, `_`, `.` and `-`")
    return text


def _signal(text: str) -> str:
    if text in ("", "none"):
        return ""
    found = _SIGNAL.fullmatch(text)
    if not found or int(found[2]) > 65535:
        raise ValueError(f"{text!r} is no signal: write NAME@SECONDS, such as USR2@90, or none")
    return f"{found[1]}@{found[2]}"


def directive(text: str) -> str:
    """One sbatch option as one word of its argv. Also as in a script: `#SBATCH --licenses=a`."""
    found = _DIRECTIVE.fullmatch(text.removeprefix("#SBATCH").strip(" "))
    if not found:
        raise ValueError(f"{text!r} is no sbatch option of one line such as --licenses=matlab")
    name, value = found[1], found[2]
    if name in _OPTIONS_FOR:
        raise ValueError(f"--{name} is an option of this backend: give it as --{name}")
    mine = [ours for ours in OURS if ours.startswith(name)]
    if mine:
        raise ValueError(f"--{name} is for the worker manager to say (it stands for --{mine[0]})")
    return f"--{name}" if value is None else f"--{name}={value.strip()}"


def _work_dir(text: str) -> Path:
    """sbatch reads % and \\ in the name of a log file as its own signs."""
    if any(sign in text for sign in "%\\") or not text.isprintable() or not text.strip():
        raise ValueError(f"{text!r} holds a %, a \\ or a control character")
    return Path.home() / Path(text).expanduser()
