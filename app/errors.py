"""Every error a caller can meet, as one tree. ``app/api/envelope.py`` alone turns them into bodies.

TurnpikeError
├── ConfigError                the TOML file, or what it points to, cannot be used (exit 1)
├── AlreadyRunning             another process holds the data directory (exit 1)
└── CallError                  has a status, a type and a code; becomes an HTTP answer
    ├── InvalidRequest         400  the body or a parameter is wrong; ``param`` names it
    │   ├── UnsupportedParameter  400  understood, but no offer of the model can honour it
    │   ├── BodyTooLarge       413
    │   └── WrongContentType   415
    ├── InvalidKey             401  no key, an unknown one, or a revoked one
    ├── OutOfCredits           402  the money is gone, or this call costs more than is left
    ├── PermissionDenied       403  the key may not do this
    │   └── ContentRefused     403  the provider's policy forbids the content
    ├── NotFound               404  no such model, route or object
    ├── MethodNotAllowed       405  the route exists, the method does not
    ├── Conflict               409  the object exists already, or is in use
    ├── Unprocessable          422  well formed, but at odds with what was asked before
    ├── RateLimited            429  the caller's own limit, or every provider's
    ├── Internal               500  a fault of ours; the log has the details under the id
    ├── UpstreamFailed         502  every attempt failed, none for a reason of the caller's
    ├── Unavailable            503  not able now: overloaded, ledger stopped, model loading
    │   └── ShuttingDown       503  the drain has begun, or has ended this call
    └── UpstreamTimeout        504  every attempt ran out of time
"""

from typing import Any, ClassVar

import msgspec


class Constraint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The field of a request that ruled offers out, and how."""

    field: str
    detail: str = ""


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Why nobody can serve a request, for programs: OpenRouter's ``error.availability``.

    ``excluded_by`` are the reasons, ``fallback_models`` are names that would work.
    """

    code: str
    retryable: bool
    retry_after: int | None = None
    requested_models: list[str] = []
    affected_providers: list[str] = []
    excluded_by: list[str] = []
    fallback_models: list[str] = []
    constraint: Constraint | None = None


class TurnpikeError(Exception):
    """Root of the tree. The message is for the person who reads it and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(TurnpikeError):
    """The configuration cannot be used; the message starts with the path to the key."""


class AlreadyRunning(TurnpikeError):
    """Another process works on the same data directory."""


class CallError(TurnpikeError):
    """An error that answers an HTTP call.

    ``type`` and ``code`` are the strings OpenAI's clients switch on, ``error_type`` is OpenRouter's
    word for it; ``retryable`` becomes ``x-should-retry`` where it differs from what the status
    alone would make a client do. ``availability`` and ``metadata`` go into the body where they are.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    error_type: ClassVar[str] = "server"
    code: str | None = None
    retryable: ClassVar[bool | None] = None
    logged = False
    """Whether the log has a line about the call that it ended."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        availability: Availability | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after_s = retry_after_s
        self.availability = availability
        self.metadata: dict[str, Any] = {}
        if code is not None:
            self.code = code


class InvalidRequest(CallError):
    """400: the body or a parameter is wrong."""

    status = 400
    error_type = "invalid_request"
    type = "invalid_request_error"


class UnsupportedParameter(InvalidRequest):
    """400: a parameter that no offer of the model can honour; never dropped in silence."""

    code = "unsupported_parameter"


class BodyTooLarge(InvalidRequest):
    """413: more bytes than ``server.body_bytes_max``."""

    status = 413
    error_type = "payload_too_large"
    code = "request_too_large"


class WrongContentType(InvalidRequest):
    """415: the body is not declared as JSON."""

    status = 415
    code = "unsupported_media_type"


class InvalidKey(CallError):
    """401: no API key, an unknown one or a revoked one."""

    status = 401
    error_type = "authentication"
    type = "invalid_request_error"
    code = "invalid_api_key"


class OutOfCredits(CallError):
    """402: never 429, since clients repeat a 429."""

    status = 402
    error_type = "payment_required"
    type = "insufficient_quota"
    code = "insufficient_quota"
    retryable = False


class PermissionDenied(CallError):
    """403: the key is good, but may not do this."""

    status = 403
    error_type = "permission_denied"
    type = "invalid_request_error"
    code = "permission_denied"


class ContentRefused(PermissionDenied):
    """403: the provider's policy forbids what was asked for; asking again does not help."""

    error_type = "content_policy_violation"
    code = "content_policy_violation"
    retryable = False


class NotFound(CallError):
    """404: no such model, route or object."""

    status = 404
    error_type = "not_found"
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(CallError):
    """405: the route exists, but not with this method."""

    status = 405
    error_type = "invalid_request"
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(CallError):
    """409: it exists already, or is in use."""

    status = 409
    error_type = "precondition_failed"
    type = "invalid_request_error"
    code = "conflict"
    retryable = False


class Unprocessable(CallError):
    """422: well formed, but at odds with what was asked before under the same name."""

    status = 422
    error_type = "unprocessable"
    type = "invalid_request_error"
    code = "unprocessable"
    retryable = False


class RateLimited(CallError):
    """429: try again after ``retry_after_s``."""

    status = 429
    error_type = "rate_limit_exceeded"
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Internal(CallError):
    """500: a fault of ours; what happened is for the log, not for the caller."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("Something went wrong here. The log has it under this request's id.")


class UpstreamFailed(CallError):
    """502: every provider that was tried failed."""

    status = 502
    error_type = "provider_unavailable"
    type = "server_error"
    code = "upstream_unavailable"


class Unavailable(CallError):
    """503: not able to serve this now."""

    status = 503
    error_type = "provider_overloaded"
    type = "server_error"
    code = "service_unavailable"


class ModelLoading(Unavailable):
    """503: a model of this machine must be loaded first, which takes about ``estimated_s``."""

    code = "model_loading"

    def __init__(self, message: str, estimated_s: float) -> None:
        super().__init__(message, retry_after_s=max(1, round(estimated_s)))
        self.estimated_s = estimated_s


class ShuttingDown(Unavailable):
    """503: the drain has begun, or has ended this call."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("This server is shutting down. Try again shortly.", retry_after_s=5)


class UpstreamTimeout(CallError):
    """504: every provider that was tried ran out of time."""

    status = 504
    error_type = "timeout"
    type = "server_error"
    code = "upstream_timeout"
