"""HyperQueue: server, worker and client. Prints how many `true` a second it ran, their output kept in files."""

import sys
import tempfile
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main() -> None:
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Path(name)
        with LocalCluster(server_dir=str(place / "server"), worker_config=WorkerConfig(cores=2)) as cluster:
            client = cluster.client()
            client.wait_for_jobs([client.submit(tasks(place, 10))])
            began = time.perf_counter()
            client.wait_for_jobs([client.submit(tasks(place, count))])
            print(count / (time.perf_counter() - began))


def tasks(place: Path, count: int) -> Job:
    job = Job(max_fails=0)
    for number in range(count):
        job.program(["true"], cwd=str(place), stdout=str(place / f"{number}.out"), stderr=str(place / f"{number}.err"))
    return job


if __name__ == "__main__":
    main()
