"""The pickers: of the workers that no filter objects to, which it is to be."""

from collections.abc import Sequence

from diplex_core.placement.rules import Candidate, Wish, picker


@picker("best")
def best(wish: Wish, candidates: Sequence[Candidate]) -> Candidate:
    """The one with the highest total; of equals the first of the fleet."""
    return max(candidates, key=lambda candidate: candidate.total)
