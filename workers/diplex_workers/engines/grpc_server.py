"""A server that answers one of the gRPC services of `smg-grpc-proto`, as `attach` sees it.

It takes ids and sends ids, so text goes through a tokenizer here: the configured one, else the server's own,
which it sends as a zip. Without either it serves prompts of ids, and its answers have ids and no text.
Because it takes ids it goes on behind given output too.
"""

import asyncio
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

import grpc
from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason, Seconds, Tokens
from diplex_workers.engines.attached import AttachSettings, Teller
from diplex_workers.engines.dialects.dialect import Gauges, Offered
from diplex_workers.engines.engine import Counted, Job
from diplex_workers.engines.grpc_dialects import GRPC_DIALECTS
from diplex_workers.engines.openai_http import NOT_FOUND, UNREACHABLE, unavailable
from diplex_workers.engines.runs import Run

_HEALTH: Final[Seconds] = 2.0
_ASK: Final[Seconds] = 5.0
_PROOF: Final[Seconds] = 10.0
_TOKENIZER: Final[Seconds] = 60.0
_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_ENDS: Final[Mapping[str, EndReason]] = {
    "stop": EndReason.STOP,
    "stop_word": EndReason.STOP,
    "length": EndReason.LENGTH,
}


class Reader(Protocol):
    """A model's tokenizer and chat template."""

    def ids_of(self, prompt: pb.Prompt) -> Sequence[int]:
        """Raises: ValueError: it cannot be read."""

    def writer(self) -> Callable[[Sequence[int]], str]:
        """Told an answer's ids as they come, says the text that is whole by then."""


Load: TypeAlias = Callable[[str | Path], Reader]
"""Loads a tokenizer from its file or folder; raises ValueError."""


class GrpcServer:
    """One of them, by its dialect.

    Args:
        load: how a tokenizer is loaded; `None`: there is nobody to load one.
    """

    exact = False
    can_resume = True
    priority_flag = ""
    sooner = 0

    def __init__(self, settings: AttachSettings, load: Load | None) -> None:
        self._settings = settings
        self._load = load
        self._dialect = GRPC_DIALECTS[settings.api]()
        self._reader: Reader | None = None
        self._asked_for_reader = False
        self._channel: Any = None
        self._stub: Any = None
        self._address = settings.url.rpartition("//")[2]
        self.name = f"grpc://{self._address}"

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        self._stub = self._dialect.stub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def alive(self) -> None:
        try:
            health = await self._stub.HealthCheck(self._dialect.pb.HealthCheckRequest(), timeout=_HEALTH)
        except grpc.aio.AioRpcError as error:
            raise self._problem(error) from error
        if wrong := self._dialect.well(health):
            raise unavailable(f"{self.name} is not well: {wrong}")

    async def introduced(self) -> Offered:
        try:
            model, offered = await self._dialect.offered(self._stub, _ASK)
        except grpc.aio.AioRpcError as error:
            raise self._problem(error) from error
        wanted = self._settings.upstream_model
        if wanted is not None and model != wanted:
            message = (
                f"{self.name} has no model {wanted}, but {model}. Mend: the package's engine.upstream_model"
            )
            raise Problem(StatusCode.FAILED_PRECONDITION, message, NOT_FOUND)
        if not self._asked_for_reader:
            self._reader, self._asked_for_reader = await self._its_reader(), True
        return offered

    async def proved(self) -> None:
        job = Job(Claim(0, 0), "", pb.Prompt(), Counted(1), pb.Sampling(), 1)
        try:
            call = self._stub.Generate(self._dialect.request(job, "diplex-proof", [1], 1), timeout=_PROOF)
            async for _ in call:
                return
        except grpc.aio.AioRpcError as error:
            raise self._problem(error) from error

    async def gauges(self) -> Gauges:
        with suppress(grpc.aio.AioRpcError):
            return await self._dialect.gauges(self._stub, _ASK)
        return Gauges()

    async def count(self, prompt: pb.Prompt) -> tuple[Tokens, tuple[int, ...] | None] | None:
        if self._reader is None:
            return None
        ids = await self._ids_of(prompt)
        return len(ids), ids

    async def talk(self, run: Run, host: Teller, priority: int | None) -> Tokens | None:
        job = run.job
        prompt = job.counted.ids or await self._ids_of(job.prompt)
        before = tuple(job.resume.ids) if job.resume is not None else ()
        left = job.max_tokens - (job.resume.from_index if job.resume is not None else 0)
        if job.resume is not None and len(before) != job.resume.from_index:
            message = f"{self.name} goes on behind token ids only. Mend: resume with the ids"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "CANNOT_RESUME")
        name = f"diplex-{job.claim.lease_id:x}-{job.claim.attempt}"
        request = self._dialect.request(job, name, (*prompt, *before), left)
        answer = _Answer(run, self._dialect, self._reader)
        over = False
        try:
            async for response in self._stub.Generate(request):
                host.deliver(answer.take(response))
            over = True
        except grpc.aio.AioRpcError as error:
            over = True
            raise self._problem(error) from error
        finally:
            if not over:  # cancelled: said aloud, because not every servicer notices a call that ended
                with suppress(grpc.aio.AioRpcError):
                    await self._stub.Abort(self._dialect.abort(name), timeout=_HEALTH)
        return answer.prompt_tokens

    async def _ids_of(self, prompt: pb.Prompt) -> tuple[int, ...]:
        if prompt.WhichOneof("content") == "ids":
            return tuple(prompt.ids.ids)
        if self._reader is None:
            message = f"{self.name} takes token ids, and sends no tokenizer. Mend: the model's tokenizer key"
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "NO_TOKENIZER")
        try:
            return tuple(await asyncio.to_thread(self._reader.ids_of, prompt))
        except ValueError as error:
            raise Problem(StatusCode.INVALID_ARGUMENT, str(error), "BAD_PROMPT", field="prompt") from error

    async def _its_reader(self) -> Reader | None:
        """The configured tokenizer, else the server's own; `None`: it sends none that can be read."""
        if self._load is None:
            return None
        if self._settings.tokenizer is not None:
            return await asyncio.to_thread(self._load, self._settings.tokenizer)
        data, digest = bytearray(), ""
        try:
            request = self._dialect.common.GetTokenizerRequest()
            async for chunk in self._stub.GetTokenizer(request, timeout=_TOKENIZER):
                data += chunk.data
                digest = chunk.sha256 or digest
        except grpc.aio.AioRpcError:
            return None
        if digest and sha256(data).hexdigest() != digest:
            return None
        return await asyncio.to_thread(_unpacked, bytes(data), self._load)

    def _problem(self, error: grpc.aio.AioRpcError) -> Problem:
        code, words = error.code(), error.details() or ""
        match code:
            case StatusCode.UNAVAILABLE if "connect" in words.lower():
                return Problem(code, f"{self.name} cannot be reached: {words}", UNREACHABLE)
            case StatusCode.UNAVAILABLE | StatusCode.CANCELLED:
                return unavailable(f"{self.name} went away: {words}")
            case StatusCode.DEADLINE_EXCEEDED:
                return unavailable(f"{self.name} did not answer in time")
            case StatusCode.INVALID_ARGUMENT | StatusCode.OUT_OF_RANGE:
                return Problem(StatusCode.INVALID_ARGUMENT, words, "ENGINE_REFUSED")
            case StatusCode.RESOURCE_EXHAUSTED:
                return Problem(code, f"{self.name} is overloaded: {words}", "ENGINE_OVERLOADED")
            case StatusCode.UNIMPLEMENTED:
                message = f"{self.name} has no such call: {words}. Mend: the package's engine.api and url"
                return Problem(StatusCode.FAILED_PRECONDITION, message, NOT_FOUND)
        return Problem(StatusCode.INTERNAL, f"{self.name} answered {code.name}: {words}", "ENGINE_ERROR")


class _Answer:
    """Reads one answer's responses into outputs."""

    def __init__(self, run: Run, dialect: Any, reader: Reader | None) -> None:
        self._run = run
        self._dialect = dialect
        self._write = [reader.writer() if reader else _no_text for _ in range(run.job.choices)]
        self.prompt_tokens: Tokens | None = None

    def take(self, response: Any) -> list[Any]:
        """The outputs of one response.

        Raises:
            Problem: UNAVAILABLE, the server gave the answer up.
        """
        match response.WhichOneof("response"):
            case "chunk":
                return self._tokens(response.chunk, response.chunk.token_ids)
            case "complete":
                return self._ended(response.complete)
        return []

    def _tokens(self, part: Any, ids: Sequence[int]) -> list[Any]:
        index = self._dialect.index(part)
        return [self._run.tokens(index, len(ids), ids, self._write[index](ids))] if ids else []

    def _ended(self, complete: Any) -> list[Any]:
        self.prompt_tokens = complete.prompt_tokens or None
        index, reason = self._dialect.index(complete), complete.finish_reason
        if reason not in _ENDS:
            raise unavailable(f"the attached server gave the answer up: finish_reason {reason!r}")
        # A short answer may come in its end alone.
        rest = self._tokens(complete, self._dialect.ids(complete)[self._run.sent[index] :])
        return [*rest, self._run.end(index, _ENDS[reason], cached=complete.cached_tokens)]


def _no_text(ids: Sequence[int]) -> str:
    return ""


def _unpacked(data: bytes, load: Load) -> Reader | None:
    with TemporaryDirectory(prefix="diplex-tokenizer-") as folder, suppress(ValueError, zipfile.BadZipFile):
        with zipfile.ZipFile(BytesIO(data)) as files:
            files.extractall(folder)  # which keeps inside of it
        found = next(Path(folder).rglob("tokenizer.json"), None)
        return load(found) if found is not None else None
    return None
