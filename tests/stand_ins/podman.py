"""A podman of a test's own: its images and containers lie in one folder."""

import os
import subprocess
from pathlib import Path

# Its defaults would raise limits to a million, which not every root may.
CONF = '[engine]\nruntime = "runc"\n[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'


class Podman:
    def __init__(self, folder: Path) -> None:
        (folder / "containers.conf").write_text(CONF)
        (folder / "storage.conf").write_text(STORAGE.format(folder))
        conf, storage = str(folder / "containers.conf"), str(folder / "storage.conf")
        self.env = {**os.environ, "CONTAINERS_CONF": conf, "CONTAINERS_STORAGE_CONF": storage}

    def call(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(["podman", *words], env=self.env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def containers(self) -> list[str]:
        return self.call("ps", "-aq").split()
