"""Slurm's own programs, run with a deadline and with an environment in which nothing but our words counts.

SBATCH_…, SQUEUE_… and the like would change what a command means, and a manager inside a Slurm job has the variables of
that job; so only what is named here goes along, and it is also all that a worker gets of the manager's environment.
"""

import os
from collections.abc import Mapping, Sequence

from backends import tools

INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"),
)
_SLURM = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")


class Unanswered(Exception):
    """The controller said nothing that can be used; the message is what there was."""


class Client:
    def __init__(self, timeout_s: float, inherited: Sequence[str] = ()) -> None:
        self._timeout_s = timeout_s
        self._names = (*INHERITED, *_SLURM, *inherited)

    def environment(self) -> dict[str, str]:
        """Times as seconds since 1970, so that no time zone has to be guessed."""
        kept = {name: os.environ[name] for name in self._names if name in os.environ}
        return {"PATH": os.defpath, **kept}

    def run(self, argv: Sequence[str], timeout_s: float | None = None) -> tools.Ran:
        """Raises tools.TookTooLong, tools.NotInstalled and tools.TooMuch."""
        return tools.run(argv, timeout_s or self._timeout_s, environment=self.environment())

    def read(self, argv: Sequence[str], timeout_s: float | None = None) -> str:
        """What it wrote. Raises Unanswered for everything else than success."""
        environment: Mapping[str, str] = {**self.environment(), "SLURM_TIME_FORMAT": "%s"}
        try:
            ran = tools.run(argv, timeout_s or self._timeout_s, environment=environment)
        except (tools.TookTooLong, tools.NotInstalled, tools.TooMuch, OSError) as failed:
            raise Unanswered(str(failed)) from failed
        if ran.status != 0:
            raise Unanswered(ran.words)
        return ran.out
