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
