"""What the service says of each task of one call. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.azure_batch import states
from backends.azure_batch.errors import spoken
from backends.base import RefusalKind, Refused, clipped


@dataclass(frozen=True)
class Result:
    count: int
    added: tuple[str, ...]
    existing: tuple[str, ...]
    refused: Mapping[str, tuple[str, str]]  # id → code and words: certainly not there
    unclear: Mapping[str, str]  # id → words: perhaps there

    @property
    def whole(self) -> bool:
        return len(self.added) + len(self.existing) == self.count

    @property
    def words(self) -> str:
        bad = [f"{id}: {code}: {words}" for id, (code, words) in self.refused.items()]
        bad += [f"{id}: {words}" for id, words in self.unclear.items()]
        return f"{len(bad)} of {self.count} workers were not taken: {'; '.join(bad[:3])}"

    def refusal(self) -> Refused:
        code, _ = next(iter(self.refused.values()))
        return Refused(states.error(400, code) or RefusalKind.CONFIG, clipped(self.words))


def read(said: Iterable[Mapping[str, Any]], asked: Sequence[str]) -> Result:
    """https://learn.microsoft.com/rest/api/batchservice/tasks/create-task-collection"""
    by_id = {one.get("taskId"): one for one in said}
    added, existing = [], []
    refused, unclear = {}, {}
    for id in asked:
        one = by_id.get(id, {})
        status, error = str(one.get("status", "")).lower(), one.get("error") or {}
        code = str(error.get("code") or "")
        if status == "success":
            added.append(id)
        elif code == "TaskExists":
            existing.append(id)
        elif status == "clienterror" or states.error(None, code) is not None:
            refused[id] = (code, spoken(error))
        else:
            unclear[id] = f"{code or status or 'nothing was said of it'}: {spoken(error)}"
    return Result(len(asked), tuple(added), tuple(existing), refused, unclear)
