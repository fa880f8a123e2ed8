"""What a worker answers when it will not: each problem with its place, its numbers and its mend."""

from collections.abc import Iterable
from typing import Final

import grpc

from diplex.wire.status import Problem
from diplex_core.pool import NoRoom
from diplex_core.words import Blocks, EndReason, Seconds, Tokens
from diplex_workers.sequence import Verdict

# With these the same request may be taken later, or elsewhere: REFUSED, and the client asks again.
# With any other it never will: FAILED.
_PASSING: Final = frozenset(
    {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE}
)


def verdict(problem: Problem) -> Verdict:
    """REFUSED where asking again may help, else FAILED."""
    return Verdict(EndReason.REFUSED if problem.code in _PASSING else EndReason.FAILED, problem)


def no_room(room: NoRoom) -> Problem:
    return Problem(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request {room}. Mend: ask the router again",
        "NO_ROOM",
        metadata={"needed_blocks": str(room.needed_blocks), "free_blocks": str(room.free_blocks)},
    )


def grant_too_small(granted: Blocks, needed: Blocks, prompt: Tokens) -> Problem:
    return Problem(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the grant holds {granted} KV blocks, and the request needs {needed} for {prompt} tokens of prompt. "
        "Mend: ask the router again",
        "GRANT_TOO_SMALL",
        metadata={"needed_blocks": str(needed), "prompt_tokens": str(prompt)},
    )


def too_long(tokens: Tokens, context: Tokens) -> Problem:
    return Problem(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"the prompt has {tokens} tokens, and the model's context holds {context}, output included. "
        f"Mend: at most {context - 1} tokens of prompt",
        "PROMPT_TOO_LONG",
        metadata={"prompt_tokens": str(tokens), "context": str(context)},
        field="prompt",
    )


def no_chat_template(model: str) -> Problem:
    return Problem(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"model {model} has no chat template, so it takes no messages. Mend: send the prompt as text",
        "NO_CHAT_TEMPLATE",
        field="messages",
    )


def unknown_model(model: str, served: Iterable[str]) -> Problem:
    return Problem(
        grpc.StatusCode.NOT_FOUND,
        f"this worker does not serve model {model!r}. Mend: one of {', '.join(served)}",
        "UNKNOWN_MODEL",
        field="model",
    )


def engine_down(worker: str, problem: str) -> Problem:
    return Problem(
        grpc.StatusCode.UNAVAILABLE,
        f"worker {worker} takes nothing now: {problem}. Mend: ask the router again",
        "ENGINE_DOWN",
    )


def engine_lost(worker: str, problem: str) -> Problem:
    return Problem(
        grpc.StatusCode.UNAVAILABLE,
        f"the engine of worker {worker} was lost: {problem}. Mend: send the request again",
        "ENGINE_LOST",
    )


def draining(worker: str) -> Problem:
    return Problem(
        grpc.StatusCode.UNAVAILABLE,
        f"worker {worker} is draining and takes nothing new. Mend: ask the router again",
        "DRAINING",
    )


def taken_back(router: str) -> Problem:
    return Problem(
        grpc.StatusCode.ABORTED, f"router {router} took the claim back. Mend: ask again", "REVOKED"
    )


def gave_way(worker: str, tokens: Tokens) -> Problem:
    return Problem(
        grpc.StatusCode.ABORTED,
        f"worker {worker} has no room for it beyond token {tokens}, prompt included. "
        "Mend: ask again, with what was produced",
        "GAVE_WAY",
        metadata={"limit_tokens": str(tokens)},
    )


def window_shut(upto: Tokens, after: Seconds) -> Problem:
    return Problem(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the client let nothing beyond token {upto} through for {after:.0f} s. "
        "Mend: read faster, or move the window",
        "WINDOW_SHUT",
    )


def nothing_taken(after: Seconds) -> Problem:
    return Problem(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the client took nothing of what it was sent for {after:.0f} s, so what ran for it was ended. "
        "Mend: read the stream faster",
        "WINDOW_SHUT",
    )


def deadline_passed(after: Seconds) -> Problem:
    return Problem(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f"the request's deadline passed {after:.1f} s after it started. Mend: a longer timeout",
        "DEADLINE_EXCEEDED",
    )


def needs_a_grant() -> Problem:
    return Problem(
        grpc.StatusCode.UNAUTHENTICATED,
        "this worker takes requests with a router's grant only. Mend: send the request to the router",
        "NEEDS_GRANT",
    )


def number_in_use(seq: int) -> Problem:
    return Problem(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"sequence {seq} still runs on this stream. Mend: a new number for each start",
        "SEQ_IN_USE",
        field="seq",
    )
