"""`Generate`: one request carried through the router, for clients that know no grants.

The router plays the client's part towards itself: the same `RequestLife` that the SDK runs, asking at a desk
that is a function call away. A client that does not read shuts its window at the worker, so what waits for it
here stays little.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.coalesce import TokenOutbox
from diplex.wire.request import Answers as AskAnswers
from diplex.wire.request import RequestLife
from diplex.wire.window import Window
from diplex_core.events import AskKey, Granted, Queued, Refused, Revoked, Withdrawn
from diplex_router.driver import Driver
from diplex_router.session import Answers

Piece: TypeAlias = router_pb2.Queued | router_pb2.Serving | pb.Done
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

AHEAD: Final = 512
"""Tokens that wait for a client before its window is shut: some kilobytes, beside what gRPC holds for it."""


class LocalDesk:
    """The asking end of a session that never leaves the process; it shares one for all proxied requests.

    Args:
        addresses: by worker, where this router reaches it; what a worker advertises is meant for clients.
    """

    def __init__(self, driver: Driver, answers: Answers, addresses: Mapping[str, str]) -> None:
        self._driver = driver
        self._answers = answers
        self._addresses = addresses
        self._waiting: dict[int, AskAnswers] = {}
        self._last_id = 0
        self._session = driver.open_session(self)

    def new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def ask(self, ask: router_pb2.Ask, answers: AskAnswers) -> None:
        self._waiting[ask.ask_id] = answers
        self._driver.ask(AskKey(self._session, ask.ask_id), ask, proxied=True)

    def withdraw(self, ask_id: int) -> None:
        self._waiting.pop(ask_id, None)
        self._driver.tell(Withdrawn(AskKey(self._session, ask_id)))

    def forget(self, ask_id: int) -> None:
        """The request is over: nothing will be asked or answered under this number again."""
        self._waiting.pop(ask_id, None)

    def answer(self, decision: Queued | Granted | Refused | Revoked) -> None:
        answers = self._waiting.get(decision.key.ask_id)
        if answers is None:
            return
        message = self._answers.of(decision)
        match message:
            case router_pb2.Queued():
                answers.on_queued(message)
            case router_pb2.Granted():
                assert isinstance(decision, Granted)
                message.address = self._addresses.get(decision.worker.name, message.address)
                answers.on_granted(message)
            case router_pb2.Refused():
                answers.on_refused(message)
            case router_pb2.Revoked():
                answers.on_revoked(message)


class Proxied:
    """What a proxied request has to say to its client, gathered while a write is under way."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._preemptions = 0
        self._outbox: TokenOutbox[Piece] = TokenOutbox()
        self._window = Window(AHEAD, self._tell)
        self._life: RequestLife | None = None

    async def carry(self, life: RequestLife, context: Context) -> pb.Done:
        """Run the request and write what is said of it, until its last word.

        A client that goes away cancels this, and the request with it.
        """
        self._life, window = life, self._window
        done: pb.Done | None = None
        life.begin()
        try:
            while pieces := await self._outbox.gather():
                index, message = window.so_far, folded(pieces)
                if message.HasField("done"):
                    done = message.done
                await context.write(message)
                window.took(index)
        finally:
            if done is None:
                life.cancel()
        assert done is not None, "an outbox is closed behind the last word"
        return done

    def _tell(self, upto: int) -> None:
        if self._life is not None:
            self._life.window(upto)

    # What the request's life says.

    def on_queued(self, position: int) -> None:
        self._outbox.put(router_pb2.Queued(position=position))

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        serving = router_pb2.Serving(
            request_id=self._request_id,
            worker=grant.worker,
            package=granted.package,
            pattern=granted.pattern,
            engine=granted.engine,
            simulated=granted.simulated,
            tier=grant.tier,
            tenant=grant.tenant,
            max_tokens=grant.max_tokens,
            blocks=grant.blocks,
            queue_ms=granted.queue_ms,
            lease_id=grant.claim.lease_id,
            degraded_from=granted.degraded_from,
            preemptions=self._preemptions,
        )
        # What is not known stays absent.
        for name in ("predicted_ttft_ms", "predicted_tpot_ms"):
            if granted.HasField(name):
                setattr(serving, name, getattr(granted, name))
        self._outbox.put(serving)

    def on_preempted(self, preemptions: int) -> None:
        """Told with the next `serving`."""
        self._preemptions = preemptions

    def on_tokens(self, tokens: pb.Tokens) -> None:
        self._window.came(tokens.index + tokens.count)
        self._outbox.put_tokens(tokens)

    def on_done(self, done: pb.Done) -> None:
        self._outbox.put(done)
        self._outbox.close()


def folded(pieces: list[Piece | pb.Tokens]) -> router_pb2.RouterGenerateResponse:
    """Everything that gathered, as one message."""
    message = router_pb2.RouterGenerateResponse()
    for piece in pieces:
        match piece:
            case pb.Tokens():
                message.tokens.append(piece)
            case router_pb2.Queued():
                message.queued.CopyFrom(piece)
            case router_pb2.Serving():
                message.serving.CopyFrom(piece)
            case pb.Done():
                message.done.CopyFrom(piece)
    return message
