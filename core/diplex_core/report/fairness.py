"""How evenly tenants were served."""

from collections.abc import Iterable


def jain(shares: Iterable[float]) -> float | None:
    """Jain's index: 1 where all got the same, 1/n where one of n got everything; `None` where nobody got any.

    Args:
        shares: what each got, divided by its weight.
    Source: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource
        Allocation in Shared Computer Systems", DEC-TR-301, 1984.

    >>> jain([5, 5]), jain([10, 0])
    (1.0, 0.5)
    """
    got = list(shares)
    largest = max(got, default=0.0)
    if largest <= 0:
        return None
    # Scaled by the largest: the squares of very large or very small shares stay numbers.
    scaled = [share / largest for share in got]
    return sum(scaled) ** 2 / (len(scaled) * sum(share * share for share in scaled))
