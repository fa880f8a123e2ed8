"""The routes."""

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from diplex import AsyncClient
from diplex_rest.body import Reader
from diplex_rest.direct import Turns
from diplex_rest.front import Front
from diplex_rest.generating import Generating
from diplex_rest.listing import Listing
from diplex_rest.metrics import Metrics
from diplex_rest.openai.request import read_chat, read_text
from diplex_rest.openai.response import ChatShape, TextShape
from diplex_rest.refusing import HANDLERS, refusing
from diplex_rest.spans import HttpSpans
from diplex_rest.status_pages import StatusPages
from diplex_rest.underway import Underway


def make_app(client: AsyncClient, underway: Underway, reader: Reader) -> ASGIApp:
    """The shim as an ASGI application, on a client that is open for as long as it serves.

    Args:
        underway: where the answers that are being made are noted.
        reader: reads bodies; open for as long as it serves, too.
    """
    metrics = Metrics()
    turns = Turns(metrics)
    listing, pages = Listing(client), StatusPages(client, metrics)
    chat = Generating(client, metrics, turns, underway, reader, ChatShape(), read_chat)
    text = Generating(client, metrics, turns, underway, reader, TextShape(), read_text)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", text, methods=["POST"]),
            Route("/v1/models", listing.all),
            Route("/v1/models/{id:path}", listing.one),
            Route("/health", pages.health),
            Route("/ready", pages.ready),
            Route("/metrics", pages.metrics),
        ],
        exception_handlers=HANDLERS,
    )
    short = ShortCut({"/v1/chat/completions": refusing(chat), "/v1/completions": refusing(text)}, app)
    return Front(short, metrics, HttpSpans())


class ShortCut:
    """What nearly every request asks for is found at once; Starlette's way there costs more than reading the
    request does. All else, other methods of these paths too, is Starlette's.

    Args:
        posted: applications by the path that is posted to.
    """

    def __init__(self, posted: Mapping[str, ASGIApp], others: ASGIApp) -> None:
        self._posted = posted
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._posted.get(scope["path"]) if scope.get("method") == "POST" else None
        await (app or self._others)(scope, receive, send)
