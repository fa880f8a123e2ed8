"""Workers and whole simulations whose claims grow: asked for in time, paused, given way and gone on with."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diplex_core.events import AskKey, Granted, HeldClaim, RaiseClaim, WantedClaim, WorkerFacts
from diplex_core.growth import LEAD
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.faults import Cut, Kill
from diplex_core.sim.runs import Near, Over
from diplex_core.sim.simulation import Simulation
from diplex_core.sim.worker import VirtualWorker
from diplex_core.words import Claim, EndReason, Pattern, Reserve, Rules, Tier

LATER = 100.0  # a moment at which an engine that is told nothing has nothing left to do


def facts(name: str = "w0", *, blocks: int = 60, slots: int = 16, **more: object) -> WorkerFacts:
    known = {"gpu": "b200", "profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
    return WorkerFacts(
        name, f"p{name[1:]}", Pattern.A, frozenset({"m"}), 1, "", 32, blocks, slots, context=65_536,
        can_grow=True, engine="sim", simulated=True, calibration="chapter",
        **{**known, **more},  # type: ignore[arg-type]
    )  # fmt: skip


class Desk:
    """One worker, and what it would say to its router."""

    def __init__(self, **more: object) -> None:
        self.worker = VirtualWorker(facts(**more))  # type: ignore[arg-type]
        self.now = 0.0
        self.wants: list[WantedClaim] = []
        self.over: dict[Claim, Over] = {}

    def start(self, number: int, blocks: int, *, prompt: int = 64, output: int = 2_000, produced: int = 0):
        granted = Granted(
            AskKey(1, number), Claim(number, 1), self.worker.facts, f"r{number}", blocks, 1, 4000, "bulk", "",
            0, 1, start_by=9.0, queued=0.0, grows=True,
        )  # fmt: skip
        refused = self.worker.start(granted, number, Arrival(0.0, prompt, output), produced, self.now)
        assert refused is None
        return granted.claim

    def go_on(self, until: float) -> None:
        self.now = until
        while (due := self.worker.engine.due) is not None and due <= until:
            for word in self.worker.engine.advance(due):
                match word:
                    case Near():
                        self.wants += filter(None, [self.worker.near(word)])
                    case Over():
                        self.over[word.claim] = word
                        self.worker.ended(word)
                    case _:
                        self.worker.began(word)

    def raised(self, claim: Claim, blocks: int, number: int = 7) -> HeldClaim | None:
        return self.worker.raised(RaiseClaim("w0", claim, blocks, number), self.now)

    def said(self, claim: Claim) -> int:
        return self.worker.engine.so_far(claim, self.now)[0]


def test_a_claim_asks_for_its_next_size_once_and_waits_at_its_limit():
    desk = Desk()
    claim = desk.start(1, blocks=10)
    desk.go_on(LATER)
    assert desk.wants == [WantedClaim(claim, 14)]
    assert 64 + desk.said(claim) == 10 * 32
    assert desk.worker.engine.due is None


def test_it_asks_so_early_that_an_answer_in_time_lets_it_go_on_without_a_pause():
    desk = Desk()
    claim = desk.start(1, blocks=10)
    while not desk.wants:
        desk.go_on(desk.now + 0.01)
    assert 10 * 32 - 64 - LEAD <= desk.said(claim) <= 10 * 32 - 64 - LEAD + 2
    desk.raised(claim, 60)
    desk.go_on(LATER)
    tokens, _, gap = desk.worker.engine.so_far(claim, LATER)
    assert (64 + tokens, gap < 0.1) == (60 * 32, True)


def test_a_raise_is_answered_by_one_held_that_names_it_and_the_sequence_goes_on():
    desk = Desk()
    claim = desk.start(1, blocks=10)
    desk.go_on(LATER)
    held = desk.raised(claim, 14)
    assert held is not None
    assert (held.blocks, held.answers_raise, held.grows) == (14, 7, True)
    assert desk.worker.wanted(claim) is None
    desk.go_on(2 * LATER)
    assert 64 + desk.said(claim) == 14 * 32
    assert desk.wants[1:] == [WantedClaim(claim, 18)]


def test_without_room_a_raise_is_answered_with_the_old_size_and_wants_it_still():
    desk = Desk(blocks=23)
    claim = desk.start(1, blocks=10)
    desk.start(2, blocks=10)
    desk.go_on(LATER)
    held = desk.raised(claim, 14)
    assert held is not None
    assert (held.blocks, held.answers_raise) == (10, 7)
    assert desk.worker.wanted(claim) == WantedClaim(claim, 14)


def test_a_raise_of_what_has_ended_is_answered_by_its_end_alone():
    desk = Desk()
    claim = desk.start(1, blocks=10, output=20)
    desk.go_on(LATER)
    assert desk.over[claim].reason is EndReason.STOP
    assert desk.raised(claim, 14) is None


def test_while_its_link_is_down_a_claim_grows_from_blocks_that_nobody_holds():
    desk = Desk(blocks=25)
    waits, other = desk.start(1, blocks=10), desk.start(2, blocks=10, output=200)
    desk.go_on(5.0)
    assert desk.worker.wanted(waits) == WantedClaim(waits, 14)
    desk.worker.cut_off(desk.now)
    assert (desk.worker.held(waits).blocks, desk.worker.wanted(waits)) == (14, None)
    desk.go_on(LATER)  # then the other has ended, and there is room for all steps but one
    assert other in desk.over
    assert desk.worker.held(waits).blocks == 22
    assert desk.worker.wanted(waits) == WantedClaim(waits, 26)


def test_an_old_raise_that_comes_after_a_claim_grew_by_itself_makes_it_no_smaller():
    desk = Desk()
    claim = desk.start(1, blocks=10)
    desk.worker.cut_off(0.0)
    desk.go_on(LATER)
    grown = desk.worker.held(claim).blocks
    assert grown > 14
    held = desk.raised(claim, 14)
    assert held is not None
    assert (held.blocks, held.answers_raise) == (grown, 7)


def test_a_full_report_says_again_who_waits_to_grow():
    desk = Desk()
    claim = desk.start(1, blocks=10)
    desk.start(2, blocks=4, output=10)
    desk.go_on(LATER)
    report = desk.worker.full_report(desk.now, opening=True).report
    assert report.wants == (WantedClaim(claim, 14),)


def test_who_is_stopped_to_give_way_has_said_all_that_it_had_and_goes_on_behind_it():
    desk = Desk()
    claim = desk.start(1, blocks=10)
    desk.go_on(2.0)
    assert desk.worker.stop(claim, EndReason.PREEMPTED, desk.now) is None
    so_far = desk.said(claim)
    desk.go_on(LATER)
    assert desk.over[claim].tokens == so_far > 0
    again = desk.start(3, blocks=60, produced=so_far)
    assert desk.worker.held(again).prompt_tokens == 64 + so_far
    desk.go_on(2 * LATER)
    assert so_far + desk.said(again) + 64 == 60 * 32


BULK = Tier("bulk", (Pattern.A,), max_output_tokens=4_096, reserve=Reserve.EXPECTED, preemptible=True)
RULES = Rules(frozenset({"m"}), "m", {"bulk": BULK}, "bulk")


def simulated(
    arrivals: list[Arrival], *workers: WorkerFacts, **more: object
) -> tuple[Simulation, list[Outcome]]:
    """A run in which the router knows from the start that answers mostly come to 100 tokens."""
    simulation = Simulation(RULES, workers or [facts(blocks=200)], **more)  # type: ignore[arg-type]
    for _ in range(50):
        simulation.admission.lengths.saw("default", "bulk", "m", 100)
    outcomes: list[Outcome] = []
    simulation.run(arrivals, outcomes.append)
    _, ledger = simulation.figures()
    assert ledger.wrong == ()
    for worker in simulation.workers.values():
        assert worker.pool.peak_blocks <= worker.facts.capacity_blocks
        assert worker.guests == {}
    assert len(outcomes) == len(arrivals)
    return simulation, outcomes


def asks(count: int, output: int, *, every: float = 0.01, prompt: int = 100) -> list[Arrival]:
    return [Arrival(1.0 + every * at, prompt, output, max_tokens=4_096) for at in range(count)]


def test_a_pool_holds_more_requests_at_once_than_it_could_hold_in_full():
    simulation, outcomes = simulated(asks(12, 90), facts(blocks=200))  # in full each needs 132 blocks
    assert all(one.ended is Ending.COMPLETED and one.output_tokens == 90 for one in outcomes)
    assert simulation.workers["w0"].pool.peak_slots == 12
    assert simulation.admission.preempted == 0


def test_short_of_blocks_some_give_way_and_every_answer_is_whole():
    simulation, outcomes = simulated(asks(12, 1_500), facts(blocks=200), message=0.002)
    assert simulation.admission.preempted > 0
    assert [one.output_tokens for one in outcomes] == [1_500] * 12
    assert all(one.ended is Ending.COMPLETED for one in outcomes)


@given(
    lengths=st.lists(
        st.tuples(
            st.floats(0.0, 0.3),
            st.integers(1, 800),
            st.integers(1, 1_800),
            st.sampled_from([0, 0, 1, 2]),  # which prompts it shares its beginning with; 0: none
        ),
        min_size=10,
        max_size=30,
    ),
    speculates=st.booleans(),
    faults=st.lists(
        st.one_of(
            st.builds(Cut, st.floats(0.5, 20.0), st.sampled_from(["w0", "w1"]), st.floats(0.05, 6.0)),
            st.builds(Kill, st.floats(0.5, 20.0), st.sampled_from(["w0", "w1"]), st.floats(0.05, 6.0)),
        ),
        max_size=3,
    ),
    message=st.sampled_from([0.0, 0.004, 0.05]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_breaks_while_claims_grow_no_token_is_lost_or_said_twice(
    lengths, speculates, faults, message
):
    """That each answer is whole is held by the simulation itself: see `Ticket.check`."""
    at, arrivals = 0.0, []
    for after, prompt, output, family in lengths:
        at += after
        shared = tuple(family * 1_000 + block for block in range((prompt - 1) // 32)) if family else ()
        arrivals.append(Arrival(at, prompt, output, block_hashes=shared, max_tokens=2_000))
    drafts = {"draft_tokens": 4, "pattern": Pattern.A_EAGLE} if speculates else {}
    workers = [replace(facts(name, blocks=90), **drafts) for name in ("w0", "w1")]
    rules = replace(RULES, tiers={"bulk": replace(BULK, patterns=(Pattern.A, Pattern.A_EAGLE))})
    simulation = Simulation(rules, workers, message=message, faults=faults)
    for _ in range(50):
        simulation.admission.lengths.saw("default", "bulk", "m", 100)
    outcomes: list[Outcome] = []
    simulation.run(arrivals, outcomes.append)
    # Where both workers were given up at a time, whoever asks then is told so, and nobody else fails.
    assert all(one.ended is Ending.COMPLETED or one.problem == "NO_WORKER" for one in outcomes)
    for one in outcomes:
        if one.ended is Ending.COMPLETED:
            assert one.output_tokens == arrivals[int(one.request_id[1:])].output_tokens
    _, ledger = simulation.figures()
    assert ledger.wrong == ()


@pytest.mark.parametrize(("most", "said"), [(0, 90), (4_096, 90), (50, 50)])
def test_an_answer_ends_where_it_does_whatever_its_client_let_it_come_to(most: int, said: int):
    _, (outcome,) = simulated([Arrival(1.0, 100, 90, max_tokens=most)])
    assert (outcome.ended, outcome.output_tokens) == (Ending.COMPLETED, said)
