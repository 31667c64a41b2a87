"""EC2, by version 2 of its metadata service.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html (two minutes before)
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html (earlier, or never)
"""

import json
from typing import Mapping, Optional

from worker import metadata
from worker.link.connection import Unreachable
from worker.notices import Notice
from worker.notices.times import utc_of_iso

TOKEN_S = 21_600
ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class Aws:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._at = metadata.aws_at(env)
        self._token = ""

    def look(self, now_ms: int) -> Optional[Notice]:
        action = self._told(ACTION)
        if action is not None:
            what = str(action.get("action") or "terminate")
            text = "EC2 will %s this spot instance at %s" % (what, action.get("time"))
            return Notice("spot-interruption", text, utc_of_iso(action.get("time")) or now_ms)
        if self._told(REBALANCE) is not None:
            return Notice("rebalance", "EC2 recommends to leave this spot instance: it may be interrupted soon", None)
        return None

    def _told(self, path: str) -> Optional[Mapping[str, object]]:
        """None where there is nothing: 404. An answer that cannot be read is a notice all the same."""
        status, text = self._get(path)
        if status == 401:  # the token is over, or of the machine that this one was copied from
            self._token = ""
            status, text = self._get(path)
        if status == 404:
            return None
        if status != 200:
            raise Unreachable("%s answers %d" % (path, status))
        try:
            told = json.loads(text)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    def _get(self, path: str) -> "tuple[int, str]":
        if not self._token:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
            status, text = metadata.ask(self._at, "PUT", "/latest/api/token", wanted)
            if status != 200:
                raise Unreachable("/latest/api/token answers %d" % status)
            self._token = text.strip()
        return metadata.ask(self._at, "GET", path, {"X-aws-ec2-metadata-token": self._token})
