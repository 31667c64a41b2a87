"""The tables, and the constants of their columns. What a column means stands beside it.

Written so that SQLite and PostgreSQL take the same statements. `place` exists for the indexes: a partial index needs a
constant in the query, so ask for it with `IN_QUEUE_SQL`, `ON_WORKER_SQL` and the like, never with a bound value.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()


def _only(condition: str) -> dict[str, Any]:
    """A partial index, in both dialects."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


NOWHERE, IN_QUEUE, ON_WORKER = 0, 1, 2  # jobs.place: where the matcher finds the row
WHOLE = -1  # jobs.idx of a job that is not a task of an array; also of the array itself

meta = Table(
    "meta",
    metadata,
    Column("name", String(40), primary_key=True),  # next_job, backlog_version, generation
    Column("value", BigInteger, nullable=False),
)

shapes = Table(  # written once, never changed: a job names its shape by number
    "shapes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("wire", Text, nullable=False, unique=True),
)

groups = Table(
    "groups",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(64), nullable=False, unique=True),
    Column("asks", Text, nullable=False),  # Shape wire: the largest of each amount among its members
    Column("floor", Text, nullable=False),  # the smallest
    Column("floor_cpus", BigInteger, nullable=False),
    Column("floor_memory", BigInteger, nullable=False),
    Column("floor_gpus", BigInteger, nullable=False),
    Column("floor_disk", BigInteger, nullable=False),
    Column("tags", Text, nullable=False),  # a JSON list, sorted
    Column("owner", String(128), nullable=False),
    Column("queue", String(128), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("queued", BigInteger, nullable=False, default=0),
    Column("unstarted", BigInteger, nullable=False, default=0),  # assigned, not started
    Column("running", BigInteger, nullable=False, default=0),
    Column("oldest", BigInteger),  # queued_ms of the head of its queue
    Column("run_us", BigInteger),  # moving average
    Column("touched_ms", BigInteger, nullable=False),
    Index("groups_waiting", text("priority DESC"), "oldest", **_only("queued > 0")),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),  # WHOLE, or the task's number
    Column("owner", String(128), nullable=False),
    Column("name", Text, nullable=False),
    Column("queue", String(128), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("place", Integer, nullable=False),
    Column("group_id", Integer),  # None while blocked
    Column("shape_id", Integer, nullable=False),
    Column("spec", Text),  # the part of an Assignment that never changes; None: the array's
    Column("tasks", Integer),  # of an array; None: not an array
    Column("retries", Integer, nullable=False),
    Column("tries", Integer, nullable=False),  # retries spent
    Column("losses", Integer, nullable=False),
    Column("cancelling", Integer, nullable=False),  # its end was asked for
    Column("watched", Integer, nullable=False),  # others depend on it
    Column("blockers", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("worker", String(64)),  # of the newest attempt
    Column("send_seq", BigInteger),  # of the worker's poll that carries the assignment
    Column("submitted_ms", BigInteger, nullable=False),
    Column("queued_ms", BigInteger),
    Column("assigned_ms", BigInteger),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("reason", String(64), nullable=False, server_default=""),
    Column("text", Text, nullable=False, server_default=""),
    Column("run_ms", BigInteger),
    Column("cpu_ms", BigInteger),
    Column("max_rss", BigInteger),
    Column("output", BigInteger),
    Column("program", BigInteger),  # runtimes.program_of; None: from before there was one
    Index("jobs_queue", "group_id", text("priority DESC"), "id", "idx", **_only("place = 1")),
    Index("jobs_active", "worker", **_only("place = 2")),
    Index("jobs_state", "state", "id", **_only("idx = -1")),
    Index("jobs_ended", "ended_ms", **_only("ended_ms IS NOT NULL")),
    sqlite_with_rowid=False,
)

arrays = Table(  # the counters of an array; tasks from next_idx on have no row yet
    "arrays",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("next_idx", Integer, nullable=False),
    Column("blocked", Integer, nullable=False),
    Column("queued", Integer, nullable=False),
    Column("assigned", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
)

attempts = Table(  # those that came before the one in the job's own row
    "attempts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(64)),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("assigned_ms", BigInteger),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("run_ms", BigInteger),
    Column("cpu_ms", BigInteger),
    Column("max_rss", BigInteger),
    Column("output", BigInteger),
    Index("attempts_worker", "worker"),
    sqlite_with_rowid=False,
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("on_id", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("needs", String(8), nullable=False),
    Index("dependencies_of", "job_id"),
    sqlite_with_rowid=False,
)

tallies = Table(  # how many jobs are in each state, tasks counted singly
    "tallies",
    metadata,
    Column("state", String(16), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner", String(128), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("idempotency_age", "created_ms"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("pool", String(128), nullable=False),
    Column("manager", String(64), nullable=False),  # empty: started by hand
    Column("owner", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("shape", Text, nullable=False),
    Column("free", Text, nullable=False),
    Column("serves", Text, nullable=False),  # {owners, queues}
    Column("hungry", Integer, nullable=False),  # ready, and has room
    Column("running", Integer, nullable=False),
    Column("assigned", Integer, nullable=False),
    Column("runs", Integer, nullable=False),
    Column("max_runs", Integer),
    Column("session", Integer, nullable=False),
    Column("nonce", String(128), nullable=False),
    Column("credential", String(64), nullable=False),  # SHA-256
    Column("out_seq", BigInteger, nullable=False),  # of the newest thing to tell it
    Column("in_seq", BigInteger, nullable=False),  # of the newest report taken
    Column("last_stale", Text, nullable=False),  # the answer to that report
    Column("stop", Integer, nullable=False),
    Column("cordon", Text),  # {reason, deadline_ms, by} or None
    Column("cordon_generation", Integer, nullable=False),
    Column("ready_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger),
    Column("idle_since", BigInteger),
    Column("idle_ms", BigInteger, nullable=False),  # idle in all, before idle_since
    Column("host", Text, nullable=False),
    Column("config", String(128), nullable=False),
    Column("idle_exit_ms", BigInteger),  # idle for this long it may go, where no manager takes care; None: never
    Index("workers_hungry", "free", "serves", **_only("hungry = 1")),
    Index("workers_pool", "pool", "state"),
    Index("workers_here", "pool", "ready_ms", **_only("gone_ms IS NULL")),
)

notices = Table(  # cancels, recalls and fences, until the worker's poll has taken them
    "notices",
    metadata,
    Column("worker", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(8), primary_key=True),  # cancel | recall
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
)

intents = Table(  # workers that a manager launches; the row outlives the registration
    "intents",
    metadata,
    Column("worker", String(64), primary_key=True),
    Column("submission", String(64), nullable=False),
    Column("manager", String(64), nullable=False),
    Column("pool", String(128), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("token_sha256", String(64), nullable=False, unique=True),  # no hash where it joins by its identity
    Column("state", String(16), nullable=False),  # open | registered | buried
    Column("call_deadline", BigInteger, nullable=False),
    Column("serves", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("joins_by", String(16)),  # who vouches for it: aws; None: nobody, it has a token
    Column("identity", String(200)),  # as whom; None until its manager knows
    Index("intents_submission", "submission"),
    Index("intents_identity", "identity", **_only("identity IS NOT NULL")),
    Index("intents_joins", "joins_by", **_only("joins_by IS NOT NULL")),
)

coverage = Table(  # job groups that a submission's open intents are for
    "coverage",
    metadata,
    Column("submission", String(64), primary_key=True),
    Column("group_key", String(64), primary_key=True),
    Column("manager", String(64), nullable=False),
    Column("jobs", BigInteger, nullable=False),
    Column("workers", Integer, nullable=False),  # of the submission in all
    Column("open", Integer, nullable=False),  # of them not registered and not buried
    Index("coverage_group", "group_key"),
)

managers = Table(
    "managers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("report", Text, nullable=False),  # what it last published
    Column("seen_ms", BigInteger, nullable=False),
)

commands = Table(
    "commands",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("manager", String(64), nullable=False),
    Column("pool", String(128), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("target", String(64), nullable=False),
    Column("generation", Integer),
    Column("options", Text, nullable=False),
    Column("by", String(128), nullable=False),
    Column("state", String(16), nullable=False),  # pending | done | failed | expired
    Column("result", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Index("commands_pending", "manager", **_only("state = 'pending'")),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer().with_variant(BigInteger, "postgresql"), primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("data", Text, nullable=False),
    Index("events_subject", "subject", "seq"),
    sqlite_autoincrement=True,  # a number is never given twice, even when the newest was purged
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("owner", String(128), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("expires_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("length", BigInteger, nullable=False),
    Column("segment", String(80), nullable=False),
    Column("segment_offset", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

segments = Table(  # how many chunks still lie in each segment file
    "segments",
    metadata,
    Column("segment", String(80), primary_key=True),
    Column("chunks", BigInteger, nullable=False),
    Column("newest_ms", BigInteger, nullable=False),
)

blobs = Table(  # a row for each owner; the bytes lie once in the state directory, by their digest
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("owner", String(128), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("refs", BigInteger, nullable=False),  # rows of blob_refs
    Column("unused_ms", BigInteger),  # since when no job has needed it, or since it came; None while one does
    Index("blobs_unused", "unused_ms", **_only("unused_ms IS NOT NULL")),
    sqlite_with_rowid=False,
)

blob_refs = Table(  # which job needs which blob, as an input of the whole job or as what one task has left
    "blob_refs",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("sha256", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    sqlite_with_rowid=False,
)

job_files = Table(  # what an attempt has kept, sorted by path and numbered so
    "job_files",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("at", Text, nullable=False),  # blob:SHA256, or the object's URI
    sqlite_with_rowid=False,
)

IN_QUEUE_SQL = text("jobs.place = 1")
ON_WORKER_SQL = text("jobs.place = 2")
QUEUED_SQL = text("groups.queued > 0")
HUNGRY_SQL = text("workers.hungry = 1")
NO_TASK_SQL = text("jobs.idx = -1")
HERE_SQL = text("workers.gone_ms IS NULL")
# A command's target was freed, or cordoned anew, after it was asked. Who is told to stop goes whatever comes.
OVERTAKEN_SQL = text(
    "workers.gone_ms IS NULL AND workers.stop = 0 AND commands.generation IS NOT NULL"
    " AND workers.cordon_generation != commands.generation"
)
