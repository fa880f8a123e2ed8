"""What tensor parallelism adds to a pass: the ranks add up their parts of the activations, twice a layer.

Behind attention's output projection and behind the FFN's every rank holds a part of the sum for each token of
the pass, and needs the whole before it can go on: an all-reduce of `hidden` BF16 numbers a token. Each rank
sends its part once and receives the sum once. For two ranks that is what any algorithm moves; for more it is
what switches that add on the way need (NVLink SHARP), and rings move up to twice that.

Source: Shoeybi et al., "Megatron-LM", 2019, §3: two all-reduces a layer in the forward pass.
"""

from dataclasses import dataclass
from typing import Final

from diplex_core.model.catalogue import Link, Model
from diplex_core.words import Seconds

_A_LAYER: Final = 2
_BF16: Final = 2


@dataclass(frozen=True, slots=True)
class AllReduces:
    """The all-reduces of one pass of a model that is split over `ranks`."""

    ranks: int
    link: Link
    count: int
    token_bytes: int  # of all of them together, one direction

    def moving(self, tokens: float) -> Seconds:
        """Time in which the bytes of a pass cross the link at its full rate."""
        return tokens * self.token_bytes / self.link.bandwidth

    @property
    def waiting(self) -> Seconds:
        """Time that their latencies take together, however small they are."""
        return self.count * self.link.latency


def all_reduces(model: Model, ranks: int, link: Link) -> AllReduces:
    """None of them for one rank.

    >>> from diplex_core.model import catalogue
    >>> both = all_reduces(catalogue.model("qwen2.5-72b"), 2, Link(5e12, 3e-6))
    >>> both.count, both.token_bytes, round(both.waiting * 1e3, 2)
    (160, 2621440, 0.48)
    """
    count = _A_LAYER * model.layers if ranks > 1 else 0
    return AllReduces(ranks, link, count, count * model.hidden * _BF16)
