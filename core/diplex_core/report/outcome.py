"""What became of one request, as whoever sent it saw it."""

from dataclasses import dataclass
from enum import StrEnum

from diplex_core.words import Seconds, Tier, Tokens


class Ending(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    REJECTED = "rejected"  # refused for want of room, or because its target could not be met any more
    FAILED = "failed"  # everything else that went wrong


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request that arrived. `None`: it never came to that.

    Attributes:
        tier: the tier that was asked for; `served_tier`: the one that it was granted, "" for none.
        tenant, worker: "" where it was never granted.
        arrived: seconds from the beginning of the run to when it was due; all durations count from there.
        queued: from ask to grant, on the router's clock.
        tpot: mean time per output token after the first; `None` for fewer than two tokens.
        longest_gap: the longest time between two pieces of its output.
        cached_tokens: prompt tokens that came from resident KV blocks.
        problem: the reason of a rejection or a failure, in a word or two; "" where nothing went wrong.
        detail: the same in a sentence, with the mend.
        retry_given: refusals that came with a time to try again.
        retry_obeyed: how often it was sent again after exactly that time.
    """

    request_id: str
    model: str
    tier: str
    arrived: Seconds
    ended: Ending
    served_tier: str = ""
    tenant: str = ""
    worker: str = ""
    queued: Seconds | None = None
    ttft: Seconds | None = None
    tpot: Seconds | None = None
    longest_gap: Seconds | None = None
    e2e: Seconds | None = None
    prompt_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    output_tokens: Tokens = 0
    problem: str = ""
    detail: str = ""
    retry_given: int = 0
    retry_obeyed: int = 0

    @property
    def completed(self) -> bool:
        return self.ended is Ending.COMPLETED

    @property
    def degraded(self) -> bool:
        """It was granted under another tier than it asked for."""
        return self.served_tier not in ("", self.tier)

    def met(self, tier: Tier) -> bool:
        """It met every target of the tier that it asked for. What was rejected, failed or degraded missed."""
        if not self.completed or self.degraded or self.ttft is None or self.e2e is None:
            return False
        return tier.kept(self.model, prompt=self.prompt_tokens, ttft=self.ttft, tpot=self.tpot, e2e=self.e2e)
