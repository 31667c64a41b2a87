"""`make bench [NAME=throughput]`: runs the measurements, prints a table, writes build/bench.json."""

import argparse
import importlib
import sys
from pathlib import Path

from tools.bench.report import Row, table, write

# name → what it measures; the module of the same name has `run() -> list[Row]`.
BENCHES = {
    "latency": "submit with no worker → exec of the first job",
    "throughput": "jobs that start `true`, beside xargs -P2 and HyperQueue",
    "start": "from the exec of an agent to its first poll, as installed and from the single file",
    "submit": "an array of 100,000 jobs in one request, heartbeats meanwhile",
    "tick": "a whole tick against a large backlog",
    "backends": "1,000 launches, one list and 1,000 ends with each backend; seconds and calls",
    "cache": "8 workers that want the same 1 GiB, beside one cp; hits with 10,000 entries and 16 workers",
    "long_job": "processor time and bytes of a worker that waits for one long job, over a minute",
    "staging": "transfers against curl, copies against cp, and peak memory by size",
    "blobs": "files to and from the hub, and heartbeats meanwhile",
    "idle": "memory and CPU of idle agents, an idle hub and 5,000 waiting workers",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--name", help="run only those whose name contains this")
    wanted = parser.parse_args().name or ""
    names = [name for name in BENCHES if wanted in name]
    if not names:
        print(f"no measurement is called {wanted!r}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in names:
        print(f"{name}: {BENCHES[name]} …", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"tools.bench.{name}").run()
    print(table(rows))
    write(rows, Path("build/bench.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
