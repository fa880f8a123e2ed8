"""The worker's own arithmetic."""

import pytest

from diplex_core.pool import Pool
from diplex_core.words import Claim

ONE, TWO = Claim(1, 1), Claim(2, 1)


def test_a_claim_that_does_not_fit_is_refused_with_what_is_free() -> None:
    pool = Pool(capacity=10, slots=2, guard=2)
    assert pool.take(ONE, 5, 1, "r1") is None
    refusal = pool.take(TWO, 4, 1, "r1")
    assert refusal is not None
    assert (refusal.needed_blocks, refusal.free_blocks) == (4, 3)
    assert str(refusal) == "needs 4 KV blocks, 3 are free"
    assert pool.used_blocks == 5


def test_slots_are_refused_in_their_own_words() -> None:
    pool = Pool(capacity=10, slots=1)
    assert pool.take(ONE, 1, 1, "r1") is None
    assert str(pool.take(TWO, 1, 1, "r1")) == "needs 1 sequence slots, 0 are free"


def test_a_claim_is_freed_once_however_often_it_is_released() -> None:
    pool = Pool(capacity=10, slots=2)
    pool.take(ONE, 5, 1, "r1")
    assert pool.release(ONE) is not None
    assert pool.release(ONE) is None
    assert (pool.used_blocks, pool.used_slots, pool.peak_blocks) == (0, 0, 5)


def test_the_same_claim_is_never_held_twice() -> None:
    pool = Pool(capacity=10, slots=2)
    pool.take(ONE, 1, 1, "r1")
    with pytest.raises(ValueError, match="held already"):
        pool.take(ONE, 1, 1, "r1")


def test_a_claim_changes_size_only_if_it_fits() -> None:
    pool = Pool(capacity=10, slots=2)
    pool.take(ONE, 4, 1, "r1")
    assert pool.resize(ONE, 10) is None
    assert pool.resize(ONE, 11) is not None
    assert pool.used_blocks == 10
    assert pool.resize(ONE, 2) is None
    assert pool.used_blocks == 2


def test_what_other_routers_hold_is_foreign_to_one() -> None:
    pool = Pool(capacity=10, slots=4)
    pool.take(ONE, 4, 1, "r1")
    pool.take(TWO, 3, 2, "r2")
    assert pool.held_by_others("r1") == (3, 2)
    assert pool.held_by_others("r3") == (7, 3)


def test_a_guard_larger_than_the_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="guard of 11"):
        Pool(capacity=10, slots=1, guard=11)


def test_a_prefix_that_two_claims_use_is_counted_once_and_freed_by_the_last() -> None:
    pool = Pool(capacity=10, slots=4)
    pool.resident.stored([7, 8])
    assert pool.free_blocks == 10
    assert pool.take(ONE, 3, 1, "r1", hits=[7, 8]) is None
    assert pool.take(TWO, 2, 1, "r2", hits=[7]) is None
    assert (pool.used_blocks, pool.resident.pinned, pool.free_blocks, pool.peak_blocks) == (5, 2, 3, 7)
    pool.release(ONE)
    assert (pool.resident.pinned, pool.resident.cached, pool.free_blocks) == (1, 1, 7)
    pool.release(TWO)
    assert (pool.resident.pinned, pool.resident.cached, pool.free_blocks) == (0, 2, 10)


def test_cached_blocks_that_a_grant_counts_on_cost_their_room_the_first_time() -> None:
    pool = Pool(capacity=10, slots=4)
    pool.resident.stored([7, 8])
    refusal = pool.take(ONE, 9, 1, "r1", hits=[7, 8])
    assert refusal is not None
    assert (refusal.needed_blocks, refusal.free_blocks) == (9, 8)
    assert pool.take(ONE, 8, 1, "r1", hits=[7, 8]) is None


def test_fewer_cached_blocks_than_the_router_believed_are_a_grant_too_small() -> None:
    pool = Pool(capacity=10, slots=4)
    pool.resident.stored([7, 8, 9])
    pool.resident.removed([8])
    refusal = pool.take(ONE, 2, 1, "r1", hits=[7, 8, 9])
    assert refusal is not None
    assert refusal.needed_blocks == 4
    assert str(refusal) == "needs 4 KV blocks, 2 it counts on are not cached"
    assert (pool.used_blocks, pool.resident.pinned) == (0, 0)


def test_a_block_evicted_under_its_user_stays_counted_and_is_hit_no_more() -> None:
    pool = Pool(capacity=10, slots=4)
    pool.resident.stored([7])
    pool.take(ONE, 1, 1, "r1", hits=[7])
    pool.resident.removed([7])
    assert (pool.resident.leading([7]), pool.free_blocks) == ((), 8)
    pool.release(ONE)
    assert (pool.resident.cached, pool.free_blocks) == (0, 10)
