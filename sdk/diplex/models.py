"""The client's list of models: asked for at the start, every five seconds, and when a name is not in it.

Its figures bound a prompt that nobody has tokenised, so a request for a name that is not listed yet waits for
one more look before it is asked for.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, router_pb2_grpc

_EVERY: Final = 5.0
_WHILE_NONE: Final = 0.25
"""Seconds between looks while no worker serves anything, or no router answers."""
_ANSWER_WITHIN: Final = 10.0


class ModelList:
    """What `ListModels` said last.

    Args:
        changed: called after each look that was answered.
    """

    def __init__(self, stub: "router_pb2_grpc.RouterAsyncStub", *, changed: Callable[[], None]) -> None:
        self._stub = stub
        self._changed = changed
        self._models: dict[str, pb.Model] = {}
        self._looking: asyncio.Lock = asyncio.Lock()
        self._looks = 0
        self.first = asyncio.Event()
        """Set once the router has answered."""
        self.default_model = ""

    @property
    def served(self) -> bool:
        """A worker serves at least one of them."""
        return any(model.workers for model in self._models.values())

    def named(self, name: str) -> pb.Model | None:
        """The model of that name, "" being the default one; `None`: not listed."""
        return self._models.get(name or self.default_model)

    def all(self) -> tuple[pb.Model, ...]:
        return tuple(self._models.values())

    async def look(self) -> None:
        """Ask the router now. Whoever comes while somebody asks shares the answer to the next asking.

        Raises:
            grpc.aio.AioRpcError: it did not answer; what was listed stays.
        """
        before = self._looks
        async with self._looking:
            if self._looks > before + 1:
                return
            request = router_pb2.RouterListModelsRequest()
            answer = await self._stub.ListModels(request, timeout=_ANSWER_WITHIN)
            self._models = {model.name: model for model in answer.models}
            self.default_model = answer.default_model
            self._looks += 1
        self.first.set()
        self._changed()

    async def run(self) -> None:
        """Keep the list fresh until cancelled."""
        while True:
            try:
                await self.look()
            except grpc.aio.AioRpcError:
                answered = False
            else:
                answered = True
            await asyncio.sleep(_EVERY if answered and self.served else _WHILE_NONE)
