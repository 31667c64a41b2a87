"""One input's source, whatever it is: what lies there now, how it is called in a cache, and how its files come.

`find` looks: at the hub's answer, at the web server, at the folder. What it returns is one version; when another one
is met while it comes, that is `Moved`, and one looks again.
"""

import base64
import hashlib
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import unquote

from worker import files
from worker.cache.digests import Content
from worker.staging.errors import BrokeOff, Corrupt, Refused, Unsafe
from worker.staging.grants import Book
from worker.staging.http import Patience, Progress, Source, Wait, fetch, look
from worker.staging.lines import Lines, split
from worker.staging.site import Site
from worker.staging.stops import Stop
from worker.staging.wanted import Wanted

GRANTED = ("blob:", "job:", "s3://", "az://", "gs://")
WEB = ("http://", "https://")
FOLDER = "file:///"


class Item(NamedTuple):
    """One file of what was found, or a folder or link of a tree."""

    path: str  # safe only after it was looked over
    bring: Callable[[str, Progress], Content]  # into a new file at this path
    size: Optional[int] = None
    identity: str = ""  # of its content; "": nothing tells
    runs: bool = False
    link: str = ""
    is_folder: bool = False


class Found(NamedTuple):
    items: List[Item]
    is_tree: bool
    size: Optional[int]
    scope: str
    key: str  # "": it cannot be told from another version, so it is no cache's
    sha256: str  # of a single file, where it is known

    @property
    def one(self) -> Item:
        return self.items[0]


class Means(NamedTuple):
    """What is needed to look and to fetch, for one attempt."""

    lines: Lines
    book: Book
    stop: Stop
    wait: Wait
    patience: Patience
    input_paths: Sequence[str]
    owner: str


def needs_grant(source: str) -> bool:
    return source.startswith(GRANTED)


def find(wanted: Wanted, means: Means) -> Found:
    """Raises StagingError and Stopped. Looks once: patience with a source that cannot be reached is the caller's."""
    source = wanted.source
    if source.startswith(FOLDER):
        items = _in_folder(source, means)
    elif source.startswith(WEB):
        items = [_on_the_web(wanted, means)]
    elif needs_grant(source):
        items = _granted(wanted, means)
    else:
        raise Refused("%s is no source that this worker knows" % source.partition(":")[0][:20])
    is_tree = len(items) != 1 or items[0].path != ""
    if is_tree:
        _must_be_a_tree(wanted, items)
    return _described(wanted, items, is_tree, files.input_scope(source, means.owner))


# ---------------------------------------------------------------- the kinds


def _granted(wanted: Wanted, means: Means) -> List[Item]:
    """One with a digest may be in the cache: then nobody is asked for an address."""
    source = wanted.source

    def item(path: str, size: Optional[int], identity: str) -> Item:
        def bring(to: str, progress: Progress) -> Content:
            tried: List[Source] = []

            def renewed(refused: bool) -> Source:
                tried.append(means.book.newest(source, path, tried[-1] if refused else None))
                return tried[-1]

            return _fetch(renewed(False), to, progress, means, renewed)

        return Item(path, bring, size, identity)

    if wanted.sha256 and not means.book.knows(source):
        return [item("", wanted.size, wanted.sha256)]
    return [item(part.path, part.source.size, part.identity) for part in means.book.parts(source)]


def _on_the_web(wanted: Wanted, means: Means) -> Item:
    """One with a digest needs no look."""
    url, headers = _without_user(wanted.source)
    tag, size = "", wanted.size
    if not wanted.sha256:
        tag, there = look(url, means.lines, means.stop, headers)
        size = there if size is None else size

    def bring(to: str, progress: Progress) -> Content:
        return _fetch(Source(url, headers, size, tag), to, progress, means, None)

    return Item("", bring, size, tag and "tag " + tag)


def _without_user(url: str) -> Tuple[str, Dict[str, str]]:
    """The address, and what says who asks."""
    parts = split(url)
    if "@" not in parts.netloc:
        return url, {}
    words = "%s:%s" % (unquote(parts.username or ""), unquote(parts.password or ""))
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return shown, {"Authorization": "Basic " + base64.b64encode(words.encode()).decode()}


def _in_folder(source: str, means: Means) -> List[Item]:
    site = Site(source, means.input_paths, means.stop)
    pieces = site.pieces()
    return [
        Item(
            each.path,
            lambda to, progress, piece=each: site.bring(piece, to, progress),  # type: ignore[misc]
            each.size,
            "tag " + each.tag,
            each.runs,
            each.link,
            each.is_folder,
        )
        for each in pieces
    ]


def _fetch(
    source: Source, to: str, progress: Progress, means: Means, renewed: Optional[Callable[[bool], Source]]
) -> Content:
    return fetch(
        source,
        to,
        progress=progress,
        patience=means.patience,
        wait=means.wait,
        lines=means.lines,
        stop=means.stop,
        renewed=renewed,
    )


# ---------------------------------------------------------------- what was found


def _must_be_a_tree(wanted: Wanted, items: Sequence[Item]) -> None:
    if wanted.unpack:
        raise Refused("%s is a folder: there is nothing to unpack" % wanted.shown)
    if wanted.sha256:
        raise Refused("%s is a folder, and a digest is of a file" % wanted.shown)
    if len(items) > 1 and any(item.path == "" for item in items):
        raise Unsafe("%s is a file and a folder" % wanted.shown)


def _described(wanted: Wanted, items: List[Item], is_tree: bool, scope: str) -> Found:
    sizes = [item.size for item in items]
    size = sum(filter(None, sizes)) if None not in sizes else None
    if is_tree:
        return Found(items, True, size, scope, _tree_key(wanted.source, items), "")
    one = items[0]
    named = one.identity if len(one.identity) == 64 else ""
    if named and wanted.sha256 and named != wanted.sha256:
        raise Corrupt("%s has the digest %s, not %s" % (wanted.shown, named, wanted.sha256))
    if wanted.size is not None and one.size is not None and one.size != wanted.size:
        raise Corrupt("%s has %d bytes, not %d" % (wanted.shown, one.size, wanted.size))
    sha256 = wanted.sha256 or named
    size = wanted.size if one.size is None else one.size
    return Found(items, False, size, scope, _key(wanted, one, sha256), sha256)


def _key(wanted: Wanted, one: Item, sha256: str) -> str:
    kind = "unpacked" if wanted.unpack else "program" if one.runs else "file"
    if sha256 and kind != "program":
        return files.input_key(sha256, wanted.unpack)
    if sha256:
        return named(kind, sha256)
    return named(kind, wanted.source, one.identity) if one.identity else ""


def _tree_key(source: str, items: Sequence[Item]) -> str:
    if not all(item.identity for item in items):
        return ""
    words = [word for item in items for word in (item.path, item.identity, str(item.runs))]
    # Where every file is named by its content it is the same tree wherever it came from.
    known = all(len(item.identity) == 64 for item in items)
    return named("tree", "" if known else source, *words)


def named(*words: str) -> str:
    """A key of a cache for what these words tell from everything else."""
    digest = hashlib.sha256()
    for word in words:
        encoded = word.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)
    return "name-" + digest.hexdigest()


def patiently(means: Means, act: "Callable[[], _T]") -> "_T":
    failures = 0
    while True:
        try:
            return act()
        except BrokeOff as error:
            failures += 1
            if failures >= means.patience.tries:
                raise
            means.wait(means.patience.pause(failures, error.after_s), str(error))


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _T = TypeVar("_T")
