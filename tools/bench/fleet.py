"""Workers that only speak: registered over HTTP, without an agent, to load a hub."""

import asyncio
import contextlib
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tools.house import House


@dataclass(frozen=True)
class Talker:
    id: str
    session: int
    credential: str


def register(house: House, count: int, shape: dict[str, Any], pool: str = "by-hand") -> list[Talker]:
    token = house.client.post("/v1/tokens", {"owner": "bench", "scopes": ["worker"]})["token"]
    return asyncio.run(_register(house.client.url, token, count, shape, pool))


async def _register(url: str, token: str, count: int, shape: dict[str, Any], pool: str) -> list[Talker]:
    talkers: list[Talker] = []

    async def some(numbers: range) -> None:
        line = await Line.open(url)
        for number in numbers:
            credential = secrets.token_urlsafe(24)
            body = {
                "protocol": 1,
                "worker": f"bench-{number}",
                "nonce": secrets.token_hex(8),
                "credential_sha256": hashlib.sha256(credential.encode()).hexdigest(),
                "pool": pool,
                "shape": shape,
                "host": {"hostname": "bench"},
                "idle_exit_ms": None,
                "max_runs": None,
                "config": "",
            }
            status, reply = await line.post("/v1/workers", token, body)
            if status not in (200, 201):
                raise RuntimeError(f"registration answered {status}: {reply}")
            talkers.append(Talker(reply["worker"], reply["session"], credential))
        line.close()

    await asyncio.gather(*(some(range(start, count, 32)) for start in range(min(32, count))))
    return talkers


class Line:
    """One kept connection, just enough HTTP to load a server cheaply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> "Line":
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def post(self, path: str, token: str, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        await self.send(path, token, body)
        return await self.answer()

    async def send(self, path: str, token: str, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, object]]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        length = next(int(v) for k, _, v in (line.partition(":") for line in lines) if k.lower() == "content-length")
        content = await self._reader.readexactly(length)
        return int(lines[0].split()[1]), json.loads(content) if content else {}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()
