"""Speculative decoding: a draft of some tokens ahead, and one pass of the target that checks them all.

A draft is a chain. It is good up to its first wrong token, in whose place the target says its own, so a step
gives at least one token and at most one more than was drafted.
"""

from dataclasses import dataclass

from diplex_core.words import Tokens


@dataclass(frozen=True, slots=True)
class Speculation:
    """How far a step drafts ahead, and how often each drafted token is right (0 to 1), given that all before
    it were."""

    draft_tokens: Tokens = 0
    acceptance: float = 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one sequence gains in a step, on average: 1 + a + a² + … + a^K.

        Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023, eq. 1.

        >>> round(Speculation(5, 0.7).tokens_per_step, 2)
        2.94
        >>> Speculation().tokens_per_step
        1.0
        """
        return float(sum(self.acceptance**ahead for ahead in range(self.draft_tokens + 1)))


NONE = Speculation()
