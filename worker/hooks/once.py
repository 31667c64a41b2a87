"""The first hook and the last one, run by the agent itself, which has nothing else to do meanwhile but heed signals."""

import os
import select
import signal
import subprocess
import time
from typing import Any, Callable, Mapping

from worker.hooks.told import FAILED, OUTPUT_END, last_line, shell, trouble
from worker.signals import Signals

POLL_MS = 50


class Interrupted(Exception):
    """A signal asked the worker to stop."""


def run(
    hook: str,
    line: str,
    env: Mapping[str, str],
    limit_ms: int,
    signals: Signals,
    is_stop: Callable[[Signals], bool],
    journal: Callable[..., None],
) -> str:
    """What was wrong; "" when nothing was. Raises Interrupted after it was killed for a signal. Whatever it starts and
    leaves in its session goes on; its output is heard until it ends itself."""
    process = subprocess.Popen(
        shell(line),
        env={**env, "WM_HOOK": hook},
        cwd=env["WM_WORK_DIR"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    began = time.monotonic()
    output, late, stopped = b"", False, False
    with process:
        pipe: Any = process.stdout
        os.set_blocking(pipe.fileno(), False)
        watched = {pipe.fileno(), signals.fileno()}
        while process.poll() is None:
            ready = select.select(list(watched), [], [], POLL_MS / 1000)[0]
            if pipe.fileno() in ready:
                data = pipe.read() or b""
                output = (output + data)[-OUTPUT_END:]
                if not data:
                    watched.discard(pipe.fileno())
            if signals.fileno() in ready and is_stop(signals):
                stopped = True
            late = not stopped and (time.monotonic() - began) * 1000 >= limit_ms
            if stopped or late:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output = (output + (pipe.read() or b""))[-OUTPUT_END:]
    status = process.returncode
    wrong = trouble(-status if status < 0 else status << 8, limit_ms if late else 0)
    text = output.decode("utf-8", "replace").strip()
    if wrong or text:
        facts = {"hook": hook, "took_ms": int((time.monotonic() - began) * 1000), "output": text}
        journal(FAILED if wrong else "hook", **facts, **({"text": wrong} if wrong else {}))
    if stopped:
        raise Interrupted
    said = last_line(output)
    return "%s: %s" % (wrong, said) if wrong and said else wrong
