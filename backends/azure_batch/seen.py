"""What the service shows of tasks, pool and nodes → what the manager is told. Pure: mappings in, values out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from backends.azure_batch import recipe, states
from backends.azure_batch.errors import spoken
from backends.base import RefusalKind, Seen, WorkerPhase, clipped

COLUMNS = ("id", "displayName", "state", "stateTransitionTime", "executionInfo", "nodeInfo")


@dataclass(frozen=True)
class PoolView:
    """Why tasks wait, as far as the pool tells, and which of its nodes are in a bad way."""

    pool: str = ""
    refusal: RefusalKind | None = None
    detail: str = ""
    nodes: Mapping[str, str] = field(default_factory=dict)


NOTHING = PoolView()


def worker(task: Mapping[str, Any], manager: str, pool: str, view: PoolView = NOTHING) -> Seen | None:
    """None: it is not ours. Raises ValueError or TypeError where the answer makes no sense."""
    owner = recipe.owner(task.get("displayName"))
    if owner is None or owner[:2] != (manager, pool):
        return None
    id, state = task["id"], str(task.get("state") or "")
    if not isinstance(id, str):
        raise ValueError(f"a task whose id is {id!r}")
    phase, info = states.phase(state), task.get("executionInfo") or {}
    refusal, why = _why(phase, info, view)
    words = [f"is {state!r}, which we do not know" if phase is WorkerPhase.UNKNOWN else "", *why, *_node(task, view)]
    return Seen(
        submission=owner[2],
        index=owner[3],
        handle=id,
        phase=phase,
        started_at=_started(phase, info),
        exit_code=_exit_code(phase, info),
        refusal=refusal,
        detail=clipped("; ".join(word for word in words if word)),
    )


def _started(phase: WorkerPhase, info: Mapping[str, Any]) -> int | None:
    """A task that went back to the queue keeps the time of its last try: it has not started."""
    begun = info.get("startTime")
    return utc_ms(str(begun)) if begun and phase in (WorkerPhase.RUNNING, WorkerPhase.ENDED) else None


def _exit_code(phase: WorkerPhase, info: Mapping[str, Any]) -> int | None:
    code = info.get("exitCode")
    return int(code) if phase is WorkerPhase.ENDED and code is not None else None


def _why(phase: WorkerPhase, info: Mapping[str, Any], view: PoolView) -> tuple[RefusalKind | None, list[str]]:
    again = [f"started again by Azure ({info['requeueCount']} times)"] if info.get("requeueCount") else []
    if phase is WorkerPhase.PENDING:
        return view.refusal, [view.detail, *again]
    failed = info.get("failureInfo")
    if phase is not WorkerPhase.ENDED or not failed:
        return None, again
    code = str(failed.get("code") or "")
    said = "ended on request" if code == "TaskEnded" else f"{code}: {spoken(failed)}"
    return states.failure(code), [*again, said]


def _node(task: Mapping[str, Any], view: PoolView) -> list[str]:
    name = (task.get("nodeInfo") or {}).get("nodeId")
    if not name:
        return []
    return [f"on node {name}, which {view.nodes[name]}" if name in view.nodes else f"on node {name}"]


# ------------------------------------------------ the pool


def pool_view(pool: Mapping[str, Any], counts: Mapping[str, int], bad: Iterable[Mapping[str, Any]]) -> PoolView:
    """`counts`: nodes by state. `bad`: those in a bad state, as far as they were asked for."""
    nodes = {str(node.get("id")): node_words(node) for node in bad}
    refusal, words = None, []
    for kind, said in troubles(pool, counts):
        refusal = refusal or kind
        words.append(said)
    if not words:
        words.append(f"waits for a node: {census(counts)}")
    words += [f"node {name} {said}" for name, said in list(nodes.items())[:3]]
    return PoolView(str(pool.get("id") or ""), refusal, clipped("; ".join(words)), nodes)


def troubles(pool: Mapping[str, Any], counts: Mapping[str, int]) -> Iterator[tuple[RefusalKind | None, str]]:
    """What keeps the pool from having nodes, worst first."""
    name = pool.get("id")
    if str(pool.get("state")).lower() == "deleting":
        yield RefusalKind.CONFIG, f"pool {name} is being deleted"
    for error in pool.get("resizeErrors") or ():
        code = str(error.get("code") or "Unknown")
        yield states.resize(code), f"pool {name} cannot grow: {code}: {spoken(error)}"
    failed = (pool.get("autoScaleRun") or {}).get("error")
    if failed:
        yield RefusalKind.CONFIG, f"the autoscale formula of {name} fails: {failed.get('code')}: {spoken(failed)}"
    if counts and not usable(counts):
        yield RefusalKind.CONFIG, f"none of the pool's nodes can be used: {census(counts)}"
    if is_empty(pool, counts):
        yield RefusalKind.CONFIG, f"pool {name} has no nodes and is not to have any: it has no autoscale formula"


BROKEN = ("unusable", "starttaskfailed", "offline", "unknown")  # a person has to look at them


def usable(counts: Mapping[str, int]) -> int:
    return sum(count for state, count in counts.items() if state not in BROKEN)


def is_empty(pool: Mapping[str, Any], counts: Mapping[str, int]) -> bool:
    wanted = (pool.get("targetDedicatedNodes") or 0) + (pool.get("targetLowPriorityNodes") or 0)
    return not pool.get("enableAutoScale") and not wanted and not sum(counts.values())


def counted(answer: Iterable[Mapping[str, Any]], pool: str) -> dict[str, int]:
    """Nodes by state, dedicated and Spot together, of an answer to `nodecounts`."""
    found: dict[str, int] = {}
    for one in answer:
        if one.get("poolId") == pool:
            for kind in ("dedicated", "lowPriority"):
                for state, count in (one.get(kind) or {}).items():
                    if state.lower() != "total" and isinstance(count, int):
                        found[state.lower()] = found.get(state.lower(), 0) + count
    return {state: count for state, count in found.items() if count}


def census(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    parts = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{total} {'node' if total == 1 else 'nodes'} ({parts})" if parts else "the pool has none yet"


def node_words(node: Mapping[str, Any]) -> str:
    """What is wrong with it, in the service's own words where it has any."""
    state = str(node.get("state") or "").lower()
    said = [f"is {state}: {states.NODES.get(state) or 'a state that we do not know'}"]
    said += [f"{one.get('code')}: {spoken(_as_error(one))}" for one in node.get("errors") or ()]
    failed = (node.get("startTaskInfo") or {}).get("failureInfo")
    if failed:
        code = (node.get("startTaskInfo") or {}).get("exitCode")
        status = f" (status {code})" if code is not None else ""
        said.append(f"start task{status}: {failed.get('code')}: {spoken(failed)}")
    return "; ".join(said)


def _as_error(node_error: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"message": node_error.get("message"), "values": node_error.get("errorDetails")}


# ------------------------------------------------ times


def utc_ms(text: str) -> int:
    """2026-11-20T14:33:40.1234567Z → milliseconds."""
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def instant(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wanted_tasks(manager: str, ended_since_ms: int) -> str:
    """The filter of a listing. A job keeps its ended tasks for ever, so that all of them would be ever more.
    https://learn.microsoft.com/rest/api/batchservice/odata-filters-in-batch#list-tasks"""
    since = f"stateTransitionTime ge DateTime'{instant(ended_since_ms)}'"
    return f"startswith(id,'{recipe.prefix(manager)}') and (state ne 'completed' or {since})"
