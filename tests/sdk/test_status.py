"""A Problem is the same after it has travelled, in trailers or inside a message."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import status_pb2

from diplex.wire.serving import SERVER_OPTIONS, bind, channel
from diplex.wire.status import Problem

WHOLE = Problem(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "tenant acme used its tokens up. Mend: wait a minute",
    "QUOTA_USED_UP",
    retry_after=12.25,
    metadata={"limit": "2000", "used": "2001"},
    field="max_tokens",
    quota="tenant:acme",
)
BARE = Problem(grpc.StatusCode.INTERNAL, "it broke")


def parts(problem: Problem) -> dict[str, object]:
    return {key: dict(value) if key == "metadata" else value for key, value in vars(problem).items()}


@pytest.mark.parametrize("problem", [WHOLE, BARE], ids=["whole", "bare"])
def test_a_problem_survives_its_bytes(problem: Problem):
    assert parts(Problem.from_bytes(problem.to_bytes())) == parts(problem)


def test_bytes_that_are_no_status_are_a_problem_themselves():
    assert Problem.from_bytes(b"\xff\xff").code is grpc.StatusCode.INTERNAL


def test_a_detail_that_nobody_knows_is_passed_over():
    unknown = Any(type_url="type.googleapis.com/some.other.Thing", value=b"\x01")
    status = status_pb2.Status(code=5, message="gone", details=[unknown])
    assert Problem.from_bytes(status.SerializeToString()).message == "gone"


def test_a_code_that_nobody_knows_is_unknown():
    assert Problem.from_bytes(status_pb2.Status(code=99).SerializeToString()).code is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("problem", [WHOLE, BARE], ids=["whole", "bare"])
async def test_a_problem_survives_the_end_of_an_rpc(problem: Problem):
    async def fail(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await problem.abort(context)

    async with end_of_rpc(fail) as call:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    assert parts(Problem.from_rpc(raised.value)) == parts(problem)


async def test_an_rpc_that_fails_without_details_still_says_why():
    async def fail(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    async with end_of_rpc(fail) as call:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    problem = Problem.from_rpc(raised.value)
    assert (problem.code, problem.message, problem.reason) == (grpc.StatusCode.UNAVAILABLE, "not now", "")


class end_of_rpc:
    """A server with one method, and the method as its client calls it."""

    def __init__(self, method: object) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(method)

    async def __aenter__(self) -> grpc.aio.UnaryUnaryMultiCallable:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        handlers = grpc.method_handlers_generic_handler("test.Service", {"Call": self._handler})
        self._server.add_generic_rpc_handlers((handlers,))
        port = await bind(self._server, "127.0.0.1", 0, option="--port")
        await self._server.start()
        self._channel = channel(f"127.0.0.1:{port}")
        return self._channel.unary_unary("/test.Service/Call")

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._server.stop(None)
