"""Prefix blocks that stay behind: who hits them, what they cost, and what routers are told of them."""

from dataclasses import replace
from typing import Any

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason, salted
from diplex_workers.engines.engine import Facts, Output
from diplex_workers.residency import BlockEvent

HASHES = [11, 12, 13]  # of a prompt of 100 tokens, 32 a block
REFUSED = pb.END_REASON_REFUSED


@pytest.fixture
def keeps(facts: Facts) -> Facts:
    return replace(facts, keeps_prefixes=True)


@pytest.fixture
def house(new_house: Any, keeps: Facts) -> Any:
    return new_house(facts=keeps)


def ask(house: Any, lease: int, hits: int = 0, **more: object) -> Claim:
    """A prompt of 100 tokens and up to 64 of output, of whose three whole blocks the first few are hit."""
    words = {
        "blocks": 6 - hits,
        "cached_blocks": hits,
        "block_hashes": HASHES,
        "hash_block_tokens": 32,
        **more,
    }
    claim: Claim = house.run(lease, **words)
    return claim


def stored(report: worker_pb2.WorkerLinkResponse) -> tuple[set[int], set[int]]:
    return set(report.stored_blocks), set(report.removed_blocks)


def test_a_worker_says_whether_it_knows_what_is_resident(new_house, facts):
    told = [
        new_house(facts=facts).account.info(),
        new_house(facts=replace(facts, keeps_prefixes=True)).account.info(),
        new_house(facts=replace(facts, tells_prefixes=True)).account.info(),
    ]
    assert [info.reports_residency for info in told] == [False, True, True]
    assert {info.models[0].block_tokens for info in told} == {32}


def test_a_prompts_blocks_are_resident_from_its_first_token_on(house):
    claim = ask(house, 1)
    assert stored(house.report()) == (set(), set())
    house.say(claim)
    assert stored(house.report()) == ({11, 12, 13}, set())
    house.say(claim, end=EndReason.STOP)
    report = house.report()
    assert (stored(report), report.cached_blocks, report.pinned_blocks) == ((set(), set()), 3, 0)


def test_full_reports_list_all_that_is_resident(house):
    house.say(ask(house, 1), end=EndReason.STOP)
    house.report()
    house.feed.full_due()
    assert stored(house.report()) == ({11, 12, 13}, set())


def test_every_router_hears_of_it(house):
    other = house.link("r2")
    house.say(ask(house, 1))
    assert stored(house.report(other)) == ({11, 12, 13}, set())


def test_hits_are_pinned_and_cost_no_blocks_of_the_claims_own(house):
    house.say(ask(house, 1), end=EndReason.STOP)
    claim = ask(house, 2, hits=3)
    assert house.used == (3, 1)  # 164 tokens are 6 blocks
    report = house.report()
    assert (report.pinned_blocks, report.cached_blocks, report.used_blocks) == (3, 0, 3)
    assert house.engine.jobs[claim].cached == 96
    house.frame()
    house.say(claim, end=EndReason.STOP)
    assert house.done().usage.cached_tokens == 96
    assert house.report().pinned_blocks == 0


def test_two_claims_on_the_same_blocks_pay_for_them_once(house):
    house.say(ask(house, 1), end=EndReason.STOP)
    ask(house, 2, hits=3)
    ask(house, 3, hits=2)
    assert (house.report().pinned_blocks, house.used) == (3, (3 + 4, 2))


def test_fewer_resident_blocks_than_the_grant_counts_on_are_refused_with_what_it_needs(house):
    ask(house, 1, hits=3)
    done = house.done()
    assert (done.reason, done.needed_blocks) == (REFUSED, 6)
    assert "3 it counts on are not cached" in Problem.from_bytes(done.error).message
    house.say(ask(house, 2), end=EndReason.STOP)
    house.frame()
    ask(house, 3, hits=3, block_hashes=[11, 12, 99])
    assert house.done().needed_blocks == 4


def test_hashes_of_blocks_of_another_size_are_not_used(house):
    house.say(ask(house, 1), end=EndReason.STOP)
    house.frame()
    ask(house, 2, hits=3, hash_block_tokens=16)
    done = house.done()
    assert (done.reason, done.needed_blocks) == (REFUSED, 6)
    house.say(ask(house, 3, block_hashes=[1, 2, 3], hash_block_tokens=16), end=EndReason.STOP)
    house.feed.full_due()
    assert stored(house.report()) == ({11, 12, 13}, set())


def test_a_grant_that_counts_on_blocks_that_the_client_does_not_name_is_refused(house):
    house.say(ask(house, 1), end=EndReason.STOP)
    house.frame()
    ask(house, 2, hits=3, block_hashes=[])
    assert house.done().needed_blocks == 6


def test_a_tenants_own_blocks_are_kept_under_its_salt_and_hit_by_nobody_else(house):
    house.say(ask(house, 1, prefix_salt=7), end=EndReason.STOP)
    assert stored(house.report())[0] == {salted(block, 7) for block in HASHES}
    house.frame()
    ask(house, 2, hits=3)
    assert house.done().reason == REFUSED
    assert ask(house, 3, hits=3, prefix_salt=7) in house.engine.jobs


def test_only_whole_blocks_of_the_prompt_itself_are_kept(house):
    house.say(ask(house, 1, block_hashes=[11, 12, 13, 14, 15]), end=EndReason.STOP)
    assert stored(house.report())[0] == {11, 12, 13}


def test_a_prompt_that_was_never_read_leaves_nothing_behind(house):
    claim = ask(house, 1)
    house.desk.cancel(house.stream, 1)
    house.let_go(claim)
    house.feed.full_due()
    report = house.report()
    assert (stored(report), report.cached_blocks) == ((set(), set()), 0)


def test_what_nobody_uses_goes_when_its_room_is_needed(house):
    house.say(ask(house, 1), end=EndReason.STOP)
    house.report()
    house.begin(2, blocks=98)
    report = house.report()
    assert (stored(report), report.cached_blocks) == ((set(), {13}), 2)


def test_a_claim_that_grows_takes_the_room_of_what_nobody_uses(new_house, keeps):
    house = new_house(facts=replace(keeps, can_grow=True, can_pause=True))
    house.say(ask(house, 1), end=EndReason.STOP)
    house.run(2, blocks=50, grows=True, max_tokens=1900)
    house.begin(3, blocks=40)
    assert house.report().cached_blocks == 3
    order = worker_pb2.Raise(claim=pb.Claim(lease_id=2, attempt=1), blocks=58, id=1)
    house.desk.raise_claim("r1", order)
    assert house.report().cached_blocks == 2


def test_a_limit_lies_behind_the_hits(new_house, keeps):
    house = new_house(facts=replace(keeps, can_grow=True, can_pause=True))
    house.say(ask(house, 1), end=EndReason.STOP)
    claim = ask(house, 2, hits=3, blocks=4, grows=True, max_tokens=600)
    assert house.engine.jobs[claim].limit == 96 + 4 * 32


def test_a_router_hears_only_a_blocks_last_word(house):
    house.feed.kept([1, 2], [])
    house.feed.kept([], [2, 3])
    house.feed.kept([3], [])
    assert stored(house.report()) == ({1, 3}, {2})


def test_an_engine_that_starts_anew_has_nothing_resident(house, keeps):
    house.say(ask(house, 1), end=EndReason.STOP)
    house.news.ready(keeps)
    report = house.report()
    assert (report.full, stored(report)) == (True, (set(), set()))


# Engines that keep the account themselves.


@pytest.fixture
def told(new_house: Any, facts: Facts) -> Any:
    house = new_house(facts=replace(facts, tells_prefixes=True))
    house.news.kept(BlockEvent(1, 1, 32, stored=(11, 12, 13)))
    return house


def test_an_engines_own_events_make_blocks_resident(told):
    assert stored(told.report()) == ({11, 12, 13}, set())
    claim = ask(told, 1, hits=2)
    assert (told.engine.jobs[claim].cached, told.report().pinned_blocks) == (64, 2)
    told.news.kept(BlockEvent(1, 2, 32, removed=(13,)))
    assert stored(told.report()) == (set(), {13})


def test_what_the_engine_says_of_hits_is_what_the_user_is_told(told):
    claim = ask(told, 1, hits=2)
    told.news.deliver([Output(claim, 0, 1, (7,), "a", EndReason.STOP, cached_tokens=80)])
    assert told.done().usage.cached_tokens == 80


def test_a_hole_in_its_events_is_told_until_it_lists_all(told):
    told.report()
    told.news.kept(BlockEvent(1, 4, 32, stored=(14,)))
    assert "2 of its engine's events are missing" in told.report().residency_problem
    ask(told, 1, hits=2)
    assert told.done().reason == REFUSED, "nobody knows whether they are there"
    told.news.kept(BlockEvent(1, 5, 32, stored=(11,), listing=True))
    report = told.report()
    assert (report.residency_problem, stored(report)) == ("", ({11}, set()))
