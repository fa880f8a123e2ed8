"""Hashes of shared blocks: equal for equal prefixes, and for nothing else."""

import pytest

from diplex_cli.simulate.blocks import block_hash, piece_hashes, prefix_hashes


def test_no_two_prefixes_and_no_two_blocks_have_one_hash():
    hashes = [block_hash(whose, block, salt) for whose in range(40) for block in range(40) for salt in (0, 1)]
    assert len(set(hashes)) == len(hashes)
    assert all(0 <= one < 1 << 64 for one in hashes)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (31, 0), (32, 1), (512, 16)])
def test_a_prefix_has_its_whole_blocks(tokens: int, blocks: int):
    assert len(prefix_hashes(7, tokens, 32, seed=0)) == blocks


@pytest.mark.parametrize(
    ("pieces", "piece_tokens", "prompt", "blocks"),
    [
        ((1, 2), 512, 5000, 32),  # a piece is sixteen blocks
        ((1, 2), 512, 1024, 31),  # the last token has to be read
        ((1, 2), 512, 1025, 32),
        ((1, 2, 3), 16, 5000, 1),  # two pieces are a block, the third half a one
        ((1, 2, 3), 48, 5000, 4),
        ((), 512, 5000, 0),
    ],
)
def test_pieces_of_a_prompt_are_counted_in_the_workers_blocks(
    pieces: tuple[int, ...], piece_tokens: int, prompt: int, blocks: int
):
    assert len(piece_hashes(pieces, piece_tokens, prompt, 32, salt=0)) == blocks


@pytest.mark.parametrize(("piece_tokens", "same"), [(512, 16), (16, 0), (48, 1)])
def test_prompts_share_the_blocks_before_the_first_piece_that_differs(piece_tokens: int, same: int):
    one = piece_hashes((1, 2, 3), piece_tokens, 5000, 32, salt=0)
    other = piece_hashes((1, 9, 8), piece_tokens, 5000, 32, salt=0)
    assert [a == b for a, b in zip(one, other, strict=True)] == [True] * same + [False] * (len(one) - same)


def test_a_salt_makes_other_blocks_of_the_same_pieces():
    one, other = (piece_hashes((1, 2), 512, 5000, 32, salt) for salt in (0, 1))
    assert not set(one) & set(other)
