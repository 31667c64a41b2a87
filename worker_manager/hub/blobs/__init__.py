"""The hub's blobs: files that jobs take and leave, by their SHA-256, each for its owners alone.

A client or a worker sends a blob in pieces, resumed at any byte (`receiving.py`), and fetches it or a range of it
(`sending.py`). The bytes lie in the state directory (`folder.py`), whole or not at all; whose they are and who still
needs them stands in the database (`store/blobs.py`). A blob that no job refers to goes `--blob-keep` after it came or
after the last such job went (`chores/blobs.py`).

For other parts of the hub:

**In a commit** (`store/blobs.py`; each takes the writer's connection, so it stands or falls with the rest):

    missing = blobs.refer(connection, owner, number, idx, digests)
        Keeps them for as long as the job is there. `idx` is WHOLE for what a job takes, the task's own for what a task
        has left. Returns those that this owner has not: raise `Invalid` for a submission, leave them out of a result.
        Safe to repeat. Retention calls `release` with the job's rows; nobody else has to.

**To look** (in a thread, `await hub.read(…)`): `hub.store.find_blob(owner, sha256)` is its size, or None.

**Addresses for workers** (in the event loop):

    hub.blobs.grants.address("GET", sha256, owner, until_ms)   "/v1/blobs/…?owner=…&until=…&may=GET&signature=…"
    hub.blobs.grants.address("PATCH", …)                       to send it; HEAD is allowed with either

The owner is the job's: whoever holds the address speaks for that owner about this one blob, until then. Whether the
blob is there is not looked at: ask `receiving.size_here` first, and answer `{there: true}` for what need not be sent.
It looks at the bytes too, and keeps a blob that no job needs for a while from then on.

**To serve one under another path**, with ranges and all:

    return await sending.answer(call, owner, sha256, filename)
"""
