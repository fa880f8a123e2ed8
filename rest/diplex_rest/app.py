"""The routes."""

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from diplex import AsyncClient, DiplexError
from diplex_rest.direct import Turns
from diplex_rest.front import Front
from diplex_rest.generating import Generating
from diplex_rest.listing import Listing
from diplex_rest.metrics import Metrics
from diplex_rest.openai.errors import INVALID, SERVER, ApiError, error_of
from diplex_rest.openai.request import read_chat, read_text
from diplex_rest.openai.response import ChatShape, TextShape
from diplex_rest.spans import HttpSpans
from diplex_rest.status_pages import StatusPages
from diplex_rest.underway import Underway


def make_app(client: AsyncClient, underway: Underway) -> ASGIApp:
    """The shim as an ASGI application, on a client that is open for as long as it serves.

    Args:
        underway: where the answers that are being made are noted.
    """
    metrics = Metrics()
    turns = Turns(metrics)
    listing, pages = Listing(client), StatusPages(client, metrics)
    chat = Generating(client, metrics, turns, underway, ChatShape(), read_chat)
    text = Generating(client, metrics, turns, underway, TextShape(), read_text)
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
        exception_handlers={
            ApiError: _api_error,
            DiplexError: _sdk_error,
            HTTPException: _http_error,
            # The outermost: answers with OpenAI's body, and Starlette raises it on to the log.
            Exception: _broken,
        },
    )
    return Front(app, metrics, HttpSpans())


def respond(error: ApiError) -> Response:
    """The response that an error is."""
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, headers, media_type="application/json")


def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return respond(error)


def _sdk_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DiplexError)
    return respond(error_of(error.problem))


def _http_error(request: Request, error: Exception) -> Response:
    """Paths that nobody knows, and methods that a path does not have."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    message = f"{request.method} {request.url.path}: {status.phrase}. Mend: see docs/reference/rest.md"
    code = status.name.lower()
    response = respond(ApiError(status, message, type=INVALID, code=code))
    response.headers.update(error.headers or {})
    return response


def _broken(request: Request, error: Exception) -> Response:
    message = "the shim broke on this request; its log says where. Mend: report it with the request's id"
    return respond(ApiError(500, message, type=SERVER, code="internal_error"))
