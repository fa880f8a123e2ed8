"""The client without `async`: the same one, on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from diplex.answers import Chunk, ModelInfo, Reply, Serving, TokenCount
from diplex.client import AsyncClient
from diplex.options import Options
from diplex.stream import TokenStream
from diplex.tokens.counter import Tokenizers
from diplex.v1 import router_pb2
from diplex.wire.detour import Direct

T = TypeVar("T")


class Client:
    """A blocking client of one router; any number of threads may share it.

    Open from its construction to `close`, or for the length of a `with` block. The arguments are
    `AsyncClient`'s.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7600",
        *,
        api_key: str | None = None,
        patience: float = 10.0,
        tokenizers: Tokenizers | None = None,
        direct: Direct = "auto",
    ) -> None:
        self._client = AsyncClient(
            target, api_key=api_key, patience=patience, tokenizers=tokenizers, direct=direct
        )
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets `close` must still be able to end.
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"diplex {target}", daemon=True)
        self._thread.start()
        self._wait(self._client.__aenter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what runs, the sessions and the thread. Doing it twice does nothing."""
        if self._loop.is_closed():
            return
        self._wait(self._client.aclose())
        self._wait(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def generate(self, prompt: str | None = None, **options: Unpack[Options]) -> Reply:
        """As `AsyncClient.generate`."""
        return self._wait(self._client.generate(prompt, **options))

    def stream(self, prompt: str | None = None, **options: Unpack[Options]) -> "BlockingStream":
        """As `AsyncClient.stream`, read with a plain `for`."""
        return BlockingStream(self, self._client.stream(prompt, **options))

    @property
    def ready(self) -> bool:
        return self._client.ready

    def wait_ready(self, timeout: float = 10.0) -> None:
        """As `AsyncClient.wait_ready`."""
        self._wait(self._client.wait_ready(timeout))

    def models(self) -> list[ModelInfo]:
        """As `AsyncClient.models`."""
        return self._wait(self._client.models())

    def fleet(self) -> router_pb2.Fleet:
        """As `AsyncClient.fleet`."""
        return self._wait(self._client.fleet())

    def metrics(self) -> str:
        """As `AsyncClient.metrics`."""
        return self._wait(self._client.metrics())

    def count_tokens(self, prompt: str | None = None, **options: Unpack[Options]) -> TokenCount:
        """As `AsyncClient.count_tokens`."""
        return self._wait(self._client.count_tokens(prompt, **options))

    def explain(self, **about: Any) -> router_pb2.RouterExplainResponse:
        """As `AsyncClient.explain`."""
        return self._wait(self._client.explain(**about))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("the client is closed. Mend: make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            # Ctrl-C in the waiting thread ends the request too.
            future.cancel()


class BlockingStream:
    """A `TokenStream` read with a plain `for`; leaving the loop early ends the request."""

    def __init__(self, client: Client, stream: TokenStream) -> None:
        self._client = client
        self._stream = stream

    def __iter__(self) -> Iterator[Chunk]:
        try:
            while (chunk := self._next()) is not None:
                yield chunk
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def started(self) -> Serving:
        """As `TokenStream.started`."""
        return self._client._wait(self._stream.started())

    @property
    def reply(self) -> Reply:
        """As `TokenStream.reply`."""
        return self._stream.reply

    def close(self) -> None:
        """End the request, and wait until it is over. Doing it twice does nothing."""
        self._client._wait(self._stream.aclose())

    def _next(self) -> Chunk | None:
        return self._client._wait(self._stream.next_chunk())
