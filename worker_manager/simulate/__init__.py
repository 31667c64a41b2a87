"""The manager's decisions on a virtual clock: the same derive, plan and closings as in service, on the shipped fake.

    result = simulate([SimPool(settings)], jobs, Faults(refused=0.1), seed=7, until=24 * HOUR)
    result.waits.p95, result.worker_ms["p"], result.reasons["max-workers"]

Nothing runs between two events, so thousands of hours pass in seconds; the same seed gives the same run.
"""

from worker_manager.simulate.engine import Moment, simulate
from worker_manager.simulate.result import Result, Waits
from worker_manager.simulate.world import Faults, SimJob, SimPool, Span

__all__ = ["Faults", "Moment", "Result", "SimJob", "SimPool", "Span", "Waits", "simulate"]
