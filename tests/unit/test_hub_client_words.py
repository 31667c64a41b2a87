"""What a person is told when TLS does not come about."""

import pytest

from worker_manager.hub_client import _plain_tls

UNTRUSTED = (
    "HTTPSConnectionPool(host='h', port=1): Max retries exceeded with url: /v1/jobs (Caused by SSLError("
    "SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local "
    "issuer certificate (_ssl.c:1006)')))"
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (UNTRUSTED, "is not trusted: unable to get local issuer certificate; give the file of its authority (--ca)"),
        ("Fingerprints did not match. Expected aa, got bb", "not the one with the given fingerprint"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "wrong version number"),
    ],
)
def test_the_cause_and_what_to_do(said: str, told: str) -> None:
    assert told in _plain_tls(said)
