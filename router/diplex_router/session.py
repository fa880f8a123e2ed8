"""One client's `Router.Session`: many leases on a stream, answers gathered while a write is under way."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from diplex.v1 import router_pb2
from diplex.wire.coalesce import Outbox
from diplex.wire.grants import Keys
from diplex_core.events import AskKey, Granted, Queued, Refused, Revoked, Withdrawn
from diplex_router.driver import Driver
from diplex_router.translate import claim_on_wire, granted_on_wire, problem_of

Answer: TypeAlias = router_pb2.Queued | router_pb2.Granted | router_pb2.Refused | router_pb2.Revoked
Context: TypeAlias = grpc.aio.ServicerContext[
    router_pb2.RouterSessionRequest, router_pb2.RouterSessionResponse
]


class Answers:
    """Decisions as the wire words them."""

    def __init__(self, router: str, epoch: int, keys: Keys) -> None:
        self._router = router
        self._epoch = epoch
        self._keys = keys

    def of(self, decision: Queued | Granted | Refused | Revoked) -> Answer:
        match decision:
            case Queued():
                return router_pb2.Queued(ask_id=decision.key.ask_id, position=decision.position)
            case Granted():
                return granted_on_wire(decision, self._router, self._epoch, self._keys)
            case Refused():
                status = problem_of(decision.refusal).to_bytes()
                return router_pb2.Refused(ask_id=decision.key.ask_id, status=status)
            case Revoked():
                return router_pb2.Revoked(
                    ask_id=decision.key.ask_id,
                    claim=claim_on_wire(decision.claim),
                    status=problem_of(decision.refusal).to_bytes(),
                )


class ClientSession:
    """The serving end of one stream."""

    def __init__(
        self, driver: Driver, answers: Answers, api_key: str, hello: router_pb2.RouterSessionResponse
    ) -> None:
        self._driver = driver
        self._answers = answers
        self._api_key = api_key
        self._hello = hello
        self._outbox: Outbox[Answer] = Outbox()

    def answer(self, decision: Queued | Granted | Refused | Revoked) -> None:
        self._outbox.put(self._answers.of(decision))

    async def serve(
        self,
        requests: AsyncIterator[router_pb2.RouterSessionRequest],
        context: Context,
    ) -> None:
        """Until the client ends the stream, by half-closing it or by going away."""
        session = self._driver.open_session(self)
        writer = asyncio.create_task(self._write(context), name=f"answers of session {session}")
        try:
            async for request in requests:
                self._take(session, request)
        except grpc.aio.BaseError:
            pass  # this server stops: the session is over like any other
        finally:
            self._driver.close_session(session)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _take(self, session: int, request: router_pb2.RouterSessionRequest) -> None:
        for ask in request.asks:
            self._driver.ask(AskKey(session, ask.ask_id), ask, self._api_key)
        for withdraw in request.withdraws:
            self._driver.tell(Withdrawn(AskKey(session, withdraw.ask_id)))

    async def _write(self, context: Context) -> None:
        await context.write(self._hello)
        while answers := await self._outbox.gather():
            await context.write(folded(answers))


def folded(answers: list[Answer]) -> router_pb2.RouterSessionResponse:
    """Everything that gathered, as one message."""
    message = router_pb2.RouterSessionResponse()
    for answer in answers:
        match answer:
            case router_pb2.Queued():
                message.queued.append(answer)
            case router_pb2.Granted():
                message.granted.append(answer)
            case router_pb2.Refused():
                message.refused.append(answer)
            case router_pb2.Revoked():
                message.revoked.append(answer)
    return message
