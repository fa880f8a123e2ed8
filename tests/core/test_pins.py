"""Prefix blocks in use are counted once each, whoever comes, shares and leaves in whatever order."""

from array import array
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from diplex_core.pins import Pins, Run

# Prompts of a small tree: a block is named by the way to it, as a chained hash is.
WAYS = st.lists(st.integers(0, 2), min_size=1, max_size=7)


def prompt(way: list[int]) -> Sequence[int]:
    blocks, name = array("Q"), 1
    for turn in way:
        name = 4 * name + turn
        blocks.append(name)
    return blocks


def test_blocks_that_two_prompts_begin_with_count_once():
    pins = Pins()
    pins.use([1, 2, 3])
    assert pins.new([1, 2, 4, 5]) == 2
    pins.use([1, 2, 4, 5])
    assert pins.blocks == 5


def test_a_prompt_that_is_the_beginning_of_another_costs_nothing_and_frees_nothing():
    pins = Pins()
    pins.use([1, 2, 3])
    shorter = pins.use([1, 2])
    assert pins.blocks == 3
    pins.leave(shorter)
    assert pins.blocks == 3


def test_who_stays_keeps_all_its_blocks_though_its_run_was_cut():
    pins = Pins()
    first, second = pins.use([1, 2, 3, 4]), pins.use([1, 2, 5])
    assert (first.all, second.all) == ((1, 2, 3, 4), (1, 2, 5))
    pins.leave(second)
    assert (pins.blocks, pins.new([1, 2, 5]), first.all) == (4, 1, (1, 2, 3, 4))


def test_a_list_a_tuple_and_packed_hashes_are_the_same_blocks():
    pins = Pins()
    pins.use([1, 2])
    assert (pins.new((1, 2)), pins.new(array("Q", [1, 2]))) == (0, 0)


@given(st.lists(st.tuples(WAYS, st.booleans())))
def test_each_block_counts_while_anybody_uses_it(steps: list[tuple[list[int], bool]]):
    pins, using, users = Pins(), list[tuple[Run, Sequence[int]]](), Counter[int]()
    for way, leaves in steps:
        if leaves and using:
            run, blocks = using.pop(len(way) % len(using))
            pins.leave(run)
            users.subtract(blocks)
        else:
            blocks = prompt(way)
            assert pins.new(blocks) == sum(1 for block in blocks if users[block] <= 0)
            using.append((pins.use(blocks), blocks))
            users.update(blocks)
        assert pins.blocks == sum(1 for count in users.values() if count > 0)
        for run, blocks in using:
            assert run.all == tuple(blocks)
