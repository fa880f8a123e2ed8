"""Long random walks of the hostile world: nothing is ever over-committed, and in the end nothing is left.

A walk that fails says how to walk it again.
"""

from collections import Counter
from collections.abc import Iterable

import pytest

from .hostile.walk import walk

LEAST = {  # in a thousand steps
    "granted": 25.0,
    "granted with a prediction": 10.0,
    "granted in a lower tier": 0.2,
    "refused: TOO_LATE": 0.5,
    "queued": 20.0,
    "tokens": 500.0,
    "starts turned away": 3.0,
    "a start hit cached blocks": 2.0,
    "a cached block was evicted": 1.0,
    "a claim was lowered to its true need": 1.0,
    "a grant was too small": 1.0,
    "asked again after REFUSED": 4.0,
    "asked again after FAILED": 0.5,
    "asked again after PREEMPTED": 0.1,
    "ended LENGTH": 6.0,
    "ended STOP": 2.0,
    "ended REVOKED": 0.2,
    "stops sent": 4.0,
    "links broken": 2.0,
    "reports in flight when a link broke": 0.2,
    "orders in flight when a link broke": 0.1,
    "a gap was answered by a new link": 0.5,
    "sessions broken": 1.0,
    "workers crashed": 0.2,
    "routers died": 0.2,
    "leases adopted": 0.1,
    "a grant was turned away: OLD_EPOCH": 0.1,
    "clocks leapt": 0.2,
    "granted to grow": 3.0,
    "claims wanted to grow": 2.0,
    "claims grew": 1.0,
    "a sequence waited at its limit": 1.0,
    "an engine that cannot wait gave a sequence up": 0.1,
    "a claim grew while its router was away": 0.03,
    "stopped in favour of others": 0.3,
    "stopped in favour of an equal": 0.05,
    "granted within a tenant's blocks": 1.0,
    "words on blocks lost": 0.5,
    "refused: QUOTA_TOO_SMALL": 0.5,
    "refused: QUOTA_EXCEEDED": 0.5,
    "came back": 1.0,
    "stopped in favour of a newcomer": 0.1,
    "rules changed": 0.2,
}
"""A walk that gets nowhere proves nothing: what has to have happened, on average of all walks."""


def walks(seeds: Iterable[int], steps: int, *, luck: float = 1.0) -> None:
    """Walk, and see that the walks got somewhere.

    Args:
        luck: the part of what is expected that must have happened; few walks have less of what is rare.
    """
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += walk(seed, steps)
    for what, count in sorted(seen.items()):
        print(f"{count:8} {what}")
    scant = {
        what: seen[what] for what, least in LEAST.items() if seen[what] < luck * least * seen["steps"] / 1000
    }
    assert not scant, f"hardly any of this happened in {seen['steps']} steps: {scant}"


def test_hostile_walks_over_commit_nothing_and_leave_nothing() -> None:
    walks(range(36), 1000)


@pytest.mark.long
def test_a_quarter_of_a_million_hostile_steps_over_commit_nothing_and_leave_nothing() -> None:
    walks(range(1000, 1125), 2000)


@pytest.mark.long
def test_four_long_lives_over_commit_nothing_and_leave_nothing() -> None:
    walks((8, 9, 10, 11), 20_000, luck=0.2)  # one of them is crowded
