"""A machine's metadata service: where its platform tells it about itself, on an address of its own and without TLS."""

from typing import Mapping, Optional, Tuple

from worker.link.connection import Unreachable

LINK_LOCAL = "http://169.254.169.254"
AWS_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # as AWS's own SDKs read it
PATIENCE_S = 5.0
LARGEST = 65_536


def aws_at(env: Mapping[str, str]) -> str:
    return (env.get(AWS_VARIABLE) or LINK_LOCAL).rstrip("/")


def ask(
    at: str, method: str, path: str, headers: Optional[Mapping[str, str]] = None, patience_s: float = PATIENCE_S
) -> Tuple[int, str]:
    """Status and text of one answer, whatever it is. Raises Unreachable. No proxy is asked, whatever the environment
    says: it would tell of its own machine."""
    from http.client import HTTPConnection, HTTPException

    host, port = host_and_port(at)
    connection = HTTPConnection(host, port, timeout=patience_s)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read(LARGEST).decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise Unreachable(str(error) or type(error).__name__) from None
    finally:
        connection.close()


def host_and_port(at: str) -> Tuple[str, int]:
    host, colon, port = at.partition("://")[2].partition("/")[0].rpartition(":")
    if not colon or not port.isdigit():
        return (host + colon + port).strip("[]"), 80
    return host.strip("[]"), int(port)
