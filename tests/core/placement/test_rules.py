"""The filters and scorers that predictions and neighbours decide."""

from dataclasses import dataclass, field, replace

import pytest

from diplex_core.backfill import Reservation, Start
from diplex_core.events import WorkerFacts
from diplex_core.ledger import PoolLedger
from diplex_core.placement.place import Placement
from diplex_core.placement.rules import FILTERS, SCORERS, Wish
from diplex_core.placement.scorers import WEIGHTS
from diplex_core.words import DEFAULT_TENANT, Pattern, Promise, Target, Tier

INTERACTIVE = Tier("interactive", (Pattern.C, Pattern.A), Promise(Target(0.040, 0.045), 0.008), priority=100)
BULK = Tier("bulk", (Pattern.A,))


@dataclass
class Pool:
    """A worker as placement sees it, with predictions as a test wants them."""

    name: str = "c"
    pattern: Pattern = Pattern.C
    predicted_ttft: float | None = None
    predicted_tpot: float | None = None
    harms: int = 0
    read: tuple[float, float] = (0.0, 0.0)
    reserved: Reservation | None = None
    ends: float | None = None
    crowded: str = ""
    trouble: str = ""
    ledger: PoolLedger = field(default_factory=lambda: PoolLedger(100, 4))

    @property
    def facts(self) -> WorkerFacts:
        return WorkerFacts(self.name, self.name, self.pattern, frozenset({"m"}), 1, "", 32, 100, 4)

    def ttft(self, wish: Wish) -> float | None:
        return self.predicted_ttft

    def tpot(self, wish: Wish) -> float | None:
        return self.predicted_tpot

    def crowds(self, wish: Wish) -> str:
        return self.crowded

    def over(self, wish: Wish) -> float | None:
        return self.ends

    def harmed(self, wish: Wish, priority: int) -> int:
        return self.harms

    def given(self, wish: Wish) -> tuple[float, float]:
        return self.read


def wish(tier: Tier = INTERACTIVE, *, prompt: int = 1000, waited: float = 0.0) -> Wish:
    return Wish("m", tier, DEFAULT_TENANT, prompt, 32, headed=waited, arrived=5.0, now=5.0 + waited)


@pytest.mark.parametrize(
    ("rule", "predicted", "score"),
    [
        ("ttft", {"predicted_ttft": 0.0849}, 1.0),  # 40 ms and 45 ms for each 1000 prompt tokens
        ("ttft", {"predicted_ttft": 0.086}, 0.494),
        ("ttft", {"predicted_ttft": 0.850}, 0.05),
        ("ttft", {}, 1.0),  # unknown is not late
        ("tpot", {"predicted_tpot": 0.008}, 1.0),
        ("tpot", {"predicted_tpot": 0.016}, 0.25),
        ("tpot", {}, 1.0),
        ("neighbours", {"harms": 0}, 1.0),
        ("neighbours", {"harms": 3}, 0.25),
    ],
)
def test_a_scorer_counts_broken_promises(rule: str, predicted: dict[str, float], score: float) -> None:
    assert SCORERS[rule](wish(), Pool(**predicted)) == pytest.approx(score, abs=0.001)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "mean", "score"),
    [
        (0, 0, 1.0),
        (5_000, 20_000, 1.0),  # less than its peers: no better than as much
        (20_000, 20_000, 1.0),
        (30_000, 20_000, 0.65),  # one prompt of a quiet fleet
        (1_010_000, 1_000_000, 1.0),  # hardly more
        (1_072_000, 1_000_000, 0.5),
        (1_150_000, 1_000_000, 0.0),
    ],
)
def test_a_worker_that_was_given_more_to_read_than_its_peers_scores_less(
    own: float, mean: float, score: float
) -> None:
    hashed = replace(wish(), block_hashes=(1, 2))
    assert SCORERS["balance"](hashed, Pool(read=(own, mean))) == pytest.approx(score, abs=0.005)


def test_a_prompt_that_is_drawn_nowhere_goes_by_room_and_not_by_what_was_read_where() -> None:
    assert SCORERS["balance"](wish(), Pool(read=(1_200_000, 1_000_000))) == 1.0


def test_a_tier_that_promises_nothing_is_never_late() -> None:
    slow = Pool(predicted_ttft=9.0, predicted_tpot=9.0)
    assert [SCORERS[name](wish(BULK), slow) for name in ("ttft", "tpot")] == [1.0, 1.0]


def test_an_optional_filter_says_what_is_predicted_and_what_was_promised() -> None:
    late = Pool(predicted_ttft=0.2, predicted_tpot=0.02)
    assert FILTERS["keeps_ttft"](wish(), late) == "first token in 200 ms predicted, 85 ms promised"
    assert FILTERS["keeps_tpot"](wish(), late) == "token in 20 ms predicted, 8 ms promised"


def test_a_prompt_waits_for_streams_that_it_would_slow_but_no_longer_than_a_second() -> None:
    spares = FILTERS["spares_streams"]
    assert spares(wish(BULK), Pool(harms=2)) == "would slow 2 streams of a higher tier beyond their promise"
    assert spares(wish(BULK, waited=0.99), Pool(harms=2))
    assert spares(wish(BULK, waited=1.0), Pool(harms=2)) is None
    assert spares(wish(BULK), Pool(harms=0)) is None


C = Pool("c", Pattern.C, 0.05, 0.006)
A = Pool("a", Pattern.A, 0.05, 0.006)


def test_a_lower_tier_leaves_room_unless_it_is_owed_or_was_put_off_for_long() -> None:
    leaves = FILTERS["leaves_room"]
    full = Pool(crowded="would leave no sequence slot for tier interactive")
    assert leaves(wish(BULK), Pool()) is None
    assert leaves(wish(BULK, waited=9.9), full) == "would leave no sequence slot for tier interactive"
    assert leaves(wish(BULK, waited=10.0), full) is None
    assert leaves(replace(wish(BULK), owed=True), full) is None


def test_whoever_puts_off_a_request_that_the_pool_is_kept_for_is_not_placed_there() -> None:
    spares = FILTERS["spares_reserved"]
    kept = Reservation(7, "c", 0, False, 80, 1, Start(9.0, 30, spare_blocks=40, spare_slots=1))
    word = "kept for one that needs 80 KV blocks, and leaves 40 beside it"
    assert spares(wish(BULK), Pool(reserved=kept)) is None  # it fits beside
    assert spares(wish(BULK, prompt=2000), Pool(reserved=kept)) == word
    assert spares(wish(BULK, prompt=2000), Pool(reserved=kept, ends=9.0)) is None  # it is over by then
    assert spares(wish(BULK, prompt=2000), Pool(reserved=kept, ends=9.1)) == word
    assert spares(wish(INTERACTIVE, prompt=2000), Pool(reserved=kept)) is None  # a higher tier
    assert spares(wish(INTERACTIVE, prompt=2000), Pool(reserved=replace(kept, owed=True))) == word
    assert spares(replace(wish(BULK, prompt=2000), lease_id=7), Pool(reserved=kept)) is None  # its own


@pytest.mark.parametrize(
    ("c", "a", "picked"),
    [
        ({}, {}, "c"),  # the tier prefers C
        ({"predicted_ttft": 0.09}, {}, "a"),  # A when C's prediction would break the promise
        ({"predicted_ttft": 0.09}, {"predicted_ttft": 0.3}, "c"),  # of two that are late the less late
        ({"predicted_tpot": 0.009}, {}, "a"),
        ({"harms": 1}, {}, "a"),
        (
            {"predicted_ttft": 0.09},
            {"harms": 1},
            "c",
        ),  # rather a little late than to break a neighbour's promise
        ({"predicted_ttft": None}, {}, "c"),
        ({"trouble": "draining"}, {}, "a"),
    ],
)
def test_the_preferred_pattern_is_picked_unless_a_promise_would_be_broken_there(
    c: dict[str, float], a: dict[str, float], picked: str
) -> None:
    choice = Placement().place(wish(), [replace(C, **c), replace(A, **a)])  # type: ignore[arg-type]
    assert choice.picked is not None
    assert choice.picked.name == picked


def test_a_choice_keeps_every_scorers_word_and_the_first_objection() -> None:
    choice = Placement().place(wish(), [C, replace(A, trouble="draining")])
    assert choice.words["a"].objections == {"healthy": "draining"}
    assert choice.words["c"].scores.keys() == WEIGHTS.keys()
    assert choice.words["c"].total == pytest.approx(sum(WEIGHTS.values()) - WEIGHTS["prefix"])
    assert (choice.words["c"].ttft, choice.words["c"].tpot) == (0.05, 0.006)


def test_a_tier_adds_filters_and_changes_weights() -> None:
    strict = replace(INTERACTIVE, filters=("keeps_ttft",), scorers={"room": 0.0, "preferred_pattern": 5.0})
    placement = Placement()
    choice = placement.place(wish(strict), [replace(C, predicted_ttft=0.2)])
    assert choice.picked is None
    assert list(choice.words["c"].objections) == ["keeps_ttft"]
    weights = placement.weights_of(strict)
    assert "room" not in weights
    assert weights["preferred_pattern"] == 5.0
    assert placement.weights_of(INTERACTIVE) == WEIGHTS


def test_only_a_tier_without_a_first_token_to_promise_spares_others_by_itself() -> None:
    assert BULK.own_filters == ("leaves_room", "spares_streams")
    assert INTERACTIVE.own_filters == ()
    assert replace(BULK, filters=()).own_filters == ()
