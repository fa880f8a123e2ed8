"""The short questions that llama.cpp's server answers at once, beside its streams: all of them exact."""

import json
from collections.abc import Sequence
from typing import Any

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import Tokens
from diplex_workers.engines.openai_http import Upstream


class Questions:
    """One running server. Every method raises Problem: UNAVAILABLE where it is gone."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def ids_of(self, prompt: pb.Prompt) -> tuple[int, ...]:
        """A prompt's token ids, the chat template included.

        Raises:
            Problem: INVALID_ARGUMENT for an empty prompt, and for a chat that it cannot render.
        """
        match prompt.WhichOneof("content"):
            case "ids":
                ids = tuple(prompt.ids.ids)
            case "text":
                ids = await self.tokenise(prompt.text, special=True)
            case "chat":
                ids = await self.tokenise(await self._rendered(prompt.chat), special=True)
            case _:
                ids = ()
        if not ids:
            raise _bad("the prompt is empty. Mend: give it text, messages or token ids")
        return ids

    async def tokenise(self, text: str, *, special: bool) -> tuple[int, ...]:
        """A text's ids. `special`: read it as a prompt, names of control tokens and the first token included;
        else as the text that it is."""
        body = {"content": text, "add_special": special, "parse_special": special}
        return tuple((await self._upstream.post("/tokenize", body))["tokens"])

    async def text_of(self, ids: Sequence[int]) -> str:
        return str((await self._upstream.post("/detokenize", {"tokens": list(ids)}))["content"])

    async def busy_slots(self) -> list[dict[str, Any]]:
        """The slots that work now, as `/slots` describes them."""
        return [slot for slot in await self._upstream.get("/slots") if slot["is_processing"]]

    async def _rendered(self, chat: pb.Chat) -> str:
        try:
            body = {"messages": json.loads(chat.messages)}
            if chat.tools:
                body["tools"] = json.loads(chat.tools)
        except ValueError as error:
            raise _bad(f"messages or tools are no JSON: {error}. Mend: JSON arrays") from error
        if not body["messages"]:
            raise _bad("messages are empty. Mend: at least one message")
        try:
            return str((await self._upstream.post("/apply-template", body))["prompt"])
        except Problem as problem:
            # What its template cannot take (an image, say) llama.cpp calls its own failure.
            if problem.code is StatusCode.INTERNAL:
                raise _bad(problem.message) from problem
            raise


def tokens_in(slot: dict[str, Any]) -> Tokens:
    """Tokens of a slot's sequence that lie in the cache now."""
    produced = sum(token.get("n_decoded", 0) for token in slot.get("next_token", ()))
    return int(slot.get("n_prompt_tokens_processed", 0)) + int(produced)


def _bad(message: str) -> Problem:
    return Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_PROMPT", field="prompt")
