"""Which paths an output's pattern means. Pure.

`*`, `?` and `[…]` stand for something within one name, `**` for any folders, none too. A pattern that fits a folder
means everything in it. No name is hidden: a leading dot is a letter like others.
"""

import fnmatch
import re
from typing import FrozenSet, List, Optional

from worker.staging.errors import Refused, Unsafe
from worker.staging.paths import parts_of

Where = FrozenSet[int]  # the words of the pattern that may come next; its end among them: it fits


class Pattern:
    def __init__(self, text: str) -> None:
        """Raises Refused."""
        try:
            parts = parts_of(text)
        except Unsafe:
            raise Refused("the pattern %r does not stay in the job's directory" % text[:200]) from None
        self.text = text
        self._words: List[Optional["re.Pattern[str]"]] = [
            None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts
        ]
        self._end = len(self._words)
        self.start = self._through(frozenset((0,)))  # "." means everything

    def after(self, where: Where, name: str) -> Where:
        """One name further; empty: nothing below can fit."""
        if self._end in where:
            return where  # in a folder that fits
        found = set()
        for at in where:
            word = self._words[at]
            if word is None:
                found.add(at)
            elif word.match(name):
                found.add(at + 1)
        return self._through(frozenset(found))

    def fits(self, where: Where) -> bool:
        return self._end in where

    def _through(self, where: Where) -> Where:
        """`**` may stand for nothing."""
        found = set(where)
        for at in sorted(where):
            while at < self._end and self._words[at] is None:
                at += 1
                found.add(at)
        return frozenset(found)
