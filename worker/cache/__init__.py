"""Inputs that many workers share on one file system, local or NFS, without a daemon and without a lock that matters.

    entries/SCOPE/KEY/{data,meta,pin}   published whole, by one rename; `data` is a file or a tree, never changed again
    pins/WORKER/N                       a hard link of an entry's `pin`: while it stands, the entry stays
    building/WORKER/N/                  private, until it is published or thrown away
    claims/SCOPE.KEY                    who builds it; only spares others the work, so a wrong one does no harm
    alive/WORKER                        touched now and then; what else a dead worker left is cleared away
    trash/WORKER.N                      evicted, being deleted

WORKER is one process: an agent that is started again is another. Who uses the cache for an agent, in a process of its
own, does so in the agent's name, and may die and come back: what is pinned stays pinned while the agent lives.
Rename and link are atomic on every file system that knows them, NFS included, and the file system itself counts the
pins of an entry as links. An entry is evicted in two steps: its `pin` is renamed, so that nobody can pin it any more;
then, if no link of it is left, the entry goes, else the name comes back. Nothing that is pinned ever moves.
The size of an entry is the length of its (empty) `pin`, and its last use is that file's change time, which link and
unlink set: one stat tells size, use and age.

Who may read an entry is told by the folder of its scope alone: what lies in it may be read by whoever gets there. All
of it belongs to the user of the agents. Where root's agents run jobs as other users, the folder of an owner can be
entered by the group of that owner's jobs, and `public` by all; no other folder can.
"""
