"""The best worker of a fleet without asking each, held against asking each."""

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diplex_core.events import WorkerFacts
from diplex_core.fleet import Worker
from diplex_core.guests import Guest
from diplex_core.ledger import PoolLedger
from diplex_core.model.forecast import forecast_of
from diplex_core.placement.index import Index
from diplex_core.placement.place import Choice, Placement
from diplex_core.placement.rules import Wish, need_on
from diplex_core.placement.search import search
from diplex_core.prefixes import Prefixes
from diplex_core.words import DEFAULT_TENANT, Claim, Pattern, Promise, Target, Tenant, Tier

FAST = Tier("fast", (Pattern.C, Pattern.A), Promise(Target(0.1, 0.05), 0.008), priority=9)
BULK = Tier("bulk", (Pattern.A, Pattern.B), filters=())
SHY = Tier(
    "shy", (Pattern.A, Pattern.C), Promise(Target(0.3), 0.02), filters=("keeps_ttft", "spares_streams")
)
KNOWN = {
    "calibration": "chapter",
    "gpu": "b200",
    "profile": "qwen2.5-72b",
    "weights": "mxfp4-mixed",
    "kv_cache": "mxfp8",
}
ACME = Tenant("acme", packages=frozenset(f"p{number}" for number in range(0, 40, 3)))
PROMPTS = tuple(tuple(range(100 * family, 100 * family + 40)) for family in range(3))


def facts(pattern: Pattern = Pattern.A, blocks: int = 1000, slots: int = 8, **more: object) -> WorkerFacts:
    return WorkerFacts(
        "", "", pattern, frozenset({"m"}), 1, "", 32, blocks, slots, context=16_384, **{**KNOWN, **more}
    )  # type: ignore[arg-type]


class Fleet:
    """Workers and their index, as admission keeps them."""

    def __init__(self, kinds: Iterable[WorkerFacts]) -> None:
        self.prefixes = Prefixes()
        self.index = Index(self.prefixes)
        self.workers: list[Worker] = []
        for order, kind in enumerate(kinds):
            known = replace(kind, name=f"w{order}", package=f"p{order}")
            worker = Worker(known.name, order, self.prefixes.shelf(), known, linked=True, problem="")
            worker.forecast = forecast_of(known)
            worker.ledger = PoolLedger(
                known.capacity_blocks, known.capacity_slots, known.guard_blocks, worker.shelf
            )
            self.workers.append(worker)
            self.index.introduced(worker)

    def asked_whole(self, placement: Placement, wish: Wish) -> Choice:
        return placement.place(wish, self.workers)

    def searched(self, placement: Placement, wish: Wish) -> Choice:
        return search(placement, wish, self.index)

    def grant(self, worker: Worker, wish: Wish, number: int) -> None:
        worker.receive(Claim(number, 1), wish, need_on(wish, worker))
        self.index.touched(worker)


def wish(tier: Tier = FAST, prompt: int = 1000, max_tokens: int = 100, **more: object) -> Wish:
    return Wish("m", tier, DEFAULT_TENANT, prompt, max_tokens, **more)  # type: ignore[arg-type]


def some_wish(dice: random.Random, now: float = 0.0) -> Wish:
    prompt = dice.choice((20, 300, 640, 1280, 4000, 20_000))
    hashes = dice.choice(((), *PROMPTS))[: prompt // 32]
    return wish(
        dice.choice((FAST, FAST, BULK, SHY)),
        prompt,
        dice.choice((10, 100, 4000)),
        stated=dice.random() < 0.8,
        choices=dice.choice((1, 1, 1, 3)),
        block_hashes=hashes,
        avoid=dice.choice(("", "w1")),
        least_blocks=dice.choice((0, 0, 0, 45)),
        arrived=now - dice.choice((0.0, 0.05, 2.0)),
        now=now,
    )


def some_fleet(dice: random.Random, most: int = 20) -> Fleet:
    """Some of whatever there may be: kinds, sizes, load, prefixes, trouble."""
    kinds = (
        facts(),
        facts(blocks=130),
        facts(Pattern.C, prefill_budget=256, slots=4),
        facts(Pattern.B, slots=3, calibration=""),
        facts(tiers=frozenset({"bulk"})),
        facts(draft_tokens=0, can_resume=False),
    )
    some = [dice.choice(kinds) for _ in range(dice.randint(1, 4))]
    fleet = Fleet(
        replace(kind, capacity_blocks=kind.capacity_blocks + dice.choice((0, 0, 7)))
        for kind in (dice.choice(some) for _ in range(dice.randint(1, most)))
    )
    for worker in fleet.workers:
        if dice.random() < 0.5:
            worker.ledger.stored(dice.choice(PROMPTS)[: dice.choice((1, 5, 20, 40))])
    for number in range(dice.randint(0, 6 * len(fleet.workers))):
        worker, taken = dice.choice(fleet.workers), some_wish(dice)
        need = need_on(taken, worker)
        if worker.ledger.fits(need.blocks, need.slots, need.hits):
            fleet.grant(worker, taken, number)
            if dice.random() < 0.6:
                worker.guests.read(Claim(number, 1), 0.1)
                fleet.index.read(worker)
    for worker in fleet.workers:
        if dice.random() < 0.15:
            worker.draining = True
            fleet.index.touched(worker)
    return fleet


def told(choice: Choice) -> str:
    return choice.picked.name if choice.picked is not None else ""


@given(st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_where_all_may_be_looked_at_the_same_worker_is_picked_as_if_all_were_asked(
    dice: random.Random,
) -> None:
    fleet, placement = some_fleet(dice), Placement()
    for _ in range(4):
        looked_for = some_wish(dice, now=0.1)
        if dice.random() < 0.3:
            looked_for = replace(looked_for, tenant=ACME)
        searched = fleet.searched(placement, looked_for)
        assert told(searched) == told(fleet.asked_whole(placement, looked_for))
        if searched.picked is not None:
            said = fleet.asked_whole(placement, looked_for).words[searched.picked.name]
            assert searched.words[searched.picked.name] == said


@given(st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_of_a_large_fleet_a_few_are_looked_at_and_yet_nobody_waits_while_some_worker_objects_to_nothing(
    dice: random.Random,
) -> None:
    fleet, placement = some_fleet(dice), Placement(everyone=0, thorough=0, looks=1)
    for _ in range(4):
        looked_for = replace(some_wish(dice, now=0.1), tenant=dice.choice((DEFAULT_TENANT, ACME)))
        searched = fleet.searched(placement, looked_for)
        whole = fleet.asked_whole(placement, looked_for)
        assert bool(told(searched)) == bool(told(whole))
        if searched.picked is not None:
            assert not whole.words[searched.picked.name].objections
        fleet.index.vain.clear()


@given(st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whether_waiting_may_help_is_told_by_some_that_stand_for_all(dice: random.Random) -> None:
    fleet, placement = some_fleet(dice), Placement()
    for _ in range(4):
        looked_for = replace(some_wish(dice, now=0.1), tenant=dice.choice((DEFAULT_TENANT, ACME)))
        standing = fleet.index.standing(looked_for.tenant.packages, 0.1)
        for able in (lambda pool: True, lambda pool: not pool.gone(0.1)):
            some = any(placement.can_ever(looked_for, pool) and able(pool) for pool in standing)
            every = any(placement.can_ever(looked_for, pool) and able(pool) for pool in fleet.workers)
            assert some == every
        if fleet.searched(placement, looked_for).able:
            assert every


def test_while_promises_are_kept_one_worker_of_a_thousand_is_looked_at() -> None:
    fleet = Fleet([facts(Pattern.C), facts()] * 500)
    for number in range(40):
        choice = fleet.searched(Placement(), wish())
        assert len(choice.words) == 1
        assert choice.picked is fleet.workers[2 * number]  # the roomiest of the preferred pattern
        fleet.grant(fleet.workers[2 * number], wish(), number)


def test_where_nobody_has_room_nobody_is_looked_at_but_one_of_a_kind_says_why() -> None:
    fleet = Fleet([facts(slots=1)] * 500)
    for number, worker in enumerate(fleet.workers):
        fleet.grant(worker, wish(), number)
    choice = fleet.searched(Placement(), wish())
    assert choice.picked is None
    assert choice.able
    assert [said.objections for said in choice.words.values()] == [
        {"slot_free": "needs 1 sequence slots, 0 are free"}
    ]


def test_where_promises_break_only_a_few_of_a_kind_are_looked_at() -> None:
    fleet = Fleet([facts()] * 500)
    for number, worker in enumerate(fleet.workers):
        fleet.grant(worker, wish(BULK, prompt=16_000), number)
    assert len(fleet.searched(Placement(), wish()).words) == 2


def test_of_a_large_fleet_a_worker_that_is_not_late_is_found_among_those_that_are() -> None:
    fleet = Fleet([facts()] * 100)
    for number, worker in enumerate(fleet.workers):
        fleet.grant(worker, wish(BULK, prompt=10_000), number)
    idle = fleet.workers[57]
    idle.guests.read(Claim(57, 1), 0.001)
    for number in range(3):  # not the roomiest
        idle.ledger.charge(Claim(1000 + number, 1), 100, 1)
    fleet.index.touched(idle)
    assert told(fleet.searched(Placement(), wish(now=0.001, arrived=0.001))) == "w57"


def test_requests_that_ask_no_less_do_not_ask_everyone_again_but_where_something_opened() -> None:
    fleet, placement = Fleet([facts(blocks=3000)] * 50), Placement(looks=2)
    shy = replace(SHY, promise=Promise(Target(0.1)))
    for number, worker in enumerate(fleet.workers):
        fleet.grant(worker, wish(BULK, prompt=16_000), number)
    assert len(fleet.searched(placement, wish(shy)).words) == 50
    assert len(fleet.searched(placement, wish(shy)).words) < 10
    idle = fleet.workers[31]
    idle.guests.left(Claim(31, 1))
    idle.ledger.charge(Claim(99, 1), 400, 1)  # not among the roomiest
    fleet.index.opens(idle)
    assert told(fleet.searched(placement, wish(shy))) == "w31"
    fleet.grant(idle, wish(BULK, prompt=10_000), 100)
    assert len(fleet.searched(placement, wish(shy, prompt=100)).words) == 50  # one that asks for less does
    assert len(fleet.searched(placement, wish(shy)).words) < 10
    assert len(fleet.searched(placement, wish(shy, arrived=0.1, now=0.1)).words) == 50  # after a moment


PROMPT = PROMPTS[0][:30]


@pytest.mark.parametrize("thorough", [32, 0])
def test_of_workers_that_keep_their_promises_the_one_with_the_longest_prefix_is_picked(
    thorough: int,
) -> None:
    fleet, placement = Fleet([facts()] * 20), Placement(thorough=thorough)
    for order, blocks in ((3, 10), (11, 25), (17, 12)):
        fleet.workers[order].ledger.stored(PROMPT[:blocks])
    fleet.grant(fleet.workers[11], wish(BULK, prompt=100), 1)  # it has less room than the others
    choice = fleet.searched(placement, wish(prompt=1000, block_hashes=PROMPT))
    assert told(choice) == "w11"
    assert choice.words["w11"].scores["prefix"] == pytest.approx(0.8)
    ttft = choice.words["w11"].ttft
    assert ttft is not None
    assert ttft < (fleet.searched(placement, wish(prompt=1000)).words["w0"].ttft or 0.0)


@pytest.mark.parametrize("thorough", [32, 0])
def test_a_prefix_does_not_outweigh_a_promise(thorough: int) -> None:
    fleet, placement = Fleet([facts()] * 20), Placement(thorough=thorough)
    fleet.workers[11].ledger.stored(PROMPT)
    fleet.workers[11].guests.came(
        Claim(1, 1), Guest(0, due=5.0), prompt=16_000, reading=None, now=0.0
    )  # it reads for five seconds yet
    fleet.index.touched(fleet.workers[11])
    assert told(fleet.searched(placement, wish(block_hashes=PROMPT))) == "w0"


def test_what_is_cached_is_neither_read_nor_charged_as_prompt_in_flight() -> None:
    fleet = Fleet([facts()])
    (worker,) = fleet.workers
    worker.ledger.stored(PROMPT)
    fleet.grant(worker, wish(prompt=1000, block_hashes=PROMPT), 1)
    assert worker.ledger.prefill.reserved == 1000 - 30 * 32
    assert worker.guests.intake(0.0) == pytest.approx(20.0)
    fleet.grant(worker, wish(prompt=960, block_hashes=PROMPT), 2)
    assert worker.ledger.prefill.reserved == 40 + 1  # the last token is always read
