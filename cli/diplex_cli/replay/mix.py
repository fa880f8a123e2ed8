"""Deals requests to tiers (or API keys): each gets its share all along, the same way for the same seed."""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Final

from diplex_cli.failures import UsageError

_GROUP: Final = 20
"""Requests among which the order is drawn: long enough to follow no rhythm of the trace, and short enough
that any stretch of it has its shares."""
_ROUNDING: Final = 1e-6


def shares_in(text: str) -> dict[str, float]:
    """`interactive=0.5,bulk=0.5` as a mapping; a name alone gets everything.

    Raises:
        UsageError: they are no shares, or not of a whole.
    """
    shares: dict[str, float] = {}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            share = float(number) if equals or len(parts) > 1 else 1.0
        except ValueError:
            raise UsageError(
                f"--tiers: '{part}' is no NAME=SHARE. Mend: --tiers interactive=0.5,bulk=0.5"
            ) from None
        if not name or not 0 < share <= 1:
            raise UsageError(
                f"--tiers: '{part}': a share is above 0 and at most 1. Mend: leave it out, or more"
            )
        if name in shares:
            raise UsageError(f"--tiers: {name} is said twice. Mend: once")
        shares[name] = share
    total = sum(shares.values())
    if not shares or abs(total - 1) > _ROUNDING:
        raise UsageError(f"--tiers: the shares make {total:g}, not 1. Mend: {_mended(shares, total)}")
    return shares


def _mended(shares: Mapping[str, float], total: float) -> str:
    if not shares:
        return "--tiers interactive=0.5,bulk=0.5"
    return "--tiers " + ",".join(f"{name}={share / total:.4g}" for name, share in shares.items())


def dealt(shares: Mapping[str, float], count: int, seed: int) -> list[str]:
    """A name for each of so many requests. Of any number of leading groups of 20 each name has its share, to
    within a request or two.

    >>> dealt({"a": 0.5, "b": 0.5}, 1000, seed=0).count("a")
    500
    """
    return list(deal(shares, count, seed))


def deal(shares: Mapping[str, float], count: int, seed: int) -> Iterator[str]:
    """The same, one by one."""
    given = dict.fromkeys(shares, 0)
    draw = Random(seed)
    group: list[str] = []
    for number in range(1, count + 1):
        # Whoever is furthest behind its share is next.
        name = max(shares, key=lambda name: shares[name] * number - given[name])
        given[name] += 1
        group.append(name)
        if len(group) == _GROUP or number == count:
            yield from draw.sample(group, len(group))
            group.clear()
