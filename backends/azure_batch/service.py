"""The calls to Azure Batch, each once, each bounded in time; whatever goes wrong is a Trouble.

The SDK's own retries are off: a create whose answer was lost must not be sent again by somebody who does not know.
Answers are read as the service's JSON, because the SDK takes an answer without a list for an empty list.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from backends.azure_batch import errors, recipe, seen
from backends.azure_batch.errors import Trouble
from backends.azure_batch.settings import Settings

PAGE = 1000  # tasks, says the service
_SERVICE_PATIENCE_S = 30  # the service's own limit for one request
_TOKEN_PATIENCE_S = 10  # for `az`


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Raises Trouble when it has passed."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Trouble("the time for this call is over")
        return left


class Service:
    """`credential` is a TokenCredential, or nothing: then it is the account's key, or whatever azure-identity finds."""

    def __init__(self, settings: Settings, credential: Any = None) -> None:
        self._settings = settings
        self._job = settings.job
        self._client = _client(settings, credential)

    # ------------------------------------------------ tasks

    def add(self, tasks: Sequence[Mapping[str, Any]], deadline: Deadline) -> list[Mapping[str, Any]]:
        """The service's word on each, in its own order."""
        with _said() as heard:
            self._client.create_task_collection(self._job, {"value": list(tasks)}, **_bounds(deadline, heard.take))
        return _items(heard.answer)

    def tasks(self, filter: str, columns: Sequence[str], deadline: Deadline) -> Iterator[list[Mapping[str, Any]]]:
        """Page by page. Raises Trouble between two of them."""
        with _said() as heard:
            pages = self._client.list_tasks(
                self._job, filter=filter, select=list(columns), max_results=PAGE, **_bounds(deadline, heard.take)
            ).by_page()
        while True:
            with _said(heard):
                deadline.left()
                if next(pages, None) is None:
                    return
            yield _items(heard.answer)

    def task(self, id: str, columns: Sequence[str], deadline: Deadline) -> Mapping[str, Any]:
        with _said() as heard:
            self._client.get_task(self._job, id, select=list(columns), **_bounds(deadline, heard.take))
        return _thing(heard.answer)

    def terminate(self, id: str, deadline: Deadline) -> None:
        with _said():
            self._client.terminate_task(self._job, id, **_bounds(deadline))

    def delete(self, id: str, deadline: Deadline) -> None:
        with _said():
            self._client.delete_task(self._job, id, **_bounds(deadline))

    def end_of_output(self, id: str, most: int, deadline: Deadline) -> bytes:
        """The last bytes of what a task wrote, from its node."""
        size = self._size_of_output(id, deadline)
        if not size:
            return b""
        with _said():
            part = f"bytes={max(0, size - most)}-{size - 1}"
            pieces = self._client.download_task_file(self._job, id, recipe.OUTPUT, ocp_range=part, **_bounds(deadline))
            return b"".join(_within(pieces, most, deadline))[-most:]

    def _size_of_output(self, id: str, deadline: Deadline) -> int:
        """By a listing: a HEAD has no body, so it could not say what is wrong."""
        filter = f"startswith(name,'{recipe.OUTPUT}')"
        with _said() as heard:
            files = self._client.list_task_files(self._job, id, filter=filter, **_bounds(deadline, heard.take))
            next(files.by_page(), None)
        sizes = [one.get("properties", {}).get("contentLength") for one in _items(heard.answer)]
        return int(sizes[0]) if sizes and sizes[0] else 0

    # ------------------------------------------------ job, pool, nodes

    def job(self, deadline: Deadline) -> Mapping[str, Any]:
        with _said() as heard:
            self._client.get_job(self._job, **_bounds(deadline, heard.take))
        return _thing(heard.answer)

    def pool(self, id: str, deadline: Deadline) -> Mapping[str, Any]:
        with _said() as heard:
            self._client.get_pool(id, **_bounds(deadline, heard.take))
        return _thing(heard.answer)

    def node_counts(self, pool: str, deadline: Deadline) -> dict[str, int]:
        with _said() as heard:
            found = self._client.list_pool_node_counts(
                filter=f"poolId eq '{quoted(pool)}'", **_bounds(deadline, heard.take)
            )
            next(found.by_page(), None)
        return seen.counted(_items(heard.answer), pool)

    def bad_nodes(self, pool: str, deadline: Deadline) -> list[Mapping[str, Any]]:
        """The first of them: enough to say what is wrong."""
        filter = " or ".join(f"state eq '{state}'" for state in seen.BROKEN)
        columns = ["id", "state", "errors", "startTaskInfo"]
        with _said() as heard:
            bounds = _bounds(deadline, heard.take)
            next(
                self._client.list_nodes(pool, filter=filter, select=columns, max_results=100, **bounds).by_page(), None
            )
        return _items(heard.answer)

    def make_job(self, body: Mapping[str, Any], deadline: Deadline) -> None:
        """There already is as good."""
        self._make("JobExists", lambda: self._client.create_job(dict(body), **_bounds(deadline)))

    def make_pool(self, body: Mapping[str, Any], deadline: Deadline) -> None:
        self._make("PoolExists", lambda: self._client.create_pool(dict(body), **_bounds(deadline)))

    @staticmethod
    def _make(there_already: str, make: Callable[[], None]) -> None:
        try:
            with _said():
                make()
        except Trouble as trouble:
            if trouble.code != there_already:
                raise


# ---------------------------------------------------------------- the SDK


def _client(settings: Settings, credential: Any) -> Any:
    from azure.batch import BatchClient
    from azure.core.credentials import AzureNamedKeyCredential

    # It warns, with a traceback, of every error whose body is no JSON. We report the error itself.
    logging.getLogger("azure.batch").setLevel(logging.ERROR)
    if settings.key:
        credential = AzureNamedKeyCredential(settings.account, settings.key)
    more: dict[str, Any] = {"connection_verify": settings.ca_file} if settings.ca_file else {}
    return BatchClient(
        settings.service_url,
        credential or of_this_machine(settings),
        retry_total=0,
        redirect_policy=_same_place(settings.service_url),
        **more,
    )


def of_this_machine(settings: Settings) -> Any:
    """The environment, a workload identity, a managed identity, the `az` of whoever runs this; no editors' tools."""
    from azure.identity import DefaultAzureCredential

    logging.getLogger("azure.identity").setLevel(logging.ERROR)  # its warning is the text of the error that follows
    return DefaultAzureCredential(
        managed_identity_client_id=settings.client_id or None,
        retry_total=0,
        process_timeout=_TOKEN_PATIENCE_S,
        exclude_shared_token_cache_credential=True,
        exclude_visual_studio_code_credential=True,
        exclude_powershell_credential=True,
        exclude_developer_cli_credential=True,
        exclude_broker_credential=True,
    )


def _same_place(url: str) -> Any:
    """No request of ours goes anywhere else, whatever a link to the next page says: it carries what proves us."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    home = urlsplit(url)[:2]

    class SamePlace(SansIOHTTPPolicy):  # type: ignore[type-arg]
        def on_request(self, request: Any) -> None:
            if urlsplit(request.http_request.url)[:2] != home:
                raise Trouble(f"Azure Batch sends us to {request.http_request.url}, which is somewhere else")

    return SamePlace()


def _bounds(deadline: Deadline, hook: Callable[[Any], None] | None = None) -> dict[str, Any]:
    left = deadline.left()
    bounds: dict[str, Any] = {"connection_timeout": left, "read_timeout": left}
    bounds["service_timeout"] = max(1, min(_SERVICE_PATIENCE_S, int(left)))
    return bounds | ({"raw_response_hook": hook} if hook else {})


def quoted(text: str) -> str:
    """For a text in a filter."""
    return text.replace("'", "''")


class _Heard:
    """The body of the last answer."""

    answer: Any = None

    def take(self, response: Any) -> None:
        try:
            self.answer = response.http_response.json()
        except ValueError:
            self.answer = None


@contextmanager
def _said(heard: _Heard | None = None) -> Iterator[_Heard]:
    """The SDK's exceptions → Trouble."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield heard or _Heard()
    except ClientAuthenticationError as denied:
        raise _of_answer(denied) if denied.response is not None else _without_token(str(denied)) from denied
    except HttpResponseError as failed:
        raise _of_answer(failed) from failed
    except (AzureError, OSError) as failed:
        raise Trouble(f"Azure Batch gave no answer: {failed}") from failed
    except (ValueError, TypeError, KeyError, AttributeError) as nonsense:
        raise Trouble(f"Azure Batch gave an answer that is none: {nonsense}") from nonsense


def _without_token(said: str) -> Trouble:
    """azure-identity says on a page what it tried: here it is a line, without the addresses of manuals."""
    lines = [line.strip() for line in said.splitlines()]
    words = [line for line in lines if line and not line.startswith(("Visit ", "To mitigate ", "Attempted "))]
    return Trouble(f"Entra ID gave us no token: {'; '.join(words)}", before=True)


def _of_answer(failed: Any) -> Trouble:
    response = failed.response
    if response is None or response.status_code < 400:
        return Trouble(f"Azure Batch gave an answer that is none: {failed}")
    try:
        body = response.text()
    except Exception:  # it was cut in the middle, or is in no known encoding: the status says enough
        body = ""
    return errors.from_answer(response.status_code, body, dict(response.headers), time.time())


def _items(answer: Any) -> list[Mapping[str, Any]]:
    items = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Trouble("Azure Batch gave an answer that is no list")
    return items


def _thing(answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        raise Trouble("Azure Batch gave an answer that is none")
    return answer


def _within(pieces: Iterator[bytes], most: int, deadline: Deadline) -> Iterator[bytes]:
    got = 0
    for piece in pieces:
        yield piece
        got += len(piece)
        deadline.left()
        if got > most:
            return
