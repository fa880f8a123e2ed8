"""The client's end of `Router.Session`: one stream for all its requests, dialled again whenever it breaks.

What waits at the router is forgotten there when the stream ends, so each waiting request is told, and asks
anew with its age once there is a session again. Requests that run do not notice: their tokens come straight
from workers.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, TypeAlias

import grpc

from diplex.v1 import router_pb2, router_pb2_grpc
from diplex.wire.coalesce import Outbox
from diplex.wire.request import Answers
from diplex.wire.status import Problem

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 0.5

Order: TypeAlias = router_pb2.Ask | router_pb2.Withdraw
Call: TypeAlias = grpc.aio.StreamStreamCall[router_pb2.RouterSessionRequest, router_pb2.RouterSessionResponse]


class RouterSession:
    """An `AskDesk` over gRPC. `run` is the one task that dials, reads and dials again.

    Args:
        patience: seconds without a router after which what waits is refused, UNAVAILABLE.
        changed: called whenever `up` has changed.
    """

    def __init__(
        self,
        stub: "router_pb2_grpc.RouterAsyncStub",
        target: str,
        *,
        api_key: str,
        patience: float,
        changed: Callable[[], None],
    ) -> None:
        self._stub = stub
        self._target = target
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._patience = patience
        self._changed = changed
        self._answers: dict[int, Answers] = {}
        self._outbox: Outbox[Order] | None = None
        self._last_id = 0
        self._given_up: Problem | None = None

    @property
    def up(self) -> bool:
        return self._outbox is not None

    # What a request's life calls.

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def ask(self, ask: router_pb2.Ask, answers: Answers) -> None:
        self._answers[ask.ask_id] = answers
        if self._outbox is not None:
            self._outbox.put(ask)
            return
        answers.on_lost()
        if self._given_up is not None:
            asyncio.get_running_loop().call_soon(self._refuse, ask.ask_id, self._given_up)

    def withdraw(self, ask_id: int) -> None:
        if self._outbox is not None:
            self._outbox.put(router_pb2.Withdraw(ask_id=ask_id))

    def forget(self, ask_id: int) -> None:
        self._answers.pop(ask_id, None)

    # The one task.

    async def run(self) -> None:
        """Keep a session up until cancelled; then whatever still waits is refused."""
        loop = asyncio.get_running_loop()
        down_since, pause = loop.time(), _FIRST_PAUSE
        try:
            while True:
                problem = await self._one_session()
                if self.up:
                    down_since, pause = loop.time(), _FIRST_PAUSE
                    self._went_down()
                if loop.time() - down_since >= self._patience:
                    self._give_up(problem)
                # Clients that one restart cut off together do not all come back in the same moment.
                await asyncio.sleep(pause * random.uniform(0.7, 1.0))
                pause = min(_LONGEST_PAUSE, pause * 2)
        finally:
            self._went_down()
            self._give_up(Problem(grpc.StatusCode.CANCELLED, "the client was closed", "CLIENT_CLOSED"))

    async def _one_session(self) -> Problem:
        """One stream from its dialling to its end; answers why it ended."""
        call: Call = self._stub.Session(metadata=self._metadata)
        try:
            await call.wait_for_connection()
            outbox = self._came_up()
            # No TaskGroup: a cancel that meets one on its way out with an error is lost on Python 3.11.
            writer = asyncio.create_task(_write(call, outbox), name=f"asks to {self._target}")
            try:
                while isinstance(answer := await call.read(), router_pb2.RouterSessionResponse):
                    self._hand_out(answer)
            finally:
                outbox.close()
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
            return no_router(self._target, "it ended the session")
        except grpc.aio.AioRpcError as broke:
            return no_router(self._target, Problem.from_rpc(broke).message)
        finally:
            call.cancel()

    def _came_up(self) -> Outbox[Order]:
        self._given_up = None
        self._outbox = outbox = Outbox[Order]()
        self._changed()
        for answers in list(self._answers.values()):
            answers.on_back()
        return outbox

    def _went_down(self) -> None:
        if self._outbox is None:
            return
        self._outbox = None
        self._changed()
        for answers in list(self._answers.values()):
            answers.on_lost()

    def _give_up(self, problem: Problem) -> None:
        self._given_up = problem
        for ask_id in list(self._answers):
            self._refuse(ask_id, problem)

    def _refuse(self, ask_id: int, problem: Problem) -> None:
        answers = self._answers.get(ask_id)
        if answers is not None:
            answers.on_refused(router_pb2.Refused(ask_id=ask_id, status=problem.to_bytes()))

    def _hand_out(self, message: router_pb2.RouterSessionResponse) -> None:
        known = self._answers
        for queued in message.queued:
            if answers := known.get(queued.ask_id):
                answers.on_queued(queued)
        for granted in message.granted:
            if answers := known.get(granted.ask_id):
                answers.on_granted(granted)
        for refused in message.refused:
            if answers := known.get(refused.ask_id):
                answers.on_refused(refused)
        for revoked in message.revoked:
            if answers := known.get(revoked.ask_id):
                answers.on_revoked(revoked)


async def _write(call: Call, outbox: Outbox[Order]) -> None:
    """Everything that gathered goes up as one message. A broken stream is the reader's to report."""
    while orders := await outbox.gather():
        message = router_pb2.RouterSessionRequest()
        for order in orders:
            if isinstance(order, router_pb2.Ask):
                message.asks.append(order)
            else:
                message.withdraws.append(order)
        try:
            await call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return


def no_router(target: str, why: str) -> Problem:
    """Nobody answers at the address that the client was given, or no longer."""
    return Problem(
        grpc.StatusCode.UNAVAILABLE,
        f"no router answers at {target}: {why}. Mend: diplex up, or the right address",
        "NO_ROUTER",
    )
