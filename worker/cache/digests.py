"""What a file or a tree is, as 64 hex digits: its content and what can be executed, no times and no owners.

A tree's digest is that of the list of its parts, sorted by path: kind, path, and the content's digest or the link's
target. Links must stay within the tree.
"""

import hashlib
import os
import stat
from typing import Callable, Iterator, Mapping, NamedTuple, Optional, Tuple

from worker.cache.errors import WrongContent

PIECE = 2**20


class Content(NamedTuple):
    digest: str
    size: int


def of_file(path: str, go_on: Callable[[], bool] = lambda: True) -> Content:
    digest = hashlib.sha256()
    size = 0
    with open(path, "rb", buffering=0) as file:
        while go_on():
            piece = file.read(PIECE)
            if not piece:
                return Content(digest.hexdigest(), size)
            digest.update(piece)
            size += len(piece)
    raise WrongContent("it was not read to its end")


def of_tree(
    path: str, go_on: Callable[[], bool] = lambda: True, known: Optional[Mapping[str, Content]] = None
) -> Content:
    """`known`: of files whose bytes were digested on their way; they are not read again."""
    digest = hashlib.sha256()
    size = 0
    for kind, name, word, length in sorted(_parts(path, "", go_on, known or {}), key=lambda part: part[1]):
        for text in (kind, name, word):
            encoded = os.fsencode(text)
            digest.update(b"%d:" % len(encoded) + encoded)
        size += length
    return Content(digest.hexdigest(), size)


def of(path: str, go_on: Callable[[], bool] = lambda: True) -> Content:
    return of_tree(path, go_on) if stat.S_ISDIR(os.lstat(path).st_mode) else of_file(path, go_on)


def _parts(
    root: str, below: str, go_on: Callable[[], bool], known: Mapping[str, Content]
) -> Iterator[Tuple[str, str, str, int]]:
    """(kind, path, word, bytes)."""
    with os.scandir(os.path.join(root, below)) as found:
        for each in found:
            name = os.path.join(below, each.name)
            if each.is_symlink():
                target = os.readlink(each.path)
                _within(name, target)
                yield "link", name, target, 0
            elif each.is_dir():
                yield "folder", name, "", 0
                yield from _parts(root, name, go_on, known)
            elif each.is_file():
                content = known.get(name) or of_file(each.path, go_on)
                runs = each.stat().st_mode & 0o111
                yield "program" if runs else "file", name, content.digest, content.size
            else:
                raise WrongContent("%s is neither file, folder nor link" % name)


def _within(name: str, target: str) -> None:
    end = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if os.path.isabs(target) or end == ".." or end.startswith("../"):
        raise WrongContent("the link %s leads out of the tree" % name)
