"""What can be read off an event without knowing more."""

import pytest

from diplex_core.events import EndedClaim
from diplex_core.words import Claim, EndReason


@pytest.mark.parametrize(
    ("tokens", "choices", "produced", "tpot"),
    [
        (101, 1, 0, 0.010),
        (202, 2, 0, 0.010),  # two choices speak at the same time
        (1001, 1, 900, 0.010),  # what earlier attempts made took none of this one's time
        (1, 1, 0, None),
        (901, 1, 900, None),
        (0, 1, 0, None),
    ],
)
def test_time_per_token_counts_from_an_attempts_own_first_token(
    tokens: int, choices: int, produced: int, tpot: float | None
):
    ended = EndedClaim(Claim(1, 1), EndReason.LENGTH, 1000, tokens, first_token=0.5, total=1.5)
    assert ended.tpot(choices, produced) == (None if tpot is None else pytest.approx(tpot))


def test_no_time_per_token_where_nobody_said_when_the_first_one_came():
    assert EndedClaim(Claim(1, 1), EndReason.LENGTH, 1000, 100, total=1.5).tpot(1, 0) is None
