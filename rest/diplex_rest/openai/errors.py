"""Errors as OpenAI's clients read them: an HTTP status, and a body of message, type, param and code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Final

import grpc

from diplex.wire.status import Problem

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Kind:
    """The status and type that a gRPC code has over HTTP, and the code of an error that names no reason."""

    status: int
    type: str
    code: str | None = None


_BROKEN: Final = Kind(500, SERVER, "internal_error")
_KINDS: Final[Mapping[grpc.StatusCode, Kind]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: Kind(400, INVALID),
        grpc.StatusCode.FAILED_PRECONDITION: Kind(400, INVALID),
        grpc.StatusCode.OUT_OF_RANGE: Kind(400, INVALID),
        grpc.StatusCode.UNIMPLEMENTED: Kind(400, INVALID, "unsupported"),
        grpc.StatusCode.UNAUTHENTICATED: Kind(401, "authentication_error", "invalid_api_key"),
        grpc.StatusCode.PERMISSION_DENIED: Kind(403, "permission_error", "permission_denied"),
        grpc.StatusCode.NOT_FOUND: Kind(404, INVALID, "model_not_found"),
        grpc.StatusCode.ALREADY_EXISTS: Kind(409, INVALID, "conflict"),
        grpc.StatusCode.RESOURCE_EXHAUSTED: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
        grpc.StatusCode.UNAVAILABLE: Kind(503, SERVER, "service_unavailable"),
        grpc.StatusCode.ABORTED: Kind(503, SERVER, "service_unavailable"),
        grpc.StatusCode.CANCELLED: Kind(503, SERVER, "cancelled"),
        grpc.StatusCode.DEADLINE_EXCEEDED: Kind(504, SERVER, "deadline_exceeded"),
    }
)
# Reasons for which OpenAI has a code of its own, and clients that act on it.
_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "UNKNOWN_MODEL": "model_not_found",
        "UNKNOWN_KEY": "invalid_api_key",
        "REQUEST_TOO_LARGE": "context_length_exceeded",
    }
)
_WAITABLE: Final = frozenset({429, 503})


class ApiError(Exception):
    """A request that ends in an error, as its client reads it.

    Args:
        param: the request field at fault, with its path (`messages[1].role`).
        code: for programs, lower case.
        retry_after: seconds after which trying again makes sense; told with 429 and 503 only.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> bytes:
        """OpenAI's error object as JSON: the body of a response, and the data of a stream's error event."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def headers(self) -> Headers:
        """`Retry-After` in whole seconds, rounded up and at least 1, where the status asks for it."""
        if self.status not in _WAITABLE:
            return []
        return [(b"retry-after", b"%d" % max(1, ceil(self.retry_after or 0)))]


def bad_request(message: str, param: str | None = None, *, code: str | None = None) -> ApiError:
    """A request that is wrong in itself: 400. The message names what was expected, found, and the mend."""
    return ApiError(400, message, param=param, code=code)


def error_of(problem: Problem, *, prompt: str = "prompt") -> ApiError:
    """What a problem from router, worker or SDK is over HTTP.

    Args:
        prompt: what this route calls the field that holds the prompt.

    >>> error_of(Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", retry_after=1.2)).headers()
    [(b'retry-after', b'2')]
    """
    kind = _KINDS.get(problem.code, _BROKEN)
    code = _CODES.get(problem.reason) or problem.reason.lower() or kind.code
    # What the others call a field, where OpenAI calls it otherwise.
    params = {"tier": "service_tier", "prompt": prompt, "prompt_ids": prompt}
    return ApiError(
        kind.status,
        problem.message,
        type=kind.type,
        param=params.get(problem.field, problem.field) or None,
        code=code,
        retry_after=problem.retry_after,
    )
