"""What a job says of its isolation, and what it comes to here. Plain values: they go from the agent to the keeper."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

PROCESS, SANDBOX, DOCKER, PODMAN, APPTAINER = "process", "sandbox", "docker", "podman", "apptainer"
ENGINES = (DOCKER, PODMAN)
IMAGES = (DOCKER, PODMAN, APPTAINER)  # these run a job in an image
WAYS = (SANDBOX, DOCKER, PODMAN, APPTAINER)  # what a worker's shape.can may name


def told(work: Mapping[str, Any] | None, isolation: Mapping[str, Any]) -> tuple[str, str, bool] | None:
    """For the keeper: kind, image, network; None: a process like any other. What makes no sense was refused before
    (`answers.mistake_in`), and what this worker cannot do the keeper refuses."""
    if not work and not isolation.get("each_owner"):
        return None
    kind = (work or {}).get("isolation", PROCESS)
    if kind == PROCESS and not isolation.get("each_owner"):
        return None
    return kind, (work or {}).get("image", ""), (work or {}).get("network", True)


def mistake_in(work: Mapping[str, Any]) -> str:
    """What does not go together; "" when it does."""
    kind, image = work.get("isolation", PROCESS), work.get("image", "")
    if kind in IMAGES and not image:
        return "isolation %s needs an image" % kind
    if image and kind not in IMAGES:
        return "isolation %s has no image" % kind
    if kind == PROCESS and not work.get("network", True):
        return "a plain process cannot be kept from the network"
    if kind in ENGINES and work.get("cpu_affinity"):
        return "isolation %s cannot bind a job to cores" % kind
    return ""


def is_wrapped(work: Mapping[str, Any] | None) -> bool:
    """Whether its exit status is told by another program, which has no signals to tell."""
    return bool((work or {}).get("isolation", PROCESS) != PROCESS)
