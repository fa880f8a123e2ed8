"""diplex: two bands of LLM traffic, latency-tier and bulk, on one fleet.

    import diplex

    async with diplex.AsyncClient("127.0.0.1:7600") as client:
        async for chunk in client.stream("Once upon a time", tier="interactive"):
            print(chunk.text, end="")

`diplex.Client` is the same without `async`. Everything is loaded on first use: the import itself is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diplex.answers import Choice, Chunk, ModelInfo, Reply, Serving, Timing, TokenCount, Usage
    from diplex.blocking import BlockingStream, Client
    from diplex.client import AsyncClient
    from diplex.errors import (
        Cancelled,
        DeadlineExceeded,
        DiplexError,
        EngineFailed,
        InvalidRequest,
        Overloaded,
        PermissionDenied,
        Unauthenticated,
        Unavailable,
        UnknownModel,
        UnknownRequest,
    )
    from diplex.stream import TokenStream

_HOME = {
    "AsyncClient": "client",
    "BlockingStream": "blocking",
    "Cancelled": "errors",
    "Choice": "answers",
    "Chunk": "answers",
    "Client": "blocking",
    "DeadlineExceeded": "errors",
    "DiplexError": "errors",
    "EngineFailed": "errors",
    "InvalidRequest": "errors",
    "ModelInfo": "answers",
    "Overloaded": "errors",
    "PermissionDenied": "errors",
    "Reply": "answers",
    "Serving": "answers",
    "Timing": "answers",
    "TokenCount": "answers",
    "TokenStream": "stream",
    "Unauthenticated": "errors",
    "Unavailable": "errors",
    "UnknownModel": "errors",
    "UnknownRequest": "errors",
    "Usage": "answers",
}

__all__ = [
    "AsyncClient",
    "BlockingStream",
    "Cancelled",
    "Choice",
    "Chunk",
    "Client",
    "DeadlineExceeded",
    "DiplexError",
    "EngineFailed",
    "InvalidRequest",
    "ModelInfo",
    "Overloaded",
    "PermissionDenied",
    "Reply",
    "Serving",
    "Timing",
    "TokenCount",
    "TokenStream",
    "Unauthenticated",
    "Unavailable",
    "UnknownModel",
    "UnknownRequest",
    "Usage",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'diplex' has no attribute {name!r}")
    return getattr(import_module(f"diplex.{home}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
