"""What the backends on AWS share: who we are there, clients that keep a deadline, and what an error of theirs means.

boto3 is imported when an Account is made, never before. One that is not installed passes as ModuleNotFoundError, which
the registry turns into the line that installs it.

    account = Account(options, context.call_timeout_s)
    try:
        account.once("batch").submit_job(…)
    except account.errors as failed:
        return refused_or_unknown(failed)
"""

import logging
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Any

from backends.base import (
    BackendUnusable,
    Finding,
    Option,
    RefusalKind,
    Refused,
    Severity,
    Unknown,
    clipped,
)

COMMON_OPTIONS = (
    Option("region", default="us-east-1", help="the AWS region"),
    Option("profile", default="", help="a profile of ~/.aws/config; without one the SDK looks for credentials itself"),
    Option("role-arn", default="", help="a role to assume for every call"),
    Option("endpoint-url", default="", help="another address for every service, for a private endpoint or a stand-in"),
)

READ_ATTEMPTS = 2  # they share the deadline of one call

# Codes of botocore's ClientError. Whatever is here was decided before anything was done, whichever status it came with
# (EC2 says "no capacity" with a 500).
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
# https://docs.aws.amazon.com/awssupport/latest/APIReference/CommonErrors.html
_CODES: Mapping[RefusalKind, frozenset[str]] = {
    RefusalKind.THROTTLED: frozenset(
        {
            *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled"),
            *("RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded"),
            *("ProvisionedThroughputExceededException", "BandwidthLimitExceeded", "PriorRequestNotComplete"),
            *("EC2ThrottledException", "SlowDown"),
        }
    ),
    RefusalKind.AUTH: frozenset(
        {
            *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "AuthFailure"),
            *("AuthorizationError", "NotAuthorized", "ExpiredToken", "ExpiredTokenException", "RequestExpired"),
            *("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "IncompleteSignature"),
            *("InvalidSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
            *("InvalidAccessKeyId", "OptInRequired", "Blocked", "PendingVerification"),
        }
    ),
    RefusalKind.QUOTA: frozenset(
        {
            *("LimitExceeded", "LimitExceededException", "ServiceQuotaExceededException", "InstanceLimitExceeded"),
            *("VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "VolumeLimitExceeded", "AddressLimitExceeded"),
            *("ResourceLimitExceeded", "MaxIOPSLimitExceeded", "SpotInstanceCountExceeded"),
        }
    ),
    RefusalKind.CAPACITY: frozenset(
        {
            *("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity"),
            *("InsufficientCapacity", "InsufficientCapacityOnOutpost", "ReservationCapacityExceeded"),
            *("InsufficientFreeAddressesInSubnet", "UnfulfillableCapacity", "SpotMaxPriceTooLow"),
        }
    ),
}
_KINDS = {code: kind for kind, codes in _CODES.items() for code in codes}
_KINDS_BY_STATUS = {401: RefusalKind.AUTH, 403: RefusalKind.AUTH, 407: RefusalKind.AUTH, 429: RefusalKind.THROTTLED}
_UNDECIDED = frozenset({408, 425, 499})  # 4xx that say nothing of what was done

# botocore's own exceptions, by name because it is imported late.
_NO_CREDENTIALS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "NoAuthTokenError"),
        *("TokenRetrievalError", "SSOError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "LoginError"),
        *("UnknownCredentialError", "RefreshWithMFAUnsupportedError", "InvalidConfigError", "ConfigNotFound"),
    }
)
_NEVER_SENT = frozenset(
    {
        *("ParamValidationError", "ValidationError", "UnknownServiceError", "UnknownParameterError", "NoRegionError"),
        *("InvalidRegionError", "EndpointResolutionError", "EndpointProviderError", "InvalidHostLabelError"),
    }
)


class Garbled(Exception):
    """An answer that the SDK fell over: not what the service says, but what something in between made of it."""


class Account:
    """One session, and its clients by service. May be used by several threads."""

    def __init__(self, options: Mapping[str, Any], call_timeout_s: float) -> None:
        """Makes no call. Raises BackendUnusable for a profile or region that cannot be."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        logging.getLogger("botocore.credentials").setLevel(
            logging.WARNING
        )  # it says at every start where it found them
        self.region: str = options["region"]
        self.errors: tuple[type[Exception], ...] = (BotoCoreError, ClientError, ResponseParserError, Garbled)
        self._role: str = options["role-arn"]
        self._endpoint: str | None = options["endpoint-url"] or None
        self._timeout = call_timeout_s
        self._clients: dict[tuple[str, int], Any] = {}
        self._lock = Lock()
        try:
            self._session = boto3.Session(profile_name=options["profile"] or None, region_name=self.region)
        except BotoCoreError as failed:
            raise BackendUnusable(f"profile: {failed}") from failed
        self._assumed = not self._role

    def errors_and(self, *more: type[Exception]) -> tuple[type[Exception], ...]:
        """For an `except` that is to catch other things as well."""
        return (*self.errors, *more)

    def once(self, service: str) -> Any:
        """A client for what must not be done twice: one attempt, with the whole deadline."""
        return self._client(service, 1)

    def reading(self, service: str) -> Any:
        """A client for what may be asked again: its attempts together keep the deadline (about)."""
        return self._client(service, READ_ATTEMPTS)

    def _client(self, service: str, attempts: int) -> Any:
        with self._lock:  # making clients is not safe in threads, using them is
            if (service, attempts) not in self._clients:
                self._assume_role()
                made = self._session.client(service, endpoint_url=self._endpoint, config=self._config(attempts))
                self._clients[service, attempts] = _Client(made, self.errors)
            return self._clients[service, attempts]

    def _config(self, attempts: int) -> Any:
        from botocore.config import Config

        each = self._timeout / attempts
        return Config(
            connect_timeout=min(10.0, each),
            read_timeout=each,
            retries={"mode": "standard", "total_max_attempts": attempts},
            tcp_keepalive=True,
            user_agent_extra="worker-manager",
        )

    def _assume_role(self) -> None:
        """From here on every client acts as that role; its credentials are renewed by the SDK before they expire."""
        if self._assumed:
            return
        import boto3
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
        from botocore.exceptions import NoCredentialsError
        from botocore.session import Session

        own = self._session.get_credentials()
        if own is None:
            raise NoCredentialsError()
        to_sts = partial(
            self._session._session.create_client,
            region_name=self.region,
            endpoint_url=self._endpoint,
            config=self._config(READ_ATTEMPTS),
        )
        fetcher = AssumeRoleCredentialFetcher(to_sts, own, self._role, {"RoleSessionName": "worker-manager"})
        core = Session()
        core._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
        self._session = boto3.Session(botocore_session=core, region_name=self.region)
        self._assumed = True


class _Client:
    """A client of the SDK whose calls raise nothing but an Account's errors. The SDK's parsers of JSON take whatever
    is valid JSON for an answer, and fall over it with an AttributeError, a TypeError, a RecursionError, …"""

    def __init__(self, client: Any, errors: tuple[type[Exception], ...]) -> None:
        self._client = client
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in self._client.meta.method_to_api_mapping:
            return found

        def call(**arguments: Any) -> Any:
            try:
                return found(**arguments)
            except self._errors:
                raise
            except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as failed:
                raise Garbled(f"the answer to {name} makes no sense: {failed}") from failed

        return call


def refused_or_unknown(failed: Exception, more: Mapping[str, RefusalKind] | None = None) -> Refused | Unknown:
    """What one of `Account.errors`, raised by a call that was to change something, says about it. Refused only when
    certainly nothing happened. `more` are error codes that mean something particular to one service."""
    name, text = type(failed).__name__, clipped(str(failed) or type(failed).__name__)
    if name in _NO_CREDENTIALS:
        return Refused(RefusalKind.AUTH, text)
    if name in _NEVER_SENT:
        return Refused(RefusalKind.CONFIG, text)
    answer = getattr(failed, "response", None)
    if not isinstance(answer, Mapping):  # cut, timed out, or an answer that nobody can read
        return Unknown(text)
    return _by_answer(answer, text, {**_KINDS, **(more or {})})


def _by_answer(answer: Mapping[str, Any], text: str, kinds: Mapping[str, RefusalKind]) -> Refused | Unknown:
    metadata = answer.get("ResponseMetadata") or {}
    status = metadata.get("HTTPStatusCode") or 0
    kind = kinds.get(error_code(answer)) or _KINDS_BY_STATUS.get(status)
    if kind is None and (not 400 <= status < 500 or status in _UNDECIDED):
        return Unknown(text)
    return Refused(kind or RefusalKind.CONFIG, text, _retry_after_s(metadata.get("HTTPHeaders") or {}))


def error_code(failed: Any) -> str:
    """The service's word for a ClientError (or for its `response`); '' for everything else."""
    answer = failed if isinstance(failed, Mapping) else getattr(failed, "response", None)
    error = answer.get("Error") if isinstance(answer, Mapping) else None
    return str(error.get("Code") or "") if isinstance(error, Mapping) else ""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 < seconds < 86_400 else None


def identity_finding(account: Account) -> Finding:
    """For `check`: whether there are credentials, and whose they are."""
    subject = "AWS credentials"
    try:
        who = account.reading("sts").get_caller_identity()
    except account.errors as failed:
        mend = "aws configure (or set profile, role-arn); a role that is to be assumed must trust these credentials"
        return Finding(subject, Severity.ERROR, clipped(str(failed)), mend)
    return Finding(subject, Severity.OK, f"{who.get('Arn', 'unknown')} in {account.region}")
