"""What the client asks how long a prompt is: counted exactly where the model's tokenizer is at hand.

A tokenizer is loaded when a model that it fits is first listed; until then, and wherever none fits, a count
is the bound, as ever. The worker's count is the one that is charged: a tokenizer that it contradicts, by its
hash or by a count, counts no more for that model, and that is said once.
"""

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias

from diplex.tokens.sources import Source, given, known
from diplex.v1 import generation_pb2 as pb
from diplex.wire import simulated
from diplex.wire.blocks import block_hashes
from diplex.wire.prompt_count import PromptCount, count_without_tokenizer

if TYPE_CHECKING:
    from diplex.tokens.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

AT_ONCE: Final = 4096
"""A prompt of so many characters is counted where it stands (a millisecond); a longer one in a thread."""
_THREADS: Final = 2
"""Tokenizing is all computing: more threads would only take cores from the loop."""
_NEEDS: Final = ("tokenizers", "jinja2")

Tokenizers: TypeAlias = Mapping[str, str | os.PathLike[str]]
"""By model name: the path of its tokenizer.json or of the folder that holds it, or `qwen3`, `qwen2.5`."""


class Counter:
    """Counts for one client.

    Raises:
        ValueError: one of them is not there; the message ends in the mend.
        ImportError: they need packages that are not installed.
    """

    def __init__(self, tokenizers: Tokenizers | None = None) -> None:
        missing = [package for package in _NEEDS if find_spec(package) is None]
        if tokenizers and missing:
            raise ImportError(
                f"tokenizers need {' and '.join(missing)}. Mend: pip install 'diplex[tokenizers]'",
                name=missing[0],
            )
        self._given = {model: given(model, at) for model, at in (tokenizers or {}).items()}
        self._possible = not missing
        self._pool: ThreadPoolExecutor | None = None
        self._loaded: dict[Source, _Loaded] = {}
        self._wrong: set[tuple[str, str]] = set()  # model, and which kind of prompt it miscounts
        self._said: set[str] = set()
        self._loading: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End the threads; used again, there are new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    @property
    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="diplex-tokens")
        return self._pool

    # Which tokenizer.

    def follow(self, models: Iterable[pb.Model]) -> None:
        """Load what fits the models that are listed now, each tokenizer once; called on the event loop."""
        for model in models:
            source = self._source(model)
            if source is None or source in self._loaded:
                continue
            self._loaded[source] = _Loaded()
            task = asyncio.create_task(self._load(source, model.name), name=f"tokenizer of {model.name}")
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)

    async def settled(self) -> None:
        """Return once what was to be loaded is."""
        while self._loading:
            await asyncio.wait(self._loading)

    def _source(self, model: pb.Model) -> Source | None:
        own = self._given.get(model.name)
        if model.tokenizer_hash == simulated.TOKENIZER_HASH:
            if own is not None:
                self._say(
                    f"{model.name} is simulated, four bytes a token: its tokenizer {own} counts nothing"
                )
            return None
        return own or (known(model.name) if self._possible else None)

    async def _load(self, source: Source, model: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._loaded[source] = await loop.run_in_executor(self._threads, _load, source)
        except (ValueError, ImportError) as error:
            self._say(
                f"the tokenizer of {model} cannot be read: {source}: {error}. Its prompts are bounded, not "
                "counted. Mend: another tokenizer.json"
            )

    def _tokenizer(self, model: pb.Model) -> "Tokenizer | None":
        """The tokenizer that counts for a model now."""
        source = self._source(model)
        loaded = self._loaded.get(source) if source is not None else None
        if loaded is None or loaded.tokenizer is None:
            return None
        if model.tokenizer_hash and model.tokenizer_hash != loaded.hash:
            self._say(
                f"{source} is not the tokenizer of {model.name}'s workers ({loaded.hash}, theirs "
                f"{model.tokenizer_hash}): prompts are bounded, not counted. Mend: the model's own"
            )
            return None
        return loaded.tokenizer

    # Counting.

    def at_once(self, prompt: pb.Prompt) -> bool:
        """It is counted in about a millisecond: no need to go to a thread."""
        return _size_of(prompt) <= AT_ONCE

    async def counted(self, prompt: pb.Prompt, model: pb.Model) -> PromptCount:
        """The prompt's count, worked out in a thread where it is long.

        Raises:
            Problem: INVALID_ARGUMENT for an empty prompt, or a chat that is no JSON array of messages.
        """
        if self.at_once(prompt):
            return self.count(prompt, model)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.count, prompt, model)

    def count(self, prompt: pb.Prompt, model: pb.Model) -> PromptCount:
        """The prompt's count, here and now; from any thread.

        Raises:
            Problem: INVALID_ARGUMENT for an empty prompt, or a chat that is no JSON array of messages.
        """
        kind = prompt.WhichOneof("content")
        tokenizer = self._tokenizer(model)
        if tokenizer is None or kind in (None, "ids") or (model.name, kind) in self._wrong:
            return count_without_tokenizer(prompt, model)
        from diplex.tokens.template import Unrenderable

        try:
            ids = tokenizer.ids_of(prompt)
        except Unrenderable:
            return count_without_tokenizer(prompt, model)  # whether the chat can be had, the worker decides
        hashes = block_hashes(ids, model.block_tokens, model.name)
        return PromptCount(len(ids), True, hashes, model.block_tokens if hashes else 0)

    def worker_counted(self, model: pb.Model, prompt: pb.Prompt, ours: PromptCount, theirs: int) -> None:
        """A worker has counted a prompt, too."""
        kind = prompt.WhichOneof("content") or ""
        if not ours.exact or ours.tokens == theirs or kind == "ids" or self._tokenizer(model) is None:
            return
        self._wrong.add((model.name, kind))
        self._say(
            f"{model.name}: its workers do not count {kind} prompts as the tokenizer here does ({theirs} "
            f"tokens, not {ours.tokens}): from now on they are bounded. Mend: the model's own tokenizer and "
            "chat template"
        )

    def _say(self, words: str) -> None:
        if words not in self._said:
            self._said.add(words)
            _log.warning("%s", words)


class _Loaded:
    """A tokenizer and its hash; without one: it is still being read, or cannot be."""

    def __init__(self, tokenizer: "Tokenizer | None" = None, hash: str = "") -> None:
        self.tokenizer = tokenizer
        self.hash = hash


def _load(source: Source) -> _Loaded:
    from diplex.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer(source)
    return _Loaded(tokenizer, tokenizer.hash())


def _size_of(prompt: pb.Prompt) -> int:
    match prompt.WhichOneof("content"):
        case "text":
            return len(prompt.text)
        case "chat":
            return len(prompt.chat.messages) + len(prompt.chat.tools)
        case "ids":
            return len(prompt.ids.ids)
    return 0
