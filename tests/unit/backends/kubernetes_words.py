"""What the tests of the Kubernetes backend begin with: settings as a person gives them, and a submission."""

from dataclasses import replace
from typing import Any

from backends import registry
from backends.base import Submission
from backends.kubernetes import settings
from backends.kubernetes.settings import Settings
from worker.protocol import Shape


def chosen(**options: Any) -> Settings:
    """Underscores for dashes; values as on a command line."""
    kind = registry.load("kubernetes")
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return settings.read(kind.read(given, {"TOKEN": "canary-token"}))


def submission(count: int = 1, **more: Any) -> Submission:
    made = Submission(
        id="m-7",
        count=count,
        pool="p",
        manager="m",
        shape=Shape(cpus=1500, memory=2**30),
        command=("wm", "--worker-id", "{worker}"),
        environment={},
        join_tokens=tuple(f"wmj_canary_{index}" for index in range(count)),
        config="digest",
    )
    return replace(made, **more)
