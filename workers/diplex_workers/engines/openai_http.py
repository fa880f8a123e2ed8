"""Talking to an engine's HTTP server: JSON there, JSON or a stream of events back, errors as `Problem`s."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from grpc import StatusCode

from diplex.wire.status import Problem
from diplex_workers.engines.sse import EventReader

# Reasons of Problems that callers go by: nobody listens there; it listens, and has no such thing.
UNREACHABLE: Final = "ENGINE_UNREACHABLE"
NOT_FOUND: Final = "ENGINE_NOT_FOUND"
# Most of an upstream error's own words that are passed on, in characters.
WORDS: Final = 400
# Below uvicorn's and llama.cpp's 5 s, so that no request is written to a connection that just closed.
_KEEP_IDLE_S: Final = 2.0
_CONNECT_S: Final = 5.0


class Upstream:
    """One engine's HTTP server. An async context: leaving it closes every connection.

    Args:
        url: where it listens, with or without `/v1` at its end.
        api_key: sent as a bearer token; `None`: none. Never part of a message.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        # What messages call it: an address may hold a password.
        parts = urlsplit(self.url)
        self.name = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            # No limit of its own: how many run at once is decided by the worker's pool.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, *, within: float = 5.0) -> Any:
        """The JSON document at a path; `None` for an empty answer.

        Raises:
            Problem: UNAVAILABLE where the server does not answer in `within` seconds, else by its status.
        """
        return _parsed(await self.get_text(path, within=within), self.name + path)

    async def get_text(self, path: str, *, within: float = 5.0) -> str:
        """The same as it came: for what is no JSON."""
        async with self._answer("GET", path, None, within) as response:
            return await response.text()

    async def post(self, path: str, body: Mapping[str, Any], *, within: float = 30.0) -> Any:
        """The JSON answer to a JSON question. Raises as `get` does."""
        async with self._answer("POST", path, body, within) as response:
            return _parsed(await response.text(), self.name + path)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """The events of a streamed answer, as they come: each list is what one read brought.

        Closing the iterator, or cancelling who waits on it, closes the connection: to these servers that
        is the order to stop. Wrap it in `contextlib.aclosing`.

        Raises:
            Problem: by the status; UNAVAILABLE where the server went away before it was done.
        """
        reader = EventReader()
        async with self._answer("POST", path, body, None) as response:
            while not reader.done and (data := await response.content.readany()):
                try:
                    events = reader.feed(data)
                except ValueError as error:
                    raise unreadable(f"{self.name}{path}: {error}") from error
                if events:
                    yield events

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, within: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head, good statuses only. The connection is kept only if it was read to its end."""
        where = self.name + path
        if self._session is None:
            raise unavailable(f"{where}: the engine's client is not running")
        data = None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        if within is None:
            # llama.cpp closes after a stream without saying so: taken up again, the connection would fail.
            headers["Connection"] = "close"
        try:
            async with asyncio.timeout(within):
                response = await self._session.request(method, self.url + path, data=data, headers=headers)
                try:
                    if response.status >= 400:
                        raise refused(where, response, await response.text(errors="replace"))
                    yield response
                finally:
                    response.close()
        except TimeoutError as error:
            raise unavailable(f"{where} did not answer within {within or _CONNECT_S:g} s") from error
        except aiohttp.ClientConnectorError as error:
            message = f"{where} cannot be reached: {error.os_error.strerror or error}"
            raise Problem(StatusCode.UNAVAILABLE, message, UNREACHABLE) from error
        except (aiohttp.ClientError, OSError) as error:
            raise unavailable(f"{where} went away: {str(error) or type(error).__name__}") from error


def refused(where: str, response: aiohttp.ClientResponse, text: str) -> Problem:
    """What an upstream's error status means for diplex's client, in the upstream's own words."""
    return problem_of(response.status, words_of(text), where, _retry_after(response.headers))


def problem_of(status: int, words: str, where: str, retry_after: float | None = None) -> Problem:
    """A Problem from an HTTP status, and what was said with it."""
    match status:
        case 400 | 413 | 422:
            return Problem(
                StatusCode.INVALID_ARGUMENT, words or f"{where} answered {status}", "ENGINE_REFUSED"
            )
        case 401 | 403:
            message = f"{where} wants another API key ({status}). Mend: the package's engine.api_key_env"
            return Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_DENIED")
        case 404 | 405:
            message = f"{where} answered {status}: {words}. Mend: the package's engine.url and upstream_model"
            return Problem(StatusCode.FAILED_PRECONDITION, message, NOT_FOUND)
        case 429:
            message = f"{where} is overloaded: {words}"
            return Problem(
                StatusCode.RESOURCE_EXHAUSTED, message, "ENGINE_OVERLOADED", retry_after=retry_after
            )
        case 502 | 503 | 504:
            return unavailable(f"{where} answered {status}: {words}", retry_after)
        case _:
            return Problem(StatusCode.INTERNAL, f"{where} answered {status}: {words}", "ENGINE_ERROR")


def unavailable(message: str, retry_after: float | None = None) -> Problem:
    """The engine does not answer, or went away."""
    return Problem(StatusCode.UNAVAILABLE, message, "ENGINE_UNAVAILABLE", retry_after=retry_after)


def unreadable(message: str) -> Problem:
    """The engine said something that its interface does not have."""
    return Problem(StatusCode.INTERNAL, message, "ENGINE_UNREADABLE")


def words_of(text: str) -> str:
    """The sentence inside an error body: OpenAI's `error.message`, vLLM's older `message`, FastAPI's
    `detail`; else the body itself, shortened.

    >>> words_of('{"error": {"message": "too long", "type": "BadRequestError"}}')
    'too long'
    """
    try:
        body = json.loads(text)
    except ValueError:
        return text.strip()[:WORDS]
    if isinstance(body, dict):
        error = body.get("error", body)
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail") or error
        body = error
    return str(body)[:WORDS]


def status_of(error: object, default: int = 500) -> int:
    """The HTTP status inside an error event, where a stream had begun before it went wrong."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else default


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None


def _parsed(text: str, where: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise unreadable(f"{where}: {error}") from error
