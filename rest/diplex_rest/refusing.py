"""Responses that are errors: OpenAI's body for whatever was raised on the way."""

from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from diplex import DiplexError
from diplex_rest.openai.errors import INVALID, SERVER, ApiError, error_of


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


HANDLERS: Final[dict[int | type[Exception], ExceptionHandler]] = {
    ApiError: _api_error,
    DiplexError: _sdk_error,
    HTTPException: _http_error,
    # The outermost: answers with OpenAI's body, and Starlette raises it on to the log.
    Exception: _broken,
}


def refusing(app: ASGIApp) -> ASGIApp:
    """An application with these answers to what it raises, without a router around it."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ApiError as error:
            await respond(error)(scope, receive, send)
        except DiplexError as error:
            await respond(error_of(error.problem))(scope, receive, send)

    return ServerErrorMiddleware(answering, handler=_broken)
