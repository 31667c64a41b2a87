"""What the API server said no with → the kind of refusal, or that nobody can know. One table, pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/ and the reasons of
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from backends.base import RefusalKind, Refused, Unknown
from backends.kubernetes.api import Answer

# Status → kind. A server that answers one of these has looked at the request and not carried it out.
KINDS = {
    400: RefusalKind.CONFIG,
    401: RefusalKind.AUTH,
    404: RefusalKind.CONFIG,  # no such namespace
    405: RefusalKind.CONFIG,
    406: RefusalKind.CONFIG,
    409: RefusalKind.CONFIG,  # the name is taken
    413: RefusalKind.CONFIG,
    415: RefusalKind.CONFIG,
    422: RefusalKind.CONFIG,
    429: RefusalKind.THROTTLED,
}

# 403 has many meanings, told apart by the words of the admission that said it.
_FORBIDDEN = (
    ("exceeded quota", RefusalKind.QUOTA),
    ("failed quota", RefusalKind.CONFIG),  # a quota demands a request that the pod does not name
    (" cannot ", RefusalKind.AUTH),  # User "x" cannot create resource "jobs" …
)


def refused(answer: Answer) -> Refused | Unknown:
    """Of an answer that is not good. A 5xx may come from a server that has written, and lost touch with its store."""
    text = answer.words()
    if answer.status == 403:
        return Refused(_forbidden(text), text)
    if answer.status == 409 and "object has been modified" in text:  # two met at one quota: later
        return Refused(RefusalKind.THROTTLED, text)
    kind = KINDS.get(answer.status)
    if kind is None:
        return Unknown(f"HTTP {answer.status}: {text}")
    return Refused(kind, text, answer.retry_after_s() if kind is RefusalKind.THROTTLED else None)


def _forbidden(text: str) -> RefusalKind:
    return next((kind for words, kind in _FORBIDDEN if words in text), RefusalKind.CONFIG)


def kind_of_event(text: str) -> RefusalKind:
    """Why a pod was not made (event FailedCreate): the words are those of the 403 that the Job controller got."""
    return RefusalKind.QUOTA if "exceeded quota" in text else RefusalKind.CONFIG
