"""How far a job is, as it says itself in what it writes: a line `@progress 40 training`, or one that its own pattern
finds. Where no such line comes this costs one look for a few bytes in what is read anyway.

    @progress 40 epoch 3        percent, also 40% and 40.5
    @progress 3/10 files        so many of so many; of an unknown number: 3/?

A carriage return ends a line as well: many programs draw their progress over itself. A pattern is a stranger's: it sees
short lines only, and one that takes too long on them is given up.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = tuple[int, "int | None", str]  # done, of how much (None: unknown), what people should read

CAN = "progress"  # of a worker that knows patterns
MARK = b"@progress "  # its first letter is rare: where there is none of it the look costs next to nothing
LINE_ENDS = b"\r\n"
LONGEST_LINE = 512
LONGEST_TEXT = 200
MOST_LINES = 64  # of what is read at once: the newest counts, the others are hardly worth a look
MOST_DIGITS, MOST_DECIMALS = 15, 3
PATTERN_MS = 50  # of processor time, for the lines that are read at once


def may_say(data: bytes) -> bool:
    """Whether this can hold a progress line, or begin one: all that most output ever costs."""
    return (b"@" in data and MARK in data) or (data[-1] not in LINE_ENDS and _begins(data))


def _begins(data: bytes) -> bool:
    last = data[-LONGEST_LINE:]
    return _is_begun(last[_end_of_lines(last) :])


def _is_begun(rest: bytes) -> bool:
    return MARK.startswith(rest) or rest.startswith(MARK)


def _end_of_lines(data: bytes) -> int:
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


class Scanner:
    """Of one attempt, from its first progress line on; with a `pattern` from its first byte, and only that counts."""

    __slots__ = ("_pattern", "_rest", "newest")

    def __init__(self, pattern: str = "") -> None:
        self._rest = b""  # the line that is not ended yet, when it may be one of ours
        self._pattern: Any = None
        self.newest: Row | None = None
        if pattern:
            import re  # dear, and only jobs with a pattern need it

            self._pattern = re.compile(pattern)

    def saw(self, data: bytes) -> bool:
        """Whether there is news in `newest`. Raises TooSlow: then it is of no more use."""
        data = self._rest + data
        end = _end_of_lines(data)
        rest = data[end : end + LONGEST_LINE + 1]
        keeps = len(rest) <= LONGEST_LINE and (self._pattern is not None or _is_begun(rest))
        self._rest = rest if keeps else b""
        if not end:
            return False
        found = self._marked(data, end) if self._pattern is None else self._matched(data[:end])
        if found is None or found == self.newest:
            return False
        self.newest = found
        return True

    def _marked(self, data: bytes, end: int) -> Row | None:
        at = end
        for _ in range(MOST_LINES):
            at = data.rfind(MARK, 0, at)
            if at < 0:
                return None
            if at == 0 or data[at - 1] in LINE_ENDS:
                line = data[at + len(MARK) : min(end, at + LONGEST_LINE)].splitlines()[0]
                found = read(line.decode("utf-8", "replace"))
                if found is not None:
                    return found
        return None

    def _matched(self, data: bytes) -> Row | None:
        lines = data[-MOST_LINES * LONGEST_LINE :].splitlines()[-MOST_LINES:]
        texts = [line[:LONGEST_LINE].decode("utf-8", "replace") for line in reversed(lines) if line]
        with _Limited():
            for text in texts:
                match = self._pattern.search(text)
                found = None if match is None else of_match(match)
                if found is not None:
                    return found
        return None


# ---------------------------------------------------------------- what lines say


def read(line: str) -> Row | None:
    """What stands behind the mark; None when it makes no sense."""
    word, _, text = line.strip().partition(" ")
    done, slash, whole = word.partition("/")
    return of_words(done, whole if slash else "100", text)


def of_match(match: Any) -> Row | None:
    """A pattern's groups: percent, or done and whole; else the first is percent, the first two are done and whole."""
    named = match.groupdict()
    text = named.pop("text", None) or ""
    if named.get("percent") is not None:
        return of_words(named["percent"], "100", text)
    if named.get("done") is not None:
        return of_words(named["done"], named.get("whole") or "?", text)
    groups = [] if named or text else [each for each in match.groups()[:2] if each is not None]
    return of_words(groups[0], groups[1] if len(groups) > 1 else "100", "") if groups else None


def of_words(done: str, whole: str, text: str) -> Row | None:
    """Both as whole numbers: 40.5 of 100 is 405 of 1000."""
    first = _number(done.rstrip("%"))
    second = None if whole == "?" else _number(whole)
    if first is None or (second is None and whole != "?"):
        return None
    decimals = max(first[1], 0 if second is None else second[1])
    scaled = first[0] * 10 ** (decimals - first[1])
    of = None if second is None else second[0] * 10 ** (decimals - second[1])
    if of is not None and (of == 0 or scaled > of):
        return None
    return scaled, of, plain(text)


def _number(word: str) -> tuple[int, int] | None:
    """Without its point, and how many decimals that were."""
    whole, point, part = word.strip().partition(".")
    part = part[:MOST_DECIMALS] if part.isdigit() else ("" if not part and not point else "x")
    digits = whole + part
    if not (whole and digits.isascii() and digits.isdigit() and len(whole) <= MOST_DIGITS):
        return None
    return int(digits), len(part)


def plain(text: str) -> str:
    """One short line for people."""
    return "".join(letter if letter.isprintable() else " " for letter in text.strip()[:LONGEST_TEXT]).strip()


# ---------------------------------------------------------------- patterns


class TooSlow(Exception):
    """The pattern took longer than it may."""


class _Limited:
    """Ends a search that takes too much processor time: the search looks for signals now and then."""

    runs = False  # a signal that comes late must raise nothing elsewhere

    def __enter__(self) -> None:
        import signal

        signal.signal(signal.SIGVTALRM, _is_over)
        _Limited.runs = True
        signal.setitimer(signal.ITIMER_VIRTUAL, PATTERN_MS / 1000)

    def __exit__(self, *_: object) -> None:
        import signal

        _Limited.runs = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _is_over(*_: object) -> None:
    if _Limited.runs:
        raise TooSlow


def is_sensible(pattern: Any) -> bool:
    """As an assignment says it: one that the interpreter here knows, too."""
    import re

    if not isinstance(pattern, str) or not 0 < len(pattern) <= LONGEST_LINE:
        return False
    try:
        return re.compile(pattern).groups > 0
    except (re.error, OverflowError, RecursionError):
        return False
