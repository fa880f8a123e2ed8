"""Many outcomes in little memory: each is counted when it is heard, and only its durations are kept.

A million requests take about 40 MB here, eight bytes a duration; as outcomes they would take a gigabyte.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from diplex_core.report.outcome import Ending, Outcome
from diplex_core.words import Tier, Tokens

NOBODY: Final = "unknown"
"""The tenant of requests of which nobody said whose they are: none was ever granted."""


class TierTally:
    """What became of the requests that asked for one tier. Durations are of completed ones, unsorted."""

    __slots__ = (
        *("completed", "degraded", "e2e", "ended", "longest_gap", "met", "output_tokens", "queue"),
        *("requests", "retry_given", "retry_obeyed", "retry_succeeded", "tier", "tpot", "ttft"),
    )

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.requests = self.completed = self.degraded = self.met = 0
        self.output_tokens: Tokens = 0
        self.retry_given = self.retry_obeyed = self.retry_succeeded = 0
        self.ended = dict.fromkeys(Ending, 0)
        self.ttft, self.tpot, self.longest_gap, self.e2e, self.queue = (array("d") for _ in range(5))

    def add(self, one: Outcome) -> None:
        self.requests += 1
        self.ended[one.ended] += 1
        self.degraded += one.degraded
        self.output_tokens += one.output_tokens
        self.retry_given += one.retry_given
        self.retry_obeyed += one.retry_obeyed
        if one.ended is not Ending.COMPLETED:
            return  # it met nothing, and how long it took says nothing
        self.completed += 1
        self.met += one.met(self.tier)
        self.retry_succeeded += one.retry_obeyed > 0
        if one.ttft is not None:
            self.ttft.append(one.ttft)
        if one.tpot is not None:
            self.tpot.append(one.tpot)
        if one.longest_gap is not None:
            self.longest_gap.append(one.longest_gap)
        if one.e2e is not None:
            self.e2e.append(one.e2e)
        if one.queued is not None:
            self.queue.append(one.queued)


class Collector:
    """Hears outcomes, one by one, in any order.

    Args:
        tiers: those that were asked for; whoever asked for another is counted in the totals alone.
    Attributes:
        prompt_tokens, cached_tokens: of completed requests; `output_tokens`: of all.
        problems: reasons of rejections and failures; `details`: the first of each in full.
    """

    def __init__(self, tiers: Mapping[str, Tier], outcomes: Iterable[Outcome] = ()) -> None:
        self.tiers = {name: TierTally(tier) for name, tier in tiers.items()}
        self.output_tokens: Tokens = 0
        self.prompt_tokens: Tokens = 0
        self.cached_tokens: Tokens = 0
        self.problems: Counter[str] = Counter()
        self.details: dict[str, str] = {}
        self._tenants: dict[str, list[int]] = {}
        for one in outcomes:
            self.add(one)

    def add(self, one: Outcome) -> None:
        """Count a request that is over."""
        tally = self.tiers.get(one.tier)
        if tally is not None:
            tally.add(one)
        self.output_tokens += one.output_tokens
        tenant = self._tenants.get(one.tenant)
        if tenant is None:
            tenant = self._tenants[one.tenant] = [0, 0]
        tenant[0] += 1
        tenant[1] += one.output_tokens
        if one.ended is Ending.COMPLETED:
            self.prompt_tokens += one.prompt_tokens
            self.cached_tokens += one.cached_tokens
        else:
            reason = f"{one.ended}: {one.problem or 'no reason'}"
            self.problems[reason] += 1
            self.details.setdefault(reason, one.detail)

    @property
    def tenants(self) -> Mapping[str, tuple[int, Tokens]]:
        """Requests and output tokens of each. One that was never granted is nobody's, unless all others are
        one tenant's."""
        known = [name for name in self._tenants if name]
        fallback = known[0] if len(known) == 1 else NOBODY
        found: dict[str, tuple[int, Tokens]] = {}
        for name, (requests, tokens) in self._tenants.items():
            before = found.get(name or fallback, (0, 0))
            found[name or fallback] = (before[0] + requests, before[1] + tokens)
        return dict(sorted(found.items()))
