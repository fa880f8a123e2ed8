"""A server that answers OpenAI's HTTP API, as `attach` sees it."""

from collections.abc import Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Seconds, Tokens
from diplex_workers.engines.attached import AttachSettings, Teller
from diplex_workers.engines.dialects import DIALECTS
from diplex_workers.engines.dialects.dialect import Gauges, Offered
from diplex_workers.engines.engine import Output
from diplex_workers.engines.openai_http import NOT_FOUND, Upstream, unavailable, unreadable
from diplex_workers.engines.openai_wire import AnswerReader, request_of
from diplex_workers.engines.runs import Run

# What a server may take to say that it is well, and to compute one token.
HEALTH: Final[Seconds] = 2.0
PROOF: Final[Seconds] = 10.0


class OpenAiServer:
    """One of them, by its dialect."""

    can_resume = False

    def __init__(self, settings: AttachSettings) -> None:
        self._settings = settings
        self._dialect = DIALECTS[settings.api]
        self._upstream = Upstream(settings.url, settings.api_key)
        self._model = settings.upstream_model or settings.model
        self._has_tokenizer = True  # until it says otherwise
        self.name = self._upstream.name
        self.exact = self._dialect.exact
        self.priority_flag, self.sooner = self._dialect.priority_flag, self._dialect.sooner

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._upstream.__aexit__()

    async def alive(self) -> None:
        await self._upstream.get_text(self._dialect.health, within=HEALTH)

    async def introduced(self) -> Offered:
        entry = self._entry(await self._upstream.get("/v1/models"))
        try:
            offered = await self._dialect.offered(self._upstream, entry)
        except (ValueError, TypeError, AttributeError) as error:
            what = f"{self.name} does not answer as {self._settings.api} does: {error!r}"
            raise unreadable(f"{what}. Mend: the package's engine.api") from error
        self._model, self._has_tokenizer = str(entry["id"]), True
        return offered

    def _entry(self, models: Any) -> Mapping[str, Any]:
        try:
            entries: dict[str, Mapping[str, Any]] = {entry["id"]: entry for entry in models["data"]}
        except (KeyError, TypeError) as error:
            raise unavailable(f"{self.name}/v1/models is no list of models") from error
        wanted = self._settings.upstream_model or self._settings.model
        if wanted in entries:
            return entries[wanted]
        if len(entries) == 1 and self._settings.upstream_model is None:
            return next(iter(entries.values()))
        message = (
            f"{self.name} has no model {wanted}, but {', '.join(entries) or 'none'}. "
            "Mend: the package's engine.upstream_model"
        )
        raise Problem(StatusCode.FAILED_PRECONDITION, message, NOT_FOUND)

    async def proved(self) -> None:
        body = {"model": self._model, "prompt": "1", "max_tokens": 1}
        await self._upstream.post("/v1/completions", body, within=PROOF)

    async def gauges(self) -> Gauges:
        try:
            return await self._dialect.gauges(self._upstream)
        except (Problem, ValueError, TypeError, AttributeError):
            return Gauges()  # unknown, which is not zero

    async def count(self, prompt: pb.Prompt) -> tuple[Tokens, tuple[int, ...] | None] | None:
        """Its own count; `None` where it has no tokenizer, or none that answers now."""
        if not self._has_tokenizer:
            return None
        try:
            tokens = await self._dialect.count(self._upstream, self._model, prompt)
        except Problem as problem:
            if problem.code is StatusCode.INVALID_ARGUMENT:
                raise
            self._has_tokenizer = problem.reason != NOT_FOUND
        except (KeyError, TypeError, AttributeError):
            self._has_tokenizer = False  # it answers, but not as this API's tokenizer does
        else:
            return None if tokens is None else (tokens, None)
        return None

    async def talk(self, run: Run, host: Teller, priority: int | None) -> Tokens | None:
        path, body = request_of(run.job, self._model, self._dialect, priority)
        reader = AnswerReader(run, self._dialect.produced)
        async with aclosing(self._upstream.events(path, body)) as stream:
            async for chunks in stream:
                outputs: list[Output] = []
                try:
                    for chunk in chunks:
                        outputs += reader.take(chunk)
                finally:  # what came before an error is told before it
                    if outputs:
                        host.deliver(outputs)
        host.deliver(reader.finish())
        return reader.prompt_tokens
