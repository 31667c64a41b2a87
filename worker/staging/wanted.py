"""What a job says of its inputs, looked over: where each goes, and whether they can stand beside each other."""

from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from worker.staging.errors import Refused
from worker.staging.grants import is_amount, is_digest
from worker.staging.paths import parts_of
from worker.staging.replies import shown


class Wanted(NamedTuple):
    to: Tuple[str, ...]
    source: str
    sha256: str
    size: Optional[int]
    unpack: bool
    copy: bool
    run: bool = False

    @property
    def name(self) -> str:
        return "/".join(self.to)

    @property
    def shown(self) -> str:
        """Its source, without what may be secret in it."""
        return shown(self.source) if self.source.startswith(("http://", "https://")) else self.source


def wanted(inputs: Sequence[Mapping[str, Any]]) -> List[Wanted]:
    """Raises Refused and Unsafe."""
    found = [_one(each) for each in inputs]
    taken = {each.to for each in found}
    if len(taken) < len(found):
        raise Refused("two inputs go to one place")
    for each in found:
        for end in range(1, len(each.to)):
            if each.to[:end] in taken:
                raise Refused("the input %s would lie within another one" % each.name)
    return found


def _one(told: Mapping[str, Any]) -> Wanted:
    to, source, sha256, size = told.get("to"), told.get("source"), told.get("sha256") or "", told.get("size")
    if not isinstance(to, str) or not isinstance(source, str) or not isinstance(sha256, str):
        raise Refused("an input makes no sense")
    parts = parts_of(to)
    if not parts:
        raise Refused("an input has no place to go to")
    if source.startswith("blob:"):
        named = source[len("blob:") :]
        if not is_digest(named) or (sha256 and sha256 != named):
            raise Refused("%s is not named by its digest" % source)
        sha256 = named
    if (sha256 and not is_digest(sha256)) or not (size is None or is_amount(size)):
        raise Refused("the digest or size of %s is none" % "/".join(parts))
    return Wanted(parts, source, sha256, size, bool(told.get("unpack")), bool(told.get("copy")), bool(told.get("run")))
