"""A hub that sends workers to a web server of the test's, for the files of jobs."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.agent.conftest import FakeHub
from tests.integration.agent.web import Web


class FilesHub(FakeHub):
    """Sends workers to the web server, for what jobs keep."""

    def __init__(self, web: Web) -> None:
        super().__init__()
        self.web = web
        self.asked: list[Any] = []
        self.credentials: set[str] = set()

    def _grants(self, body: dict[str, Any], token: str) -> tuple[int, Any]:
        self.asked.append(body)
        self.credentials.add(token)
        puts = [
            {"url": self.web.url("/kept/" + one["path"]), "method": "PUT", "headers": {}, "at": "s3://b/" + one["path"]}
            for one in body.get("put") or ()
        ]
        gets = [{"files": [{"path": "", "url": self.web.url("/private")}]} for _ in body.get("get") or ()]
        return 200, {"get": gets, "put": puts, "until_ms": 2**62}

    def with_files(self, name: str, script: str, *inputs: str, outputs: bool = False, **more: Any) -> dict[str, Any]:
        """Each input stands under the last part of its address."""
        work: dict[str, Any] = more.pop("work", {})
        if inputs:
            work["inputs"] = [{"to": url.rsplit("/", 1)[-1], "source": url} for url in inputs]
        if outputs:
            work["outputs"] = [{"glob": "out/*", "to": "s3://b/"}]
        return self.job(name, "sh", "-c", script, work=work, **more)


@pytest.fixture
def fake_hub(web: Web) -> Iterator[FilesHub]:
    """In place of the one that knows nothing of files: import it."""
    hub = FilesHub(web)
    hub.up()
    yield hub
    hub.down()
