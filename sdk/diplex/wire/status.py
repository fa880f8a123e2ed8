"""What went wrong, in one shape everywhere: a `google.rpc.Status`, in trailers and inside messages alike."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

# googleapis-common-protos ships stubs without a py.typed marker.
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

DOMAIN: Final = "diplex"
# Where gRPC itself carries a serialised Status: other languages' clients read it from there.
STATUS_TRAILER: Final = "grpc-status-details-bin"

_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class Problem(Exception):
    """An error that travels. Its message names place and reason, and ends in the mend ("Mend: …").

    Args:
        code: gRPC's own code.
        message: one or two lines that a user may read.
        reason: UPPER_SNAKE, for programs.
        retry_after: seconds after which the same request may succeed; `None`: nobody knows, or never.
        metadata: figures for programs (needed blocks, the largest pool), as text.
        field: the request field at fault, for INVALID_ARGUMENT.
        quota: whose quota was used up (`tenant:acme`), for RESOURCE_EXHAUSTED.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        *,
        retry_after: float | None = None,
        metadata: Mapping[str, str] = _NO_METADATA,
        field: str = "",
        quota: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.retry_after = retry_after
        self.metadata = metadata
        self.field = field
        self.quota = quota

    def __repr__(self) -> str:
        return f"Problem({self.code.name}, {self.message!r}, reason={self.reason!r})"

    def to_bytes(self) -> bytes:
        """The serialised Status: what `Done.error`, `Refused.status` and the trailer hold."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason or self.metadata:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
            status.details.add().Pack(info)
        if self.retry_after is not None:
            delay = Duration()
            delay.FromNanoseconds(round(self.retry_after * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.quota:
            used_up = error_details_pb2.QuotaFailure.Violation(subject=self.quota, description=self.message)
            status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[used_up]))
        return bytes(status.SerializeToString())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Problem":
        """Read a serialised Status. What cannot be read is itself a Problem, INTERNAL; nothing is raised."""
        try:
            status = status_pb2.Status.FromString(data)
        except DecodeError:
            return cls(grpc.StatusCode.INTERNAL, "the peer sent an error that cannot be read", "BAD_STATUS")
        reason, metadata, retry_after, field, quota = "", _NO_METADATA, None, "", ""
        for detail in status.details:
            # By type name, so that a detail that nobody here knows is passed over.
            match detail.TypeName():
                case "google.rpc.ErrorInfo":
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                    reason, metadata = info.reason, MappingProxyType(dict(info.metadata))
                case "google.rpc.RetryInfo":
                    delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                    retry_after = delay.seconds + delay.nanos / 1e9
                case "google.rpc.BadRequest":
                    bad = error_details_pb2.BadRequest.FromString(detail.value)
                    field = bad.field_violations[0].field if bad.field_violations else ""
                case "google.rpc.QuotaFailure":
                    failure = error_details_pb2.QuotaFailure.FromString(detail.value)
                    quota = failure.violations[0].subject if failure.violations else ""
        code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
        return cls(
            code, status.message, reason, retry_after=retry_after, metadata=metadata, field=field, quota=quota
        )

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> "Problem":
        """What a failed RPC says: the Status in its trailers, else its bare code and text."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return cls(grpc.StatusCode.UNKNOWN, str(error))
        for key, value in error.trailing_metadata() or ():
            if key == STATUS_TRAILER and isinstance(value, bytes):
                return cls.from_bytes(value)
        return cls(error.code(), error.details() or error.code().name)

    async def abort(self, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        """End the RPC with this problem, details included. Raises, as `context.abort` does."""
        await context.abort(self.code, self.message, ((STATUS_TRAILER, self.to_bytes()),))
        raise AssertionError("context.abort returned")
