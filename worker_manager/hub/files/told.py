"""The files of a result, as a worker tells of them: looked over by hand, one mistake for each."""

import re
from typing import Any

from worker import files
from worker.protocol import LARGEST
from worker_manager.hub.files.names import MOST_SOURCE, STORAGES, is_safe_path
from worker_manager.hub.wirecheck import Fields

_DIGEST = re.compile(r"[0-9a-f]{64}")
_AT = re.compile(rf"blob:[0-9a-f]{{64}}|(?:{'|'.join(STORAGES)})://[^\x00-\x1f\x7f]+")


def check_files(fields: Fields, told: list[Any]) -> None:
    fields.refuse_if("files", len(told) > files.MOST_KEPT, f"an attempt keeps at most {files.MOST_KEPT} files")
    for place, one in enumerate(told[: files.MOST_KEPT]):
        what = _mistake(one)
        fields.refuse_if(f"files[{place}]", bool(what), what)


def _mistake(one: Any) -> str:
    if not isinstance(one, dict):
        return "write an object"
    if not is_safe_path(one.get("path")):
        return f"path is none within a directory, or longer than {files.MOST_PATH} bytes"
    size = one.get("size")
    if type(size) is not int or not 0 <= size <= LARGEST:
        return "size is no number of bytes"
    digest, at = one.get("sha256"), one.get("at")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return "sha256 is not 64 hex digits"
    if not isinstance(at, str) or len(at) > MOST_SOURCE or not _AT.fullmatch(at):
        return "at is neither blob:SHA256 nor an object's address"
    return ""
