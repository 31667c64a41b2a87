"""The blob container to which a node copies a worker's output when it has ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from backends.azure_batch.errors import Trouble
from backends.azure_batch.service import Deadline, of_this_machine
from backends.azure_batch.settings import Settings


class LogContainer:
    """With a SAS, or as who we are (azure-identity): the pool's own identity writes, ours only reads."""

    def __init__(self, settings: Settings, credential: Any = None) -> None:
        self._settings = settings
        self._credential = credential
        self._client: Any = None

    def end_of(self, name: str, most: int, deadline: Deadline) -> bytes:
        """The last bytes of a blob; nothing where there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        with _said():
            blob = self._container().get_blob_client(name)
            try:
                size = blob.get_blob_properties(**_bounds(deadline)).size
                start = max(0, size - most)
                return bytes(blob.download_blob(start, size - start, **_bounds(deadline)).readall()) if size else b""
            except ResourceNotFoundError:
                return b""

    def look(self, deadline: Deadline) -> None:
        """Whether we may read there. Raises Trouble."""
        with _said():
            next(self._container().list_blob_names(results_per_page=1, **_bounds(deadline)).by_page(), None)

    def _container(self) -> Any:
        if self._client is None:
            from azure.storage.blob import ContainerClient

            settings = self._settings
            more: dict[str, Any] = {"connection_verify": settings.ca_file} if settings.ca_file else {}
            self._client = ContainerClient.from_container_url(
                settings.log_container, self._who(), retry_total=0, **more
            )
        return self._client

    def _who(self) -> Any:
        """Nobody, where a SAS opens it: the account's key of Batch is not one of storage."""
        return None if self._settings.log_sas else self._credential or of_this_machine(self._settings)


def _bounds(deadline: Deadline) -> dict[str, Any]:
    left = deadline.left()
    return {"connection_timeout": left, "read_timeout": left}


@contextmanager
def _said() -> Iterator[None]:
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
    except HttpResponseError as failed:
        raise Trouble(f"the log container: {_short(failed)}", failed.status_code) from failed
    except (AzureError, OSError, ValueError) as failed:
        raise Trouble(f"the log container gave no answer: {failed}") from failed


def _short(failed: Any) -> str:
    """Without the address, which may carry the SAS."""
    code = getattr(failed, "error_code", None) or failed.reason or "an error"
    code = getattr(code, "value", code)
    place = urlsplit(failed.response.request.url).hostname if failed.response is not None else "no answer"
    return f"{code} ({failed.status_code}) from {place}"
