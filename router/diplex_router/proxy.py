"""`Generate`: one request carried through the router, for clients that know no grants.

The router plays the client's part towards itself: the same `RequestLife` that the SDK runs, asking at a desk
that is a function call away. A client that does not read shuts its window at the worker, so what waits for it
here stays little.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.coalesce import join
from diplex.wire.request import Answers as AskAnswers
from diplex.wire.request import RequestLife
from diplex.wire.window import Window
from diplex_core.events import AskKey, Granted, Queued, Refused, Revoked, Withdrawn
from diplex_router.driver import Driver
from diplex_router.session import Answers

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_TOKENS_FIELD: Final = bytes((router_pb2.RouterGenerateResponse.TOKENS_FIELD_NUMBER << 3 | 2,))
"""What stands before a field of messages on the wire: its number, and that a length follows."""

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
        self._tokens: dict[int, pb.Tokens] = {}  # by choice, joined
        self._beside: router_pb2.RouterGenerateResponse | None = None
        self._over: pb.Done | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._window = Window(AHEAD, self._tell)
        self._life: RequestLife | None = None

    async def carry(self, life: RequestLife, context: Context) -> pb.Done:
        """Run the request and write what is said of it, until its last word.

        A client that goes away cancels this, and the request with it.
        """
        self._life, window, loop = life, self._window, asyncio.get_running_loop()
        last: pb.Done | None = None
        life.begin()
        try:
            while last is None:
                if not self._tokens and self._beside is None:
                    self._waiter = loop.create_future()
                    await self._waiter
                index, last = window.so_far, self._over
                await context.write(self._said())
                window.took(index)
                if self._tokens:
                    # More came while this was written: it lags. Frames that have arrived are read first, so
                    # that what they bring goes with it; a client that keeps up never comes by here.
                    await asyncio.sleep(0)
        finally:
            if last is None:
                life.cancel()
        return last

    def _said(self) -> bytes:
        """Everything that gathered, as one message. Serialised here: most are one choice's tokens and nothing
        else, and those bytes need no message around them to be built first."""
        tokens, beside, self._tokens, self._beside = self._tokens, self._beside, {}, None
        if beside is None and len(tokens) == 1:
            (only,) = tokens.values()
            data = only.SerializeToString()
            if len(data) < 128:  # a length of one byte
                return _TOKENS_FIELD + bytes((len(data),)) + data
        message = beside or router_pb2.RouterGenerateResponse()
        message.tokens.extend(tokens.values())
        return message.SerializeToString()

    def _tell(self, upto: int) -> None:
        if self._life is not None:
            self._life.window(upto)

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def _say(self) -> router_pb2.RouterGenerateResponse:
        """The next message, for whatever is said beside tokens."""
        self._wake()
        if self._beside is None:
            self._beside = router_pb2.RouterGenerateResponse()
        return self._beside

    # What the request's life says.

    def on_queued(self, position: int) -> None:
        self._say().queued.CopyFrom(router_pb2.Queued(position=position))

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
        self._say().serving.CopyFrom(serving)

    def on_preempted(self, preemptions: int) -> None:
        """Told with the next `serving`."""
        self._preemptions = preemptions

    def on_tokens(self, tokens: pb.Tokens) -> None:
        self._window.came(tokens.index + tokens.count)
        waiting = self._tokens.get(tokens.choice)
        if waiting is None:
            self._tokens[tokens.choice] = tokens
            self._wake()
        else:  # it came in a frame, and nobody else holds it any more
            join(waiting, tokens.count, tokens.ids[:], tokens.text)

    def on_done(self, done: pb.Done) -> None:
        self._over = done
        self._say().done.CopyFrom(done)
