"""The end of a worker's own output."""

from __future__ import annotations

from backends.ssh.far.records import Json, Pool


def run(request: dict[str, Json]) -> Json:
    return {"text": Pool(request).worker(request["submission"], request["index"]).tail(request["most"])}
