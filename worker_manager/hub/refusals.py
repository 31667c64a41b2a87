"""Everything that the hub refuses for a reason of its own, as an exception with a stable code and an HTTP status.

Refusal
├── NotFound             404 not-found
├── Invalid              422 invalid             what was asked makes no sense: where and why
├── Unauthorized         401 token-unknown, token-revoked, token-expired
├── Forbidden            403 forbidden
├── Conflict             409 second-registrant, session-superseded, worker-busy, …
│   ├── CoverageTaken        coverage-taken      another manager launches for these jobs: observe and plan again
│   └── IdempotencyMismatch  idempotency-mismatch
├── Gone                 410 worker-gone         fence yourself and exit
├── Overloaded           429 overloaded, too-many-groups
└── NotYet               503 identity-not-known  ask again in a moment: nobody has said yet whose worker this is

A store that cannot be written is a StoreError (503): nothing was acknowledged.
"""

from collections.abc import Sequence

from worker_manager.errors import WorkerManagerError


class Refusal(WorkerManagerError):
    status = 400
    code = "refused"

    def __init__(self, detail: str, *, code: str | None = None, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = tuple(errors)  # (where, what)


class NotFound(Refusal):
    status = 404
    code = "not-found"


class Invalid(Refusal):
    status = 422
    code = "invalid"


class Unauthorized(Refusal):
    status = 401
    code = "token-unknown"


class Forbidden(Refusal):
    status = 403
    code = "forbidden"


class Conflict(Refusal):
    status = 409
    code = "conflict"


class CoverageTaken(Conflict):
    code = "coverage-taken"


class IdempotencyMismatch(Conflict):
    code = "idempotency-mismatch"


class Gone(Refusal):
    status = 410
    code = "worker-gone"


class Overloaded(Refusal):
    status = 429
    code = "overloaded"


class NotYet(Refusal):
    status = 503
    code = "identity-not-known"
