"""One pool as the manager holds it: what was configured, the backend, and how its agents are started."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from backends.base import AgentFile, Backend, Capabilities, Submission
from worker_manager.policy.facts import PoolSettings

LARGEST_BATCH = 1_000  # an index has at most three digits, so that a worker's id has at most 40 characters


@dataclass(frozen=True)
class ManagedPool:
    settings: PoolSettings
    backend: Backend
    capabilities: Capabilities
    command: tuple[str, ...] = ()  # backends.base.Submission's fields of the same names
    environment: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    work_dir: str = ""
    agent: AgentFile | None = None
    call_timeout_ms: int = 30_000  # the backend's Context.call_timeout_s, and a little more
    list_ms: int | None = None  # how often it is listed while it has workers; None: as its kind allows
    list_idle_ms: int = 60_000  # while it has none

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def batch(self) -> int:
        return max(1, min(self.settings.max_batch, self.capabilities.max_batch, LARGEST_BATCH))

    @property
    def list_every_ms(self) -> int:
        """A platform whose listings are never behind is close by, and may be asked more often."""
        if self.list_ms is not None:
            return self.list_ms
        return 1_000 if self.capabilities.list_lag_s == 0 else 5_000

    def submission(self, manager: str, id: str, tokens: tuple[str, ...]) -> Submission:
        """One for each token; where workers can hold none, `tokens` only says how many."""
        return Submission(
            id=id,
            count=len(tokens),
            pool=self.name,
            manager=manager,
            shape=self.settings.shape,
            command=self.command,
            environment=self.environment,
            join_tokens=() if self.capabilities.identity else tokens,
            config=self.settings.config,
            setup=self.setup,
            work_dir=self.work_dir,
            agent=self.agent,
        )


# Called with the name of each step before or after which a sudden death leaves something to be put right. Does nothing
# in service; the crash tests hand in one that dies at a step of their choice.
Reach = Callable[[str], None]

STEPS = (
    "noted",  # the ledger knows what is about to be announced
    "announced",  # the source knows the tokens of one submission
    "intents-written",  # the ledger knows the workers that shall exist
    "before-call",
    "after-call",
    "outcome-written",  # the ledger knows what the call came to
    "buried",  # the source has revoked tokens, the ledger does not know it yet
    "closed",  # the ledger knows it
    "ending",  # the ledger knows that a worker was asked to end
    "ended",  # the backend was asked
)


def nothing_happens(_step: str) -> None:
    pass
