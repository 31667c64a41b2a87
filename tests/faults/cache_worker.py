"""A worker of a cache as a process of its own, for tests: it dies at a step that it is told, or works at random.

cache_worker.py ROOT NAME die STEP       gets an entry, evicts it; SIGKILLs itself at that step
cache_worker.py ROOT NAME work SEED SECONDS KEYS QUOTA    gets, reads, checks and lets go; exits 9 on a torn read
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from worker.cache.store import Cache


def content(number: int) -> bytes:
    """Of entry `number`, and no other's: 16 KiB times its number."""
    return (b"%08d" % number) * (2048 * (1 + number % 4))


def key(number: int) -> str:
    return f"name-{number:064x}"


def die(root: str, name: str, step: str) -> None:
    def reach(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    cache = Cache(root, name, reach=reach)
    cache.get(key(1), lambda path: fill(path, 1)).release()
    cache.entries.evict("public", key(1))
    print("came to its end")


def fill(path: str, number: int) -> None:
    Path(path).write_bytes(content(number))


def work(root: str, name: str, seed: str, seconds: str, keys: str, quota: str) -> None:
    chance = random.Random(int(seed))  # noqa: S311
    cache = Cache(root, name, int(quota))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        number = chance.randrange(int(keys))
        pin = cache.get(key(number), lambda path, number=number: fill(path, number))  # type: ignore[misc]
        for _ in range(chance.randrange(1, 4)):
            if Path(pin.path).read_bytes() != content(number):
                print(f"torn read of {number}", file=sys.stderr)
                sys.exit(9)
        pin.release()
        if chance.random() < 0.05:
            cache.tidy()
    print(cache.counts)


if __name__ == "__main__":
    {"die": die, "work": work}[sys.argv[3]](sys.argv[1], sys.argv[2], *sys.argv[4:])
