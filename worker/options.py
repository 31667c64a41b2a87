"""How an agent is started: flags over environment (`WM_…`) over defaults, checked before anything happens.

No secret is ever in argv: tokens come from files (or, where a platform has nothing better, a single-use join token in
WM_JOIN_TOKEN).
"""

import argparse
import os
import shlex
import stat
import sys
from typing import Any, Callable, Dict, List, Mapping, MutableMapping, NamedTuple, NoReturn, Optional, Sequence, Tuple

from worker.checkpoints import KEEP_MS
from worker.hooks.told import LIMIT_MS, Hooks
from worker.host import VERSION
from worker.isolation.ways import WAYS
from worker.link.address import BadAddress, Endpoint, endpoint
from worker.protocol import UnitError, parse_bytes, parse_cpus, parse_duration
from worker.resources import Wishes
from worker.terms import NOTICE_MS, Terms

LONGEST_TOKEN = 4096
IDENTITIES = ("aws",)
PLATFORMS = ("aws", "azure", "gcp")


class UsageError(Exception):
    """What was asked makes no sense; the message says where."""


class Options(NamedTuple):
    server: Endpoint
    token: str  # "" where it joins by its identity
    identity: str  # "" or aws
    by_hand: bool  # a long-lived token instead of the join token of a launch
    worker: str
    pool: str
    config: str
    work_dir: str  # the prefix; "" is the default
    delete_work_dir: bool
    wishes: Wishes
    terms: Terms
    heartbeat_ms: Optional[int]
    join_ms: int
    exit_on_exception: bool
    log_format: str
    limits: str  # auto or watch
    isolation: Optional[Tuple[str, ...]]  # the ways to try; None: those that are cheap to try
    job_user: str  # none, auto, or a user's name or number
    sandbox_show: Tuple[str, ...]  # folders that a sandbox shows though it hides what they lie in
    secrets: Tuple[str, ...]  # files that no job may read
    notices: str  # auto, off, or one of PLATFORMS
    share: str  # the folder that the workers of this machine have in common; auto; "": it has the machine for itself
    cache_dir: str  # "" is the default
    cache_size: Optional[int]
    cache: bool
    input_paths: Tuple[str, ...]  # folders of this machine from which jobs may take inputs
    transfers: Optional[int]
    checkpoint_keep_ms: int  # 0: for ever
    hooks: Hooks
    wrap: Tuple[str, ...]  # words before every job's command

    def __repr__(self) -> str:
        return "Options(server=%s, worker=%s)" % (self.server, self.worker)  # without the token


class _Flag(NamedTuple):
    name: str
    read: Callable[[str], Any]
    help: str


def _text(text: str) -> str:
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 10**9:
        raise UnitError("%r is no whole number" % text)
    return int(text)


def _positive(text: str) -> int:
    if _count(text) == 0:
        raise UnitError("it must be at least 1")
    return _count(text)


def _switch(text: str) -> bool:
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    raise UnitError("%r is neither true nor false" % text)


def _label(text: str) -> str:
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if not text or len(text) > 40 or set(text) - letters or text[0] == "-" or text[-1] == "-":
        raise UnitError("%r is no id: at most 40 of a-z, 0-9 and -, not at the ends" % text)
    return text


def _tags(text: str) -> Tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _custom(text: str) -> Tuple[Tuple[str, int], ...]:
    amounts = []
    for word in _tags(text):
        name, _, count = word.partition("=")
        if not name or not count:
            raise UnitError("%r is not NAME=COUNT" % word)
        amounts.append((name, _count(count)))
    return tuple(sorted(dict(amounts).items()))


def _platform(text: str) -> str:
    if text not in IDENTITIES:
        raise UnitError("%r is none of %s" % (text, ", ".join(IDENTITIES)))
    return text


def _limits(text: str) -> str:
    if text not in ("auto", "watch"):
        raise UnitError("%r is none of auto, watch" % text)
    return text


def _ways(text: str) -> Tuple[str, ...]:
    words = _tags(text)
    for word in words:
        if word not in (*WAYS, "none"):
            raise UnitError("%r is none of %s, none" % (word, ", ".join(WAYS)))
    return tuple(word for word in words if word != "none")


def _paths(text: str) -> Tuple[str, ...]:
    words = _tags(text)
    for word in words:
        if not os.path.isabs(word) or not os.path.normpath(word).strip("/"):
            raise UnitError("%r is no folder below /, written in full" % word)
    return tuple("/" + os.path.normpath(word).strip("/") for word in words)


def _share(text: str) -> str:
    if text != "auto" and not os.path.isabs(text):
        raise UnitError("%r is neither auto nor a folder, written in full" % text)
    return text


def _notices(text: str) -> str:
    if text not in ("auto", "off", *PLATFORMS):
        raise UnitError("%r is none of auto, off, %s" % (text, ", ".join(PLATFORMS)))
    return text


def _line(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise UnitError("it is no line of shell")
    return text


def _words(text: str) -> Tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UnitError("%r cannot be split into words: %s" % (text, error)) from None
    if not words:
        raise UnitError("there is no word in it")
    return words


def _format(text: str) -> str:
    if text not in ("auto", "json", "text"):
        raise UnitError("%r is none of auto, json, text" % text)
    return text


FLAGS: Tuple[_Flag, ...] = (
    _Flag("server", _text, "the hub: https://HOST[:PORT], or http:// on this machine"),
    _Flag("join-token-file", _text, "file with the single-use token of this worker's launch"),
    _Flag("join-identity", _platform, "instead of a token: what this machine's platform says of it: aws"),
    _Flag("token-file", _text, "file with a token of scope `worker`, for a worker started by hand"),
    _Flag("ca-fingerprint", _text, "sha256:… of the hub's certificate or CA; else the system's CAs count"),
    _Flag("worker-id", _label, "this worker's id (default: made from the host's name)"),
    _Flag("pool", _text, "the pool that it belongs to"),
    _Flag("config", _text, "digest of the launch configuration"),
    _Flag("work-dir", _text, "its own folder is made below this one"),
    _Flag("max-work-dir-size", parse_bytes, "offer at most this much disk to jobs"),
    _Flag("cpus", parse_cpus, "offer this many CPUs instead of what was found, such as 1.5"),
    _Flag("memory", parse_bytes, "offer this much memory, such as 8GiB"),
    _Flag("gpus", _count, "offer this many GPUs"),
    _Flag("gpu-type", _text, "their type"),
    _Flag("disk", parse_bytes, "offer this much disk"),
    _Flag("walltime", parse_duration, "how long this worker may live, such as 12h"),
    _Flag("tag", _tags, "offer these tags (may be repeated)"),
    _Flag("custom", _custom, "offer NAME=COUNT of something else (may be repeated)"),
    _Flag("resource", _custom, "the same as --custom"),
    _Flag("notice-seconds", parse_duration, "how long before the machine is taken away SIGUSR2 comes (default 60)"),
    _Flag("notices", _notices, "hear the end of this machine from: aws, azure, gcp; off; auto: as its firmware says"),
    _Flag("idle-seconds", parse_duration, "leave after having been idle for this long, when the hub agrees"),
    _Flag(
        "black-hole-jobs",
        _count,
        "leave when so many different jobs in a row failed at once, such as 10 (default 0: never)",
    ),
    _Flag("exit-after-num-runs", _positive, "leave after this many jobs"),
    _Flag("checkin-frequency-seconds", parse_duration, "report at least this often (default: what the hub says)"),
    _Flag("dead-man-seconds", parse_duration, "leave when idle and the hub was silent for this long"),
    _Flag("join-seconds", parse_duration, "try to register for this long (default 300)"),
    _Flag("limits", _limits, "auto: control groups where they can be made; watch: only look at what jobs use"),
    _Flag("isolation", _ways, "try and offer these: sandbox, docker, podman, apptainer; or none (default: sandbox)"),
    _Flag("job-user", _text, "as root, run jobs as: none, auto (one for each owner), or a user (default none)"),
    _Flag("sandbox-show", _tags, "a folder that sandboxes show though they hide homes (may be repeated)"),
    _Flag("cache-dir", _text, "where inputs of jobs are kept for others; workers that name the same one share it"),
    _Flag("cache-size", parse_bytes, "keep at most this much there, such as 200GiB (default: a quarter of its disk)"),
    _Flag("input-path", _paths, "jobs may take inputs from below this folder of this machine (may be repeated)"),
    _Flag("transfers", _positive, "move at most so many files of jobs at a time"),
    _Flag("share", _share, "share this machine with other workers, by a folder that all of them see (or auto)"),
    _Flag("checkpoint-keep", parse_duration, "remove what jobs saved and no attempt used for this long (7d; 0: never)"),
    _Flag("hook-start", _line, "a line of shell before the worker joins; when it fails the worker does not start"),
    _Flag("hook-before-job", _line, "a line of shell before each job; when it fails the job goes back"),
    _Flag("hook-after-job", _line, "a line of shell after each job, however it ended"),
    _Flag("hook-stop", _line, "a line of shell when the worker has ended its jobs and goes"),
    _Flag("hook-seconds", parse_duration, "how long each of them may take (default 60)"),
    _Flag("wrap", _words, "words that are put before each job's command, such as: nice -n 10"),
    _Flag("log-format", _format, "auto, json or text"),
)
SWITCHES: Tuple[_Flag, ...] = (
    _Flag("tag-exclusive", _switch, "take only jobs that ask for one of the tags"),
    _Flag("exit-on-exception", _switch, "leave on an error of the agent itself instead of going on"),
    _Flag("pass-down-termination", _switch, "the first signal ends the jobs and gives them back"),
    _Flag("no-cache", _switch, "keep no inputs for other jobs: each job fetches its own"),
    _Flag("delete-work-dir-on-exit", _switch, "leave nothing behind"),
)
REPEATED = ("tag", "custom", "resource", "sandbox-show", "input-path")

BARE: Mapping[str, Mapping[str, Any]] = {"share": {"nargs": "?", "const": "auto", "metavar": "DIR"}}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(argv: Sequence[str], env: MutableMapping[str, str]) -> Options:
    """Raises UsageError. Takes WM_JOIN_TOKEN out of the environment."""
    given = vars(_parser().parse_args(list(argv)))
    values: Dict[str, Any] = {}
    for flag in FLAGS + SWITCHES:
        values[flag.name.replace("-", "_")] = _value(flag, given[flag.name.replace("-", "_")], env)
    return _checked(values, env)


def _parser() -> argparse.ArgumentParser:
    words = "Runs jobs for a hub. Every option can be given as WM_… in the environment."
    parser = _Parser(prog="wm-worker", description=words, allow_abbrev=False)
    parser.add_argument("--version", action="version", version="wm-worker %s" % VERSION)
    for flag in FLAGS:
        how = {"action": "append"} if flag.name in REPEATED else dict(BARE.get(flag.name, {}))
        parser.add_argument("--" + flag.name, help=flag.help.replace("%", "%%"), **how)
    for flag in SWITCHES:
        parser.add_argument("--" + flag.name, action="store_const", const="true", help=flag.help)
    return parser


def _value(flag: _Flag, given: Any, env: MutableMapping[str, str]) -> Any:
    """None when it was given nowhere. An empty variable counts as not given."""
    variable = "WM_" + flag.name.upper().replace("-", "_")
    where = "--" + flag.name
    if given is None:
        given, where = env.get(variable) or None, variable
    if given is None:
        return None
    try:
        return flag.read(",".join(given) if isinstance(given, list) else given)
    except UnitError as error:
        raise UsageError("%s: %s" % (where, error)) from None


def _checked(values: Dict[str, Any], env: MutableMapping[str, str]) -> Options:
    if not values["server"]:
        raise UsageError("--server: say where the hub is")
    try:
        server = endpoint(values["server"], values["ca_fingerprint"] or "")
    except BadAddress as error:
        raise UsageError("--server: %s" % error) from None
    by_hand, token = _token(values, env)
    idle = values["idle_seconds"]
    if values["tag_exclusive"] and not values["tag"]:
        raise UsageError("--tag-exclusive: without a --tag it would take no job at all")
    terms = Terms(
        idle_exit_ms=idle,
        asks_to_leave=by_hand,
        max_runs=values["exit_after_num_runs"],
        dead_man_ms=values["dead_man_seconds"],
        black_hole=values["black_hole_jobs"] or 0,
        pass_down=bool(values["pass_down_termination"]),
        notice_ms=NOTICE_MS if values["notice_seconds"] is None else values["notice_seconds"],
    )
    join = values["join_seconds"]
    return Options(
        server=server,
        token=token,
        identity=values["join_identity"] or "",
        by_hand=by_hand,
        worker=values["worker_id"] or _own_name(),
        pool=values["pool"] or "",
        config=values["config"] or "",
        work_dir=values["work_dir"] or "",
        delete_work_dir=bool(values["delete_work_dir_on_exit"]),
        wishes=_wishes(values),
        terms=terms,
        heartbeat_ms=values["checkin_frequency_seconds"],
        join_ms=300_000 if join is None else join,
        exit_on_exception=bool(values["exit_on_exception"]),
        log_format=_style(values["log_format"] or "auto"),
        limits=values["limits"] or "auto",
        notices=values["notices"] or "auto",
        share=values["share"] or "",
        isolation=values["isolation"],
        job_user=values["job_user"] or "none",
        sandbox_show=values["sandbox_show"] or (),
        cache_dir=os.path.abspath(values["cache_dir"]) if values["cache_dir"] else "",
        cache_size=values["cache_size"],
        cache=not values["no_cache"],
        input_paths=values["input_path"] or (),
        transfers=values["transfers"],
        checkpoint_keep_ms=KEEP_MS if values["checkpoint_keep"] is None else values["checkpoint_keep"],
        hooks=_hooks(values),
        wrap=values["wrap"] or (),
        secrets=tuple(path for path in (values["join_token_file"], values["token_file"]) if path),
    )


def _hooks(values: Dict[str, Any]) -> Hooks:
    limit = values["hook_seconds"]
    if limit == 0:
        raise UsageError("--hook-seconds: none could ever end in no time")
    start, before, after, stop = (values["hook_" + name] or "" for name in ("start", "before_job", "after_job", "stop"))
    return Hooks(start, before, after, stop, LIMIT_MS if limit is None else limit)


def _wishes(values: Dict[str, Any]) -> Wishes:
    return Wishes(
        cpus=values["cpus"],
        memory=values["memory"],
        gpus=values["gpus"],
        gpu_type=values["gpu_type"],
        disk=values["disk"],
        walltime=values["walltime"],
        tags=values["tag"] or (),
        custom=tuple(sorted({**dict(values["custom"] or ()), **dict(values["resource"] or ())}.items())),
        exclusive=bool(values["tag_exclusive"]),
        max_work_dir_size=values["max_work_dir_size"],
    )


def _style(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "text" if sys.stderr is not None and sys.stderr.isatty() else "json"


def _own_name() -> str:
    """For a worker started by hand: its host and something random."""
    letters = [c if c.isascii() and (c.isalnum()) else "-" for c in os.uname().nodename.lower()]
    return ("".join(letters)[:24].strip("-") or "worker") + "-" + os.urandom(4).hex()


# ---------------------------------------------------------------- tokens


def _token(values: Dict[str, Any], env: MutableMapping[str, str]) -> Tuple[bool, str]:
    inline = env.pop("WM_JOIN_TOKEN", "")
    join, long_lived = values["join_token_file"], values["token_file"]
    ways: List[Optional[str]] = [way for way in (join, long_lived, inline, values["join_identity"]) if way]
    if len(ways) != 1:
        raise UsageError(
            "give one token: --join-token-file for a launch, --token-file for a worker started by hand "
            "(or --join-identity, where the machine's platform says who it is)"
        )
    if values["join_identity"]:
        return False, ""
    if inline:
        return False, _usable(inline.strip(), "WM_JOIN_TOKEN")
    if join:
        return False, _usable(_read_token(join, "--join-token-file", False), "--join-token-file")
    return True, _usable(_read_token(long_lived, "--token-file", True), "--token-file")


def _read_token(path: str, where: str, private: bool) -> str:
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(LONGEST_TOKEN + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no token"
        raise UsageError("%s: %s cannot be read: %s" % (where, path, reason)) from None
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError("%s: others can read %s: chmod 600 it" % (where, path))
    return text


def _usable(token: str, where: str) -> str:
    if not token or len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError("%s: what is in it is no token" % where)
    return token
