"""What `doctor` looks at, in the order in which it fails for a newcomer. Changes nothing."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from backends.azure_batch import recipe, seen, states
from backends.azure_batch.blobs import LogContainer
from backends.azure_batch.errors import Trouble
from backends.azure_batch.formula import autoscale
from backends.azure_batch.seen import PoolView
from backends.azure_batch.service import Deadline, Service
from backends.azure_batch.settings import Settings
from backends.azure_batch.sizes import Size, size_of
from backends.base import Context, Finding, RefusalKind, Severity
from worker.protocol import Shape, format_bytes, format_cpus

OK, WARNING, ERROR = Severity.OK, Severity.WARNING, Severity.ERROR


def pool_of(job: Mapping[str, Any]) -> str:
    """The pool under which the job's tasks run."""
    made = (job.get("executionInfo") or {}).get("poolId")  # an auto pool has its name from the service
    return str(made or (job.get("poolInfo") or {}).get("poolId") or "")


def view(service: Service, pool: str, deadline: Deadline) -> PoolView:
    """Two calls; a third where nodes are in a bad way."""
    found, counts = service.pool(pool, deadline), service.node_counts(pool, deadline)
    bad = service.bad_nodes(pool, deadline) if any(counts.get(state) for state in seen.BROKEN) else []
    return seen.pool_view(found, counts, bad)


def formula_for(settings: Settings, most_workers: int | None, pool: Mapping[str, Any] | None = None) -> str:
    """Of a pool that is there, or of the one that would be made."""
    slots = (pool or settings.pool_template or {}).get("taskSlotsPerNode") or 1
    per_node = max(1, slots // settings.slots)
    most_nodes = -(-(most_workers or 10) // per_node)
    return autoscale(most_nodes, slots=slots, per_worker=min(settings.slots, slots))


def rendered_job(settings: Settings, context: Context) -> str:
    """What is made first where job and pool are not there."""
    made = formula_for(settings, context.max_workers)
    parts = [f"\n# POST {settings.service_url}/jobs, when the job is not there"]
    parts.append(json.dumps(recipe.job(settings, context.manager), indent=2, ensure_ascii=False))
    if settings.pool_template is not None:
        parts.insert(0, json.dumps(recipe.pool(settings, context.manager, made), indent=2, ensure_ascii=False))
        parts.insert(0, f"\n# POST {settings.service_url}/pools, when the pool is not there")
    return "\n".join(parts) + "\n"


def findings(service: Service, logs: LogContainer, settings: Settings, context: Context) -> Iterator[Finding]:
    deadline = Deadline(context.call_timeout_s)
    try:
        job = service.job(deadline)
    except Trouble as trouble:
        yield _no_job(trouble, settings)
    else:
        yield Finding("credentials", OK, f"{settings.service_url} knows us")
        yield from _job(job, settings)
        yield from _pool(service, pool_of(job), settings, context, deadline)
    yield from _logs(logs, settings, Deadline(context.call_timeout_s))


# ---------------------------------------------------------------- credentials and job


def _no_job(trouble: Trouble, settings: Settings) -> Finding:
    job = settings.job
    if trouble.code == "JobNotFound":
        if settings.create_job:
            return Finding("job", OK, f"{job} is not there yet; the first launch makes it on pool {settings.pool}")
        mend = f"az batch job create --id {job} --pool-id POOL, or --create-job --pool-id POOL"
        return Finding("job", ERROR, f"there is no job {job}", mend)
    if trouble.before or states.error(trouble.status, trouble.code) is RefusalKind.AUTH:
        return Finding("credentials", ERROR, str(trouble), _mend_credentials(settings))
    mend = f"look whether {settings.service_url} is the account's URL (az batch account show --query accountEndpoint)"
    return Finding("service", ERROR, str(trouble), f"{mend} and can be reached from here")


def _mend_credentials(settings: Settings) -> str:
    if settings.key:
        return f"az batch account keys list --name {settings.account} --resource-group GROUP: give --account-key anew"
    roles = "`Azure Batch Job Submitter` and `Azure Batch Account Reader`"
    return f"az login, or a managed identity, with the roles {roles} on the account (`Owner` does not hold them)"


def _job(job: Mapping[str, Any], settings: Settings) -> Iterator[Finding]:
    state = str(job.get("state"))
    if str(job.get("onAllTasksComplete")).lower() == "terminatejob":
        mend = f"az batch job set --job-id {settings.job} --on-all-tasks-complete noaction"
        yield Finding("job", ERROR, f"{settings.job} ends for ever when its last worker has left", mend)
    if state.lower() == "active":
        yield Finding("job", OK, f"{settings.job} is active")
        return
    if state.lower() in ("disabled", "disabling", "enabling"):
        mend = f"az batch job enable --job-id {settings.job}"
    else:
        mend = f"another --job-id: az batch job create --id {settings.job}-2 --pool-id {pool_of(job)}"
    yield Finding("job", ERROR, f"{settings.job} is {state}: it starts no tasks", mend)


# ---------------------------------------------------------------- the pool


def _pool(service: Service, id: str, settings: Settings, context: Context, deadline: Deadline) -> Iterator[Finding]:
    try:
        pool, counts = service.pool(id, deadline), service.node_counts(id, deadline)
        bad = service.bad_nodes(id, deadline) if any(counts.get(state) for state in seen.BROKEN) else []
    except Trouble as trouble:
        yield Finding(
            "pool", ERROR, f"pool {id} cannot be read: {trouble}", "make the pool, or mend the job's poolInfo"
        )
        return
    yield from _health(pool, counts, id, settings, context)
    yield from _nodes(bad, id)
    yield _image(pool, settings)
    yield from _fit(pool, settings, context)


def _health(
    pool: Mapping[str, Any], counts: Mapping[str, int], id: str, settings: Settings, context: Context
) -> Iterator[Finding]:
    bad = list(seen.troubles(pool, counts))
    severity = WARNING if seen.usable(counts) else ERROR  # some go on while the others wait
    for kind, text in bad:
        yield Finding("pool", severity, text, _mend_pool(kind, text, id))
    if not bad:
        state = str(pool.get("allocationState") or "steady")
        yield Finding("pool", OK, f"{id} ({pool.get('vmSize')}), {state}: {seen.census(counts)}")
    if not pool.get("enableAutoScale"):
        own = formula_for(settings, context.max_workers, pool).replace("\n", " ").strip()
        text = f"{id} has a fixed number of nodes, which cost money while no worker runs"
        yield Finding(
            "autoscale", WARNING, text, f"az batch pool autoscale enable --pool-id {id} --auto-scale-formula '{own}'"
        )
    else:
        run = (pool.get("autoScaleRun") or {}).get("results") or "was not evaluated yet"
        yield Finding("autoscale", OK, str(run))


def _mend_pool(kind: RefusalKind | None, text: str, id: str) -> str:
    if kind is RefusalKind.QUOTA:
        return "ask for a larger quota: portal, Batch account, Quotas; or make the pool of another VM series"
    if kind is RefusalKind.CAPACITY:
        return "wait, or make the pool of another VM size, or in another region"
    if "can be used" in text:
        return f"az batch node list --pool-id {id} shows why; then az batch node reboot, or node delete"
    if "formula" in text:
        return f"az batch pool autoscale enable --pool-id {id} --auto-scale-formula FORMULA"
    return f"az batch pool show --pool-id {id} --query resizeErrors, and mend what it names"


def _nodes(bad: list[Mapping[str, Any]], pool: str) -> Iterator[Finding]:
    for node in bad[:5]:
        name = node.get("id")
        mend = f"az batch node reboot --pool-id {pool} --node-id {name}, or az batch node delete with the same"
        yield Finding("node", WARNING, f"{name} {seen.node_words(node)}", mend)
    if len(bad) > 5:
        mend = f"az batch node list --pool-id {pool} --filter \"state eq 'unusable'\""
        yield Finding("node", WARNING, f"and {len(bad) - 5} more", mend)


def _image(pool: Mapping[str, Any], settings: Settings) -> Finding:
    containers = (pool.get("virtualMachineConfiguration") or {}).get("containerConfiguration")
    if settings.image and not containers:
        text = f"--image {settings.image}, but pool {pool.get('id')} runs no containers"
        return Finding("image", ERROR, text, "make the pool with containerConfiguration, or leave out --image")
    if containers and not settings.image:
        text = f"pool {pool.get('id')} runs tasks in containers only"
        return Finding("image", ERROR, text, "--image IMAGE, such as one with Python 3.9 or newer")
    if not settings.image:
        return Finding("image", OK, "workers run on the node itself, which needs Python 3.9 or newer")
    if settings.image in ((containers or {}).get("containerImageNames") or ()):
        return Finding("image", OK, f"{settings.image} is on every node before the first worker")
    return Finding("image", OK, f"{settings.image} is pulled by each node for its first worker")


def _fit(pool: Mapping[str, Any], settings: Settings, context: Context) -> Iterator[Finding]:
    slots = pool.get("taskSlotsPerNode") or 1
    if settings.slots > slots:
        text = f"a worker takes {settings.slots} slots, a node has {slots}"
        yield Finding("slots", ERROR, text, f"--slots {slots}, or a pool with more taskSlotsPerNode")
        return
    size = size_of(str(pool.get("vmSize") or ""))
    if context.shape is None or size is None:
        text = f"what a {pool.get('vmSize')} has is not known here: whether the shape fits, the first worker tells"
        yield Finding("shape", OK, text)
        return
    yield _fits(context.shape, size, slots // settings.slots, str(pool.get("vmSize")))


def _fits(shape: Shape, size: Size, per_node: int, name: str) -> Finding:
    too_large = [*_too_large(shape, size, 1)]
    if too_large:
        return Finding(
            "shape", ERROR, f"{name}: {'; '.join(too_large)}", "a smaller shape, or a pool of a larger VM size"
        )
    together = [*_too_large(shape, size, per_node)]
    if together:
        text = f"{per_node} workers share a {name}: {'; '.join(together)}"
        return Finding("shape", WARNING, text, "more --slots for a worker, or a smaller shape")
    return Finding("shape", OK, f"{per_node} workers of this shape on each {name}")


def _too_large(shape: Shape, size: Size, count: int) -> Iterator[str]:
    if shape.cpus * count > size.cpus:
        yield f"asked for {format_cpus(shape.cpus * count)} CPUs, it has {format_cpus(size.cpus)}"
    if size.memory and shape.memory * count > size.memory:
        yield f"asked for {format_bytes(shape.memory * count)} of memory, it has {format_bytes(size.memory)}"
    if shape.gpus * count > size.gpus:
        yield f"asked for {shape.gpus * count} GPUs, it has {size.gpus}"


# ---------------------------------------------------------------- logs


def _logs(logs: LogContainer, settings: Settings, deadline: Deadline) -> Iterator[Finding]:
    if not settings.log_url:
        text = "workers' output stays on its node, and goes with it"
        yield Finding("logs", WARNING, text, "--log-container-url URL with --log-identity or --log-container-sas")
        return
    if settings.log_sas:
        yield from _sas(settings.log_sas)
    try:
        logs.look(deadline)
    except Trouble as trouble:
        mend = "a SAS with the rights r, w, c and l on the container, or the role `Storage Blob Data Reader` for us"
        yield Finding("logs", WARNING if settings.log_identity else ERROR, str(trouble), mend)
        return
    yield Finding("logs", OK, f"output is copied to {settings.log_url}, and can be read from here")


def _sas(sas: str) -> Iterator[Finding]:
    """What can be told of it without writing anything: what it allows."""
    from urllib.parse import parse_qs

    rights = parse_qs(sas).get("sp", [""])[0]
    if rights and not set("rw") <= set(rights):
        mend = "az storage container generate-sas --permissions rwcl"
        yield Finding("logs", ERROR, f"the SAS allows {rights!r}, and output needs r and w", mend)
    text = "a SAS stands in every task, for all who may read the account's tasks"
    yield Finding("logs", WARNING, text, "--log-identity: an identity of the pool with `Storage Blob Data Contributor`")
