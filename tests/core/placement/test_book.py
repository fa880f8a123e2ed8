"""Rules that other packages bring: they are used by name, and what they do wrong stays their own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import WorkerFacts
from diplex_core.fleet import Worker
from diplex_core.ledger import PoolLedger
from diplex_core.placement.book import OWN, Book
from diplex_core.placement.index import Index
from diplex_core.placement.pickers import best
from diplex_core.placement.place import Choice, Placement
from diplex_core.placement.rules import Candidate, PoolView, Wish
from diplex_core.placement.search import search
from diplex_core.prefixes import Prefixes
from diplex_core.words import DEFAULT_TENANT, Pattern, Tier

FAST = Tier("fast", (Pattern.A,), filters=())
MINE = replace(FAST, filters=("mine",), scorers={"mine": 1.0}, picker="mine")


def fleet(size: int) -> list[Worker]:
    """Workers that are all alike, and idle."""
    workers = []
    for order in range(size):
        known = WorkerFacts(f"w{order}", "", Pattern.A, frozenset({"m"}), 1, "", 32, 1000, 8)
        worker = Worker(known.name, order, None, known, linked=True, problem="")
        worker.ledger = PoolLedger(known.capacity_blocks, known.capacity_slots)
        workers.append(worker)
    return workers


def searched(workers: list[Worker], placement: Placement) -> Choice:
    index = Index(Prefixes())
    for worker in workers:
        index.introduced(worker)
    return search(placement, wish(), index)


def book(
    filter_: Callable[..., Any] = lambda wish, pool: None,
    scorer: Callable[..., Any] = lambda wish, pool: 0.0,
    picker: Callable[..., Any] = best,
    told: Callable[[str], None] = lambda words: None,
) -> Book:
    return OWN.with_rules({"mine": filter_}, {"mine": scorer}, {"mine": picker}, told=told)


def wish(tier: Tier = MINE, request_id: str = "r") -> Wish:
    return Wish("m", tier, DEFAULT_TENANT, 1000, 32, request_id=request_id)


def placed(with_: Book, *, workers: int = 3, tier: Tier = MINE, request_id: str = "r") -> Choice:
    return Placement(book=with_).place(wish(tier, request_id), fleet(workers))


def broken(*_: object) -> Any:
    raise KeyError("x")


def picked(choice: Choice) -> str:
    return choice.picked.name if choice.picked is not None else ""


def test_a_filter_objects_a_scorer_counts_and_a_picker_picks():
    def not_the_first(wish: Wish, pool: PoolView) -> str | None:
        return "is the first" if pool.name == "w0" else None

    def last(wish: Wish, candidates: Sequence[Candidate]) -> Candidate:
        return candidates[-1]

    choice = placed(book(not_the_first, lambda wish, pool: 0.5, last))
    assert choice.words["w0"].objections == {"mine": "is the first"}
    assert choice.words["w1"].scores["mine"] == 0.5
    assert picked(choice) == "w2"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (broken, "filter mine failed: KeyError: 'x'"),
        (lambda wish, pool: True, "filter mine failed: it answered True, neither None nor words"),
    ],
)
def test_a_filter_that_fails_objects_in_words(rule: Callable[..., Any], told: str):
    mine = book(filter_=rule)
    choice = placed(mine)
    assert choice.picked is None
    assert choice.words["w2"].objections == {"mine": told}
    assert mine.failures.counts == {("filter", "mine"): 3}


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (broken, "scorer mine failed: KeyError: 'x'"),
        (lambda wish, pool: 1.5, "scorer mine failed: it answered 1.5, not 0.0 to 1.0"),
        (lambda wish, pool: float("nan"), "scorer mine failed: it answered nan, not 0.0 to 1.0"),
        (lambda wish, pool: None, "scorer mine failed: it answered None, not 0.0 to 1.0"),
    ],
)
def test_a_scorer_that_fails_scores_nothing_there_and_the_others_still_count(
    rule: Callable[..., Any], told: str
):
    mine = book(scorer=lambda wish, pool: rule(wish, pool) if pool.name == "w0" else 0.5)
    choice = placed(mine)
    assert picked(choice) == "w1"
    failed = choice.words["w0"]
    assert (failed.failed, failed.scores["mine"]) == (told, 0.0)
    assert failed.total == choice.words["w1"].total - 0.5
    assert choice.words["w1"].failed == ""
    assert mine.failures.counts == {("scorer", "mine"): 1}
    assert Placement(book=mine).explain(wish(), fleet(1)[0]).failed == told


@pytest.mark.parametrize(
    "rule", [broken, lambda wish, candidates: None, lambda wish, candidates: Candidate(*candidates[0])]
)
def test_where_a_picker_fails_the_best_is_picked(rule: Callable[..., Any]):
    mine = book(scorer=lambda wish, pool: float(pool.name == "w1"), picker=rule)
    assert picked(placed(mine)) == "w1"
    assert mine.failures.counts == {("picker", "mine"): 1}


def test_the_first_failure_of_a_rule_is_told_and_all_are_counted():
    told: list[str] = []
    mine = book(filter_=broken, told=told.append)
    placed(mine)
    placed(mine)
    assert told == ["filter mine failed: KeyError: 'x' (on w0); said once, counted from now on"]
    assert mine.failures.counts["filter", "mine"] == 6


def test_a_rule_that_no_tier_names_is_not_asked():
    mine = book(broken, broken, broken)
    assert picked(placed(mine, tier=FAST)) == "w0"
    assert not mine.failures.counts


def test_the_picker_of_diplex_answers_what_is_picked_without_one():
    named = OWN.with_rules({}, {}, {"mine": best})
    for workers in (1, 3, 8):
        tier = replace(FAST, picker="mine")
        assert picked(placed(named, workers=workers, tier=tier)) == picked(
            placed(OWN, workers=workers, tier=FAST)
        )


@pytest.mark.parametrize("workers", [9, 32])
def test_in_a_fleet_that_is_searched_a_picker_has_every_worker_with_room_in_the_fleets_order(workers: int):
    given: list[list[str]] = []

    def noting(wish: Wish, candidates: Sequence[Candidate]) -> Candidate:
        given.append([candidate.pool.name for candidate in candidates])
        return candidates[-1]

    some = fleet(workers)
    some[2].draining = True
    choice = searched(some, Placement(book=book(picker=noting)))
    assert picked(choice) == f"w{workers - 1}"
    assert given == [[f"w{number}" for number in range(workers) if number != 2]]


def test_in_a_large_fleet_a_picker_has_those_that_were_looked_at():
    given: list[int] = []

    def noting(wish: Wish, candidates: Sequence[Candidate]) -> Candidate:
        given.append(len(candidates))
        return candidates[0]

    choice = searched(fleet(200), Placement(book=book(picker=noting)))
    assert choice.picked is not None
    assert 1 < given[0] <= 8


def test_a_requests_lot_is_drawn_by_its_id_and_stays_the_same():
    first = wish(request_id="one")
    assert first.lot == wish(request_id="one").lot == first.at(3.0, 9.0).lot
    assert len({wish(request_id=str(number)).lot % 8 for number in range(64)}) == 8
