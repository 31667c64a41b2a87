"""What one hub process is told at its start. Plain and frozen; nothing here is secret except `database`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


@dataclass(frozen=True)
class HubSettings:
    state_dir: Path
    listen: str = "127.0.0.1:0"  # host:port; port 0 takes a free one
    advertise_url: str = ""  # what others are told; empty: made from `listen`
    database: str = field(default="", repr=False)  # SQLAlchemy URL; empty: SQLite in the state directory
    owner: str = ""  # of the tokens made at the first start; empty: the user that runs the hub
    tls: str = "auto"  # auto: own CA off loopback, none on it; own: always; given: the two files below; off
    tls_certificate: str = ""
    tls_key: str = ""
    behind_proxy: bool = False  # TLS ends in front of us: plaintext off loopback is then meant
    lease_ms: int = MINUTE
    poll_ms: int = 50_000
    heartbeat_ms: int = 10_000
    silent_manager_ms: int = 2 * MINUTE  # then its idle workers go by themselves
    busy_ms: int = 5_000  # how long a database that another process keeps locked is waited for
    retention_ms: int = 30 * DAY  # of ended jobs, their output, and events
    log_segment_bytes: int = 64 * 2**20
    max_body: int = 64 * 2**20  # submit of 10,000 jobs; other requests are bounded tighter
    body_seconds: float = 30.0  # a body that takes longer is refused
    max_requests: int = 512  # served at once, without long polls that wait; beyond it 429
    storages: tuple[str, ...] = ()  # prefixes of object storage below which the hub signs for jobs
    blob_keep_ms: int = DAY  # of blobs that no job needs
    blob_limit: int = 0  # bytes that blobs may take in all; 0: what the disk holds
    max_transfers: int = 32  # of blobs at once; who finds no place is asked to come back
    transfer_stall_s: float = 60.0  # a transfer of which nothing comes or goes for so long ends
    sts_url: str = ""  # where AWS is asked who a worker is; empty: the public address that the worker signed for
    log_level: str = "info"

    def __post_init__(self) -> None:
        object.__setattr__(self, "state_dir", Path(self.state_dir).absolute())
        object.__setattr__(self, "storages", tuple(self.storages))

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "state_dir": str(self.state_dir)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "HubSettings":
        """The inverse of `to_json`; settings of a newer version are ignored."""
        wire: Mapping[str, Any] = json.loads(text)
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in wire.items() if name in known})
