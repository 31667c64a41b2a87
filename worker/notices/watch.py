"""Asks a platform for notices, in a thread: its metadata service may hang, and the agent's loop never may."""

import os
import threading
import time
from typing import Dict, List, Mapping, Optional, Protocol, Union

from worker.link.connection import Unreachable
from worker.notices import Notice

EVERY_S = 5.0
DMI = "/sys/class/dmi/id"
# Who made the machine, as its firmware says. https://learn.microsoft.com/azure/virtual-machines/linux/metadata
SIGNS = (
    ("aws", "sys_vendor", "Amazon EC2"),
    ("azure", "chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
    ("gcp", "product_name", "Google Compute Engine"),
)


class Source(Protocol):
    def look(self, now_ms: int) -> Optional[Notice]: ...


def platform_of(env: Mapping[str, str], dmi: str = DMI) -> str:
    """What the firmware says, which costs three small files; "" where it is none of them."""
    for platform, name, sign in SIGNS:
        if _line(os.path.join(dmi, name)) == sign:
            disabled = platform == "aws" and env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
            return "" if disabled else platform
    return ""


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(200).strip()
    except OSError:
        return ""


def source_of(platform: str, env: Mapping[str, str]) -> Source:
    if platform == "aws":
        from worker.notices.aws import Aws

        return Aws(env)
    if platform == "azure":
        from worker.notices.azure import Azure

        return Azure(env)
    from worker.notices.gcp import Gcp

    return Gcp(env)


def is_news(notice: Notice, told: Mapping[str, Optional[int]]) -> bool:
    """A reason that was not told before, or an end that has come nearer. One that is put off is left as it is."""
    if notice.reason not in told:
        return True
    before = told[notice.reason]
    return notice.ends_ms is not None and (before is None or notice.ends_ms < before)


class Watch:
    """`fileno` is readable when `taken` has something: each notice once, and once each time that nobody answers."""

    def __init__(self, source: Source, every_s: float = EVERY_S) -> None:
        self._source = source
        self._every_s = every_s
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._news: List[Union[Notice, Unreachable]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._out

    def taken(self) -> "List[Union[Notice, Unreachable]]":
        try:
            os.read(self._out, 4096)
        except BlockingIOError:
            return []
        with self._lock:
            news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Does not wait for a question that is under way."""
        self._over.set()

    def _run(self) -> None:
        told: Dict[str, Optional[int]] = {}  # reason → the end that was told last
        answered = True
        while not self._over.is_set():
            try:
                notice = self._source.look(time.time_ns() // 1_000_000)
                answered = True
                if notice is not None and is_news(notice, told):
                    told[notice.reason] = notice.ends_ms
                    self._tell(notice)
            except Unreachable as error:
                if answered:
                    self._tell(error)
                answered = False
            self._over.wait(self._every_s)

    def _tell(self, news: Union[Notice, Unreachable]) -> None:
        with self._lock:
            self._news.append(news)
        os.write(self._in, b"n")
