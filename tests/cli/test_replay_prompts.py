"""Prompts have exactly their tokens, and share what the trace says they share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diplex_cli.replay.prompts import LEAST_ID, MOST_ID, prompt_of
from diplex_cli.replay.traces import Row


def ids(row: Row, tokens: int, block_tokens: int = 16, seed: int = 0) -> list[int]:
    return list(prompt_of(row, tokens, block_tokens, seed).ids)


@given(st.integers(1, 5000), st.lists(st.integers(0, 2**63), max_size=30), st.sampled_from([0, 16, 512]))
def test_a_prompt_has_exactly_its_tokens_all_of_them_ordinary(tokens: int, hash_ids: list[int], block: int):
    prompt = ids(Row(0, 0.0, tokens, 1, tuple(hash_ids)), tokens, block)
    assert len(prompt) == tokens
    assert min(prompt) >= LEAST_ID and max(prompt) <= MOST_ID
    assert LEAST_ID >= 1000 and MOST_ID < 30_000


def test_equal_leading_hash_ids_are_equal_leading_tokens_and_no_more():
    one, other = ids(Row(0, 0.0, 64, 1, (7, 8, 9)), 48), ids(Row(1, 0.0, 64, 1, (7, 8, 10)), 48)
    assert one[:32] == other[:32]
    assert one[32] != other[32]


def test_a_partly_filled_block_is_the_beginning_of_the_whole_one():
    assert ids(Row(0, 0.0, 20, 1, (7, 8)), 20) == ids(Row(1, 0.0, 32, 1, (7, 8)), 32)[:20]


def test_what_no_hash_id_names_is_the_rows_own():
    one, other = Row(0, 0.0, 40, 1), Row(1, 0.0, 40, 1)
    assert ids(one, 40) != ids(other, 40)
    behind = ids(Row(0, 0.0, 40, 1, (7,)), 40), ids(Row(1, 0.0, 40, 1, (7,)), 40)
    assert behind[0][:16] == behind[1][:16] and behind[0][16:] != behind[1][16:]


def test_the_same_trace_and_seed_make_the_same_prompt_and_another_seed_another():
    row = Row(3, 0.0, 100, 1)
    assert ids(row, 100) == ids(row, 100)
    assert ids(row, 100) != ids(row, 100, seed=1)


def test_the_longest_prompts_are_made_without_touching_each_token():
    """Of 120,000 tokens it takes about two milliseconds; a loop over its tokens takes thirty and more."""
    row = Row(0, 0.0, 120_000, 1, tuple(range(235)))
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    import sys

    sys.setprofile(count)
    try:
        prompt = prompt_of(row, 120_000, 512, 0)
    finally:
        sys.setprofile(None)
    assert len(prompt.ids) == 120_000
    assert calls < 120_000 / 10


@pytest.mark.parametrize("tokens", [1, 127, 128, 8191, 8192, 70_000])
def test_lengths_around_those_of_the_packing_hold(tokens: int):
    assert len(ids(Row(0, 0.0, tokens, 1), tokens)) == tokens
