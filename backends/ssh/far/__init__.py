"""The far side: these modules are sent over ssh's stdin to a host's own Python (≥ 3.9), which knows nothing of ours.

    <base>/agents/<digest>.pyz                       the agent, once for each version
    <base>/<host>/<manager>@<pool>/lock              held by the call that launches or ends
        <submission>/launch.json, start.sh           its agent; what each of its workers runs
        <submission>/<index>/process                 the attendant's pid, its start time and the boot they belong to
                             join-token, worker.log  the secret; what worker and set-up wrote
                             exit                    the worker's status, written by its attendant
                             ending, ended           somebody asked it to end; the final word

The host's name is in the path because home folders are often shared between hosts, and pids are not.
Everything is 0700 or 0600. A worker's **attendant** is a small process that starts it, passes one TERM on and keeps its
exit status. It is on record before it may start anything, so there is no worker that is on no record.
"""

# What is sent with every call, each importing only from those before it; and the last one, whose `run` does the work.
COMMON = ("processes", "records", "answering")
CALLS = {"launch": "starting", "list": "seeing", "end": "ending", "logs": "reading", "check": "looking"}
