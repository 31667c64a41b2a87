"""What a job says of its inputs, looked over: where each goes, and whether they can stand beside each other."""

from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from worker.staging.errors import Refused, Unsafe
from worker.staging.grants import is_amount, is_digest
from worker.staging.unpack import parts_of

DEPTH = 64


class Wanted(NamedTuple):
    to: Tuple[str, ...]
    source: str
    sha256: str
    size: Optional[int]
    unpack: bool
    copy: bool

    @property
    def name(self) -> str:
        return "/".join(self.to)


def safe_parts(path: str) -> Tuple[str, ...]:
    """The names of a relative path of ours to be. Raises Unsafe; () for none at all."""
    try:
        return parts_of(path, DEPTH)
    except UnicodeEncodeError:
        raise Unsafe("%r is no path" % path[:200]) from None


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
    parts = safe_parts(to)
    if not parts:
        raise Refused("the input %s has no place to go to" % source)
    if source.startswith("blob:"):
        named = source[len("blob:") :]
        if not is_digest(named) or (sha256 and sha256 != named):
            raise Refused("%s is not named by its digest" % source)
        sha256 = named
    if (sha256 and not is_digest(sha256)) or not (size is None or is_amount(size)):
        raise Refused("the digest or size of %s is none" % "/".join(parts))
    return Wanted(parts, source, sha256, size, bool(told.get("unpack")), bool(told.get("copy")))
