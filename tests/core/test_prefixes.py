"""Which workers have which prefix blocks."""

from hypothesis import given
from hypothesis import strategies as st

from diplex_core.prefixes import Prefixes, Shelf


def shelves(*kept: tuple[int, ...]) -> tuple[Prefixes, list[Shelf]]:
    prefixes = Prefixes()
    found = [prefixes.shelf() for _ in kept]
    for shelf, blocks in zip(found, kept, strict=True):
        shelf.become(blocks)
    return prefixes, found


def test_each_worker_has_a_prompts_blocks_up_to_its_first_miss() -> None:
    prefixes, found = shelves((1, 2, 3), (1, 3), (), (1, 2))
    leading = prefixes.leading((1, 2, 3, 4))
    assert [leading.of(shelf.bit) for shelf in found] == [3, 1, 0, 2]
    assert [level.blocks for level in leading.levels] == [1, 2, 3]


def test_of_a_prompt_that_nobody_has_seen_nobody_has_anything() -> None:
    prefixes, (shelf,) = shelves((1, 2))
    assert prefixes.leading((7, 1)).of(shelf.bit) == 0
    assert prefixes.leading(()).levels == ()


def test_what_was_evicted_is_no_longer_found() -> None:
    prefixes, (one, two) = shelves((1, 2), (1, 2))
    one.let_go([2])
    leading = prefixes.leading((1, 2))
    assert (leading.of(one.bit), leading.of(two.bit)) == (1, 2)


def test_a_worker_that_is_lost_has_nothing_and_another_block_of_it_is_not_mistaken_for_an_old_one() -> None:
    prefixes, (one, two) = shelves((1, 2), (1,))
    one.clear()
    one.take_in([2])
    leading = prefixes.leading((1, 2))
    assert (leading.of(one.bit), leading.of(two.bit)) == (0, 1)
    one.take_in([1])
    assert prefixes.leading((1, 2)).of(one.bit) == 2


def test_workers_that_start_anew_time_and_again_leave_nothing_behind() -> None:
    prefixes, found = shelves((), ())
    for life in range(1000):
        found[0].become([life, life + 1])
        found[0].clear()
    assert len(prefixes) < 500
    assert found[0].bit.bit_length() < 100


def test_a_list_that_lacks_nothing_keeps_the_workers_bit() -> None:
    _, (one,) = shelves((1, 2))
    bit = one.bit
    one.become((1, 2, 3))
    assert one.bit == bit
    one.become((1, 3))
    assert (one.bit == bit, len(one), 2 in one) == (False, 2, False)


blocks = st.lists(st.integers(1, 9), max_size=6)
deeds = st.lists(
    st.tuples(st.sampled_from(("take_in", "let_go", "become", "clear")), st.integers(0, 3), blocks),
    max_size=40,
)


@given(deeds, st.lists(st.lists(st.integers(1, 9), max_size=8, unique=True), max_size=4))
def test_it_says_what_a_set_for_each_worker_would(
    done: list[tuple[str, int, list[int]]], prompts: list[list[int]]
) -> None:
    prefixes, found = shelves((), (), (), ())
    naive: list[set[int]] = [set() for _ in found]
    for what, which, hashes in done:
        match what:
            case "take_in":
                assert set(found[which].take_in(hashes)) == set(hashes) - naive[which]
                naive[which] |= set(hashes)
            case "let_go":
                assert set(found[which].let_go(hashes)) == set(hashes) & naive[which]
                naive[which] -= set(hashes)
            case "become":
                found[which].become(hashes)
                naive[which] = set(hashes)
            case _:
                found[which].clear()
                naive[which] = set()
        for prompt in map(tuple, prompts):
            leading = prefixes.leading(prompt)
            for shelf, kept in zip(found, naive, strict=True):
                misses = [at for at, block in enumerate(prompt) if block not in kept]
                assert leading.of(shelf.bit) == min(misses, default=len(prompt))
        assert [len(shelf) for shelf in found] == [len(kept) for kept in naive]
