"""What a request may raise: one exception for each thing that a program would do about it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import grpc

from diplex.wire.status import Problem


class DiplexError(Exception):
    """A request that did not end well. `str()` of it names place, reason and mend.

    Attributes:
        code: gRPC's own code.
        message: one or two lines that a user may read.
        reason: UPPER_SNAKE, for programs (docs/guide/errors.md lists them); may be "".
        retry_after: seconds after which the same request may succeed; `None`: nobody knows, or never.
        metadata: figures for programs, as text (needed blocks, the largest pool).
        field: the request field at fault; "" where it is none.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem

    @property
    def code(self) -> grpc.StatusCode:
        return self.problem.code

    @property
    def message(self) -> str:
        return self.problem.message

    @property
    def reason(self) -> str:
        return self.problem.reason

    @property
    def retry_after(self) -> float | None:
        return self.problem.retry_after

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.problem.metadata

    @property
    def field(self) -> str:
        return self.problem.field


class InvalidRequest(DiplexError):
    """The request is wrong in itself: it would fail anywhere, at any time."""


class UnknownModel(DiplexError):
    """Nobody serves a model of that name; the message lists those that are known."""


class UnknownRequest(DiplexError):
    """The router remembers no such request of this tenant."""


class Unauthenticated(DiplexError):
    """The API key belongs to nobody."""


class PermissionDenied(DiplexError):
    """The tenant may not do that."""


class Overloaded(DiplexError):
    """There is no room within the tier's bounds, or a quota is used up: later, after `retry_after`."""


class Unavailable(DiplexError):
    """No router or no worker answers, or the one that did is gone."""


class DeadlineExceeded(DiplexError):
    """The request's own timeout passed."""


class Cancelled(DiplexError):
    """Somebody else than the caller ended the request."""


class EngineFailed(DiplexError):
    """Something broke that should not: the engine, or a promise between the parts."""


_KINDS: Final[Mapping[grpc.StatusCode, type[DiplexError]]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
        grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
        grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
        grpc.StatusCode.NOT_FOUND: UnknownModel,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
        grpc.StatusCode.UNAVAILABLE: Unavailable,
        grpc.StatusCode.ABORTED: Unavailable,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.CANCELLED: Cancelled,
    }
)


def error_of(problem: Problem) -> DiplexError:
    """The exception for a problem, by its gRPC code."""
    if problem.reason == "UNKNOWN_REQUEST":
        return UnknownRequest(problem)
    return _KINDS.get(problem.code, EngineFailed)(problem)
