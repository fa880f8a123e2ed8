"""The way round: a request that cannot reach its worker goes through the router, by the proxied `Generate`.

A client outside the workers' network finds that out when it dials. Then the request gives its grant back and
is sent to the router whole, which does what the client would have done; nothing was produced yet, so nothing
is lost but the dial. Later requests for that address are spared it, and while no address is in reach they ask
for no grant either.
"""

import asyncio
from typing import Literal, Protocol, TypeAlias

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.frames import WorkerStreams
from diplex.wire.status import Problem
from diplex.wire.wanted import Consumer, Wanted

Direct: TypeAlias = Literal["auto", "always", "never"]
"""Whether tokens come straight from workers: where they can be reached, come what may, or not at all."""

Call: TypeAlias = grpc.aio.UnaryStreamCall[
    router_pb2.RouterGenerateRequest, router_pb2.RouterGenerateResponse
]


class Broken(Protocol):
    """Hears that the way round itself broke off: the router is gone, or was never there."""

    def __call__(self, problem: Problem) -> None: ...


class Detour:
    """Takes requests through the router.

    Args:
        direct: "auto" or "never"; a client that goes "always" straight has no detour.
    """

    def __init__(
        self, stub: "router_pb2_grpc.RouterAsyncStub", streams: WorkerStreams, direct: Direct
    ) -> None:
        self._stub = stub
        self._streams = streams
        self._never_straight = direct == "never"
        self._tasks: set[asyncio.Task[pb.Done | Problem]] = set()

    def before_asking(self) -> bool:
        """Whether a request need not even ask for a grant."""
        return self._never_straight or self._streams.nothing_in_reach()

    def instead_of(self, address: str) -> bool:
        """Whether what was granted on the worker at this address goes round all the same."""
        return self._never_straight or self._streams.out_of_reach(address)

    def open(self, wanted: Wanted, timeout: float | None, consumer: Consumer, broken: Broken) -> "Proxied":
        """Begin. The consumer hears all of it; in place of its `on_done`, `broken` where the router is gone.

        Args:
            timeout: seconds that are left.
        """
        proxied = Proxied(self._stub, wanted, timeout, consumer, broken)
        self._tasks.add(proxied.task)
        proxied.task.add_done_callback(self._tasks.discard)
        return proxied

    async def close(self) -> None:
        """End everything that goes this way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Proxied:
    """One request on its way round, as its life sees it: a sequence that can be cancelled and held up."""

    def __init__(
        self,
        stub: "router_pb2_grpc.RouterAsyncStub",
        wanted: Wanted,
        timeout: float | None,
        consumer: Consumer,
        broken: Broken,
    ) -> None:
        self._consumer = consumer
        self._broken = broken
        self._preemptions = 0
        self._upto = 0
        self._moved = asyncio.Event()
        trace = {"traceparent": wanted.traceparent, "tracestate": wanted.tracestate}
        call: Call = stub.Generate(
            request_of(wanted),
            timeout=timeout,
            metadata=tuple((key, value) for key, value in trace.items() if value),
        )
        self.task = asyncio.get_running_loop().create_task(
            self._read(call), name=f"proxied {wanted.request_id}"
        )
        self.task.add_done_callback(self._over)

    def cancel(self) -> None:
        self.task.cancel()

    def window(self, upto: int) -> None:
        """While nothing beyond `upto` is wanted nothing is read: the router's own window does the rest."""
        self._upto = upto
        self._moved.set()

    async def _read(self, call: Call) -> pb.Done | Problem:
        """Hand everything on; answers the last word, or why there is none."""
        done: pb.Done | None = None
        try:
            async for message in call:
                if message.HasField("done"):
                    done = message.done
                came = self._say(message)
                while self._upto and came >= self._upto:
                    self._moved.clear()
                    await self._moved.wait()
        except grpc.aio.AioRpcError as error:
            return done or Problem.from_rpc(error)
        finally:
            call.cancel()
        return done or Problem(grpc.StatusCode.UNAVAILABLE, "the router broke the answer off")

    def _over(self, task: asyncio.Task[pb.Done | Problem]) -> None:
        # Said here, because a task that is cancelled before its first step never runs any of its own lines.
        ended = pb.Done(reason=pb.END_REASON_CANCELLED) if task.cancelled() else task.result()
        if isinstance(ended, pb.Done):
            self._consumer.on_done(ended)
        elif ended.code is grpc.StatusCode.UNAVAILABLE:
            self._broken(ended)
        else:
            self._consumer.on_done(pb.Done(reason=pb.END_REASON_REFUSED, error=ended.to_bytes()))

    def _say(self, message: router_pb2.RouterGenerateResponse) -> int:
        """Tell what a message says; answers behind which index its tokens end, 0: it has none."""
        consumer, came = self._consumer, 0
        if message.HasField("queued"):
            consumer.on_queued(message.queued.position)
        if message.HasField("serving"):
            serving = message.serving
            while self._preemptions < serving.preemptions:
                self._preemptions += 1
                consumer.on_preempted(self._preemptions)
            consumer.on_serving(*granted_by(serving))
        for tokens in message.tokens:
            came = max(came, tokens.index + tokens.count)
            consumer.on_tokens(tokens)
        return came


def request_of(wanted: Wanted) -> router_pb2.RouterGenerateRequest:
    """The whole request. A count that is only a bound is left to the router, which has a better one."""
    return router_pb2.RouterGenerateRequest(
        request_id=wanted.request_id,
        model=wanted.model,
        tier=wanted.tier,
        api_key=wanted.api_key,
        prompt=wanted.prompt,
        sampling=wanted.sampling,
        max_tokens=wanted.max_tokens,
        n=wanted.n,
        prompt_tokens=wanted.prompt_tokens if wanted.exact else 0,
        block_hashes=wanted.block_hashes if wanted.exact else (),
        hash_block_tokens=wanted.hash_block_tokens if wanted.exact else 0,
    )


def granted_by(serving: router_pb2.Serving) -> tuple[router_pb2.Granted, pb.Grant]:
    """What a direct client would have been granted, as far as it is told here."""
    granted = router_pb2.Granted(
        pattern=serving.pattern,
        package=serving.package,
        engine=serving.engine,
        simulated=serving.simulated,
        queue_ms=serving.queue_ms,
        degraded_from=serving.degraded_from,
    )
    if serving.HasField("predicted_ttft_ms"):
        granted.predicted_ttft_ms = serving.predicted_ttft_ms
    if serving.HasField("predicted_tpot_ms"):
        granted.predicted_tpot_ms = serving.predicted_tpot_ms
    grant = pb.Grant(
        claim=pb.Claim(lease_id=serving.lease_id, attempt=1),
        request_id=serving.request_id,
        worker=serving.worker,
        blocks=serving.blocks,
        max_tokens=serving.max_tokens,
        tier=serving.tier,
        tenant=serving.tenant,
    )
    return granted, grant
