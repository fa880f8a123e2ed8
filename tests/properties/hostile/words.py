"""What is said on the wires of the model, where the core has no value for it."""

from dataclasses import dataclass

from diplex_core.events import Ask, Granted, Queued, Refused, Revoked
from diplex_core.words import BlockHash, Blocks, Claim, EndReason, Seconds, Tokens


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as a router signs it: what the core granted, in the name and the life of that router."""

    granted: Granted
    router: str
    epoch: int

    @property
    def claim(self) -> Claim:
        return self.granted.claim


# Client to router, on its session.


@dataclass(frozen=True, slots=True)
class AskSaid:
    ask_id: int
    ask: Ask


@dataclass(frozen=True, slots=True)
class WithdrawSaid:
    ask_id: int


# Router to client.


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, and with a grant its signature."""

    ask_id: int
    decision: Queued | Granted | Refused | Revoked
    grant: Grant | None = None


# Router to worker, on a link; `StopClaim` and `RaiseClaim` are the core's own.


@dataclass(frozen=True, slots=True)
class Hello:
    router: str
    epoch: int


# Client to worker, on a stream.


@dataclass(frozen=True, slots=True)
class Start:
    """A grant is shown. `prompt`: the true count, which the worker finds out; `from_index`: resume there."""

    grant: Grant
    model: str
    prompt: Tokens
    hashes: tuple[BlockHash, ...] = ()
    hash_block_tokens: Tokens = 0
    from_index: Tokens = 0
    timeout: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    pass


# Worker to client.


@dataclass(frozen=True, slots=True)
class TokensSaid:
    """`count` tokens of one choice, the first of them at `index` of the whole output."""

    request_id: str
    choice: int
    index: Tokens
    count: Tokens


@dataclass(frozen=True, slots=True)
class DoneSaid:
    """The last word. `code`: of its error, empty: none; `produced`: by choice, of all attempts together."""

    reason: EndReason
    code: str = ""
    why: str = ""
    needed_blocks: Blocks = 0
    prompt_tokens: Tokens = 0
    produced: tuple[Tokens, ...] = ()
