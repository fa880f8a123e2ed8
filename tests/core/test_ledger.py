"""The router's account of one pool."""

import pytest

from diplex_core.ledger import OverCommitted, PoolLedger
from diplex_core.words import Claim, blocks_needed

ONE, TWO = Claim(1, 1), Claim(2, 1)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "choices", "cached", "blocks"),
    [
        (1, 1, 1, 0, 1),
        (32, 0, 1, 0, 1),
        (32, 1, 1, 0, 2),
        (8192, 512, 1, 0, 272),
        (8192, 512, 1, 4096, 144),
        (40, 24, 1, 0, 2),
        (40, 24, 3, 0, 4),
        (64, 32, 4, 64, 4),
    ],
)
def test_a_full_reservation_is_rounded_up_to_whole_blocks(
    prompt: int, max_tokens: int, choices: int, cached: int, blocks: int
) -> None:
    assert blocks_needed(prompt, max_tokens, 32, choices=choices, cached=cached) == blocks


def test_draft_tokens_are_part_of_the_reservation() -> None:
    assert blocks_needed(32, 32, 32, draft=1) == 3


def test_what_is_charged_is_no_longer_free() -> None:
    ledger = PoolLedger(capacity=10, slots=4, guard=1)
    ledger.charge(ONE, blocks=6, slots=1)
    assert (ledger.blocks.free, ledger.slots.free) == (3, 3)


def test_a_charge_that_does_not_fit_is_an_error_and_changes_nothing() -> None:
    ledger = PoolLedger(capacity=10, slots=4)
    with pytest.raises(OverCommitted, match="11 blocks"):
        ledger.charge(ONE, blocks=11, slots=1)
    assert ledger.blocks.free == 10
    assert len(ledger) == 0


def test_slots_run_out_before_blocks_do() -> None:
    ledger = PoolLedger(capacity=100, slots=1)
    ledger.charge(ONE, blocks=1, slots=1)
    assert not ledger.fits(1, 1)


def test_a_claim_wanted_back_stays_charged_until_it_is_released() -> None:
    ledger = PoolLedger(capacity=10, slots=1)
    ledger.charge(ONE, blocks=6, slots=1)
    assert ledger.reclaim(ONE)
    assert not ledger.reclaim(ONE)
    assert (ledger.blocks.reserved, ledger.blocks.reclaiming, ledger.blocks.free) == (0, 6, 4)
    assert ledger.slots.free == 0
    ledger.release(ONE)
    assert (ledger.blocks.free, ledger.slots.free) == (10, 1)


def test_releasing_twice_does_nothing() -> None:
    ledger = PoolLedger(capacity=10, slots=1)
    ledger.charge(ONE, blocks=6, slots=1)
    assert ledger.release(ONE) is not None
    assert ledger.release(ONE) is None
    assert ledger.blocks.free == 10


def test_foreign_blocks_lower_what_is_free_but_never_below_zero() -> None:
    ledger = PoolLedger(capacity=10, slots=1)
    ledger.charge(ONE, blocks=6, slots=1)
    ledger.blocks.foreign = 9
    assert ledger.blocks.free == 0
    assert ledger.blocks.own == 6


def test_a_prefix_block_is_pinned_once_by_the_first_and_freed_by_the_last_claim_that_hits_it() -> None:
    ledger = PoolLedger(capacity=10, slots=4)
    ledger.stored([7, 8])
    assert (ledger.cached, ledger.blocks.free) == (2, 10)
    ledger.charge(ONE, blocks=1, slots=1, hits=[7, 8])
    ledger.charge(TWO, blocks=1, slots=1, hits=[7])
    assert (ledger.blocks.pinned, ledger.cached, ledger.blocks.free) == (2, 0, 6)
    ledger.release(ONE)
    assert (ledger.blocks.pinned, ledger.cached) == (1, 1)
    ledger.release(TWO)
    assert (ledger.blocks.pinned, ledger.cached, ledger.blocks.free) == (0, 2, 10)


def test_a_hit_on_a_cached_block_needs_room_for_its_pin() -> None:
    ledger = PoolLedger(capacity=2, slots=4)
    ledger.stored([7])
    ledger.charge(ONE, blocks=2, slots=1)
    assert not ledger.fits(0, 1, hits=[7])


def test_only_the_leading_blocks_of_a_prompt_are_hits() -> None:
    ledger = PoolLedger(capacity=10, slots=4)
    ledger.stored([1, 3])
    assert ledger.leading([1, 2, 3]) == 1


def test_an_evicted_block_that_a_claim_uses_stays_pinned_until_the_claim_ends() -> None:
    ledger = PoolLedger(capacity=10, slots=4)
    ledger.stored([7])
    ledger.charge(ONE, blocks=0, slots=1, hits=[7])
    ledger.removed([7])
    assert ledger.blocks.pinned == 1


def test_a_confirmed_claim_takes_the_size_that_the_worker_holds() -> None:
    ledger = PoolLedger(capacity=10, slots=1)
    ledger.charge(ONE, blocks=6, slots=1)
    ledger.confirm(ONE, 4)
    assert ledger.blocks.reserved == 4


def test_a_raised_claim_counts_in_full_until_its_worker_answers_that_raise() -> None:
    ledger = PoolLedger(capacity=10, slots=1)
    ledger.charge(ONE, blocks=4, slots=1)
    ledger.confirm(ONE, 4)
    ledger.grow(ONE, 8, number=3)
    ledger.confirm(ONE, 4)
    ledger.confirm(ONE, 4, answers=2)
    assert (ledger.blocks.reserved, ledger.held_blocks) == (8, 4)
    ledger.confirm(ONE, 4, answers=3)
    assert (ledger.blocks.reserved, ledger.held_blocks) == (4, 4)


def test_a_claim_grows_only_into_what_is_free() -> None:
    ledger = PoolLedger(capacity=10, slots=2)
    ledger.charge(ONE, blocks=4, slots=1)
    ledger.charge(TWO, blocks=4, slots=1)
    with pytest.raises(OverCommitted):
        ledger.grow(ONE, 7, number=1)


def test_what_claims_wait_to_grow_by_is_promised_to_no_newcomer() -> None:
    ledger = PoolLedger(capacity=10, slots=2)
    ledger.charge(ONE, blocks=6, slots=1)
    ledger.wanted = 3
    assert (ledger.open_blocks, ledger.blocks.free) == (1, 4)
    assert not ledger.fits(2, 1)
    ledger.grow(ONE, 9, number=1)


def test_a_claim_that_outgrew_the_account_is_counted_like_foreign_and_keeps_its_pins() -> None:
    ledger = PoolLedger(capacity=10, slots=2)
    ledger.stored([7])
    ledger.charge(ONE, blocks=4, slots=1, hits=[7])
    ledger.charge(TWO, blocks=4, slots=1)
    ledger.confirm(ONE, 8)
    assert (ledger.blocks.own, ledger.blocks.stray, ledger.blocks.pinned) == (5, 8, 1)
    ledger.release(ONE)
    assert (ledger.blocks.own, ledger.blocks.stray) == (4, 0)


def test_an_adopted_claim_without_room_is_counted_like_foreign() -> None:
    ledger = PoolLedger(capacity=10, slots=2)
    ledger.charge(ONE, blocks=8, slots=1)
    ledger.adopt(TWO, blocks=4, slots=1)
    assert (ledger.blocks.own, ledger.blocks.stray, ledger.blocks.free) == (8, 4, 0)
    ledger.release(ONE)
    assert ledger.blocks.free == 6
    ledger.release(TWO)
    assert (ledger.blocks.free, ledger.blocks.stray) == (10, 0)
