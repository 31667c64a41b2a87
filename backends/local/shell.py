"""The small shell around each worker: set-up lines, one TERM passed on, and the exit status kept.

The manager that started a worker may be gone when it ends, so somebody else must note how. A shell of one megabyte
that starts in a millisecond does.
"""

import shutil
from collections.abc import Sequence

# $1 folder of the worker, $2 set-up lines, then the worker's argv. Nothing is pasted into this text.
# A TERM that comes while the worker is being started is kept until it is there. Between fork and exec the worker is
# still a copy of the shell, which would swallow the signal: that moment is over when its command line is another.
# Never a second TERM for safety: to a worker that means to drop everything.
# A `wait` that a signal interrupts tells the signal's number, so it is repeated; 127 then means that the status was
# told before.
_SCRIPT = """
cd "$1" || exit 126
trap 'status=$?; trap - EXIT; echo "$status" > "$WM_WORKER_DIR/exit"; exit "$status"' EXIT
trap 'exit 143' TERM HUP INT
setup=$2
shift 2
if [ -n "$setup" ]; then
    set -e
    eval "$setup"
    set +e
fi
worker= asked=
pass_on() {
    while cmp -s "/proc/$$/cmdline" "/proc/$worker/cmdline"; do sleep 0.01 || break; done
    kill -TERM "$worker" 2>/dev/null
}
trap 'again=y; if [ -n "$worker" ]; then pass_on; else asked=y; fi' TERM HUP INT
"$@" &
worker=$!
[ -z "$asked" ] || pass_on
status=
while :; do
    again=
    wait "$worker"
    now=$?
    [ "$now" = 127 ] && [ -n "$status" ] || status=$now
    [ -n "$again" ] || break
done
exit "$status"
"""


def around(command: Sequence[str], folder: str, setup: Sequence[str]) -> list[str]:
    """The argv that runs `command`. Set-up lines get bash where there is one, because people write them for it."""
    shell = (shutil.which("bash") if setup else None) or "/bin/sh"
    return [shell, "-c", _SCRIPT, "wm-worker", folder, "\n".join(setup), *command]
