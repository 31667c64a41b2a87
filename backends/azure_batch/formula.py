"""The autoscale formula of a pool whose tasks are our workers: a node for as many as wait or run, and none otherwise.

Azure evaluates it every five minutes at the earliest. A node goes when its last worker has left it, never before.
https://learn.microsoft.com/azure/batch/batch-automatic-scaling
"""

LONGEST = 8192  # characters
_UPDATED = "TimeInterval_Minute * 5"


def autoscale(most_nodes: int, least_nodes: int = 0, slots: int = 1, per_worker: int = 1, spot: bool = False) -> str:
    """`slots`: task slots of a node, of which one worker takes `per_worker`. `spot`: of Spot nodes instead of
    dedicated ones. With fewer than half the samples the last one counts, because a new pool has no others. The language
    has no function that rounds, and a part of a node is none: so what is divided is one short of a node too much."""
    if not 0 <= least_nodes <= most_nodes or not 1 <= per_worker <= slots:
        raise ValueError(f"no pool has {least_nodes} to {most_nodes} nodes with {slots} slots, {per_worker} a worker")
    target = "$TargetLowPriorityNodes" if spot else "$TargetDedicatedNodes"
    lines = (
        f"mostNodes = {most_nodes};",
        f"leastNodes = {least_nodes};",
        f"workersPerNode = {slots // per_worker};",
        f"samples = $PendingTasks.GetSamplePercent({_UPDATED});",
        "last = max(0, $PendingTasks.GetSample(1));",
        f"workers = samples < 50 ? last : max(last, avg($PendingTasks.GetSample({_UPDATED})));",
        "nodes = (workers + workersPerNode - 1) / workersPerNode;",
        f"{target} = max(leastNodes, min(mostNodes, nodes));",
        "$NodeDeallocationOption = taskcompletion;",
    )
    return "\n".join(lines) + "\n"
