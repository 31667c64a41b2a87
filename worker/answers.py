"""The hub's answers, looked over before anything in them is believed: an answer is taken whole or not at all.

What does not have the form of worker/protocol.py is `Unreachable`: some proxy's, or of a broken hub. It is asked again.
"""

from typing import Any, Callable, Dict, Mapping

from worker import checkpoints, progress
from worker.isolation import ways
from worker.link.connection import Unreachable
from worker.protocol import Polled, Registered, Reported
from worker.stages import filejob

Told = Dict[str, Any]

# How a job can be run beyond its command, and what each part of that looks like.
WORK: Dict[str, Callable[[Any], bool]] = {
    "checkpoint": checkpoints.is_sensible,
    "cpu_affinity": lambda value: isinstance(value, bool),
    "image": lambda value: isinstance(value, str) and not value.startswith("-"),
    "inputs": filejob.are_inputs,
    "isolation": lambda value: value in (ways.PROCESS, *ways.WAYS),
    "max_files": lambda value: _amount(value),
    "max_processes": lambda value: _amount(value),
    "network": lambda value: isinstance(value, bool),
    "outputs": filejob.are_outputs,
    "progress_regex": progress.is_sensible,
}


def registered(told: Told) -> Registered:
    for name in ("session", "lease_ms", "poll_ms", "heartbeat_ms"):
        _needs(_amount(told.get(name)), name)
    _needs(told["lease_ms"] > 0, "lease_ms")
    _needs(isinstance(told.get("worker", ""), str), "worker")
    answer: Registered = told  # type: ignore[assignment]  # just checked
    return answer


def polled(told: Told) -> Polled:
    _times(told)
    _needs(_amount(told.get("seq", 0)), "seq")
    for name in ("assign", "cancel", "recall"):
        attempts = [] if told.get(name) is None else told[name]
        _needs(isinstance(attempts, list) and all(map(_names_an_attempt, attempts)), name)
    drain = told.get("drain")
    _needs(drain is None or (isinstance(drain, dict) and _amount(drain.get("deadline_ms", 0), True)), "drain")
    answer: Polled = told  # type: ignore[assignment]  # just checked
    return answer


def reported(told: Told, seq: int) -> Reported:
    _times(told)
    _needs(_amount(told.get("ack")) and told["ack"] >= seq, "ack")
    stale = [] if told.get("stale") is None else told["stale"]
    _needs(isinstance(stale, list) and all(_is_pair(each) for each in stale), "stale")
    tell = [] if told.get("tell") is None else told["tell"]
    _needs(isinstance(tell, list) and all(isinstance(each, str) for each in tell), "tell")
    answer: Reported = told  # type: ignore[assignment]  # just checked
    return answer


def mistake_in(assignment: Mapping[str, Any]) -> str:
    """What is wrong with one assignment; "" when it can be tried. A wrong one fails alone, its neighbours run."""
    command, env, shape = assignment.get("command"), assignment.get("env"), assignment.get("shape")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        return "its command is no list of words"
    if env is not None and not (isinstance(env, dict) and all(isinstance(value, str) for value in env.values())):
        return "its environment is no object of texts"
    if shape is not None and not (isinstance(shape, dict) and _is_shape(shape)):
        return "its shape has something else than amounts"
    for name in ("time_limit_ms", "grace_ms", "output_limit", "array_index"):
        if not _amount(assignment.get(name), True):
            return "%s is no amount" % name
    return _mistake_in_work(assignment.get("work"))


def _mistake_in_work(work: Any) -> str:
    """What is not known is not run: it would be run otherwise than it was meant."""
    if work is None:
        return ""
    if not isinstance(work, dict):
        return "its work is no object"
    for name, value in work.items():
        if name not in WORK:
            return "this worker does not know %s" % name
        if not WORK[name](value):
            return "%s makes no sense" % name
    if "checkpoint" in work and work.get("isolation", ways.PROCESS) not in checkpoints.ISOLATIONS:
        return "isolation %s cannot be told to save what it has done" % work["isolation"]
    return ways.mistake_in(work)


def _is_shape(shape: Told) -> bool:
    custom, tags = shape.get("custom", {}), shape.get("tags", [])
    return (
        all(_amount(shape.get(name, 0)) for name in ("cpus", "memory", "gpus", "disk"))
        and _amount(shape.get("walltime"), True)
        and isinstance(custom, dict)
        and all(map(_amount, custom.values()))
        and isinstance(tags, list)
        and all(isinstance(tag, str) for tag in tags)
    )


def _times(told: Told) -> None:
    _needs(_amount(told.get("lease_ms", 1)) and told.get("lease_ms", 1) > 0, "lease_ms")
    _needs(_amount(told.get("now_ms", 0), True), "now_ms")


def _needs(right: bool, where: str) -> None:
    if not right:
        raise Unreachable("its answer makes no sense: %s" % where)


def _amount(value: Any, none: bool = False) -> bool:
    return (none and value is None) or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _names_an_attempt(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("job"), str) and _amount(each.get("epoch"))


def _is_pair(each: Any) -> bool:
    return isinstance(each, list) and len(each) == 2 and isinstance(each[0], str) and _amount(each[1])
