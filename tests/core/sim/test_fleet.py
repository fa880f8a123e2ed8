"""Clients, workers and messages on one virtual clock: what becomes of requests when something goes wrong."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diplex_core.events import Asked, Decision, Event, Refused, WorkerFacts
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.faults import Cut, Drain, Kill, Slow
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Pattern, Promise, Rules, Target, Tier, WhenLate

TIER = Tier("t", (Pattern.A,), max_queue=60.0)
RULES = Rules(frozenset({"m"}), "m", {"t": TIER}, "t")


def facts(name: str = "w0", *, blocks: int = 2_000, slots: int = 8, **more: object) -> WorkerFacts:
    known = {"gpu": "b200", "profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
    return WorkerFacts(
        name, f"p{name[1:]}", Pattern.A, frozenset({"m"}), 1, "", 32, blocks, slots, context=65_536,
        engine="sim", simulated=True, calibration="chapter", reports_residency=True, **{**known, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def ask(at: float, prompt: int = 500, output: int = 100, **more: object) -> Arrival:
    return Arrival(at, prompt, output, **more)  # type: ignore[arg-type]


def run(simulation: Simulation, arrivals: list[Arrival]) -> list[Outcome]:
    """Outcomes in the order of their arrival; the books are closed."""
    outcomes: list[Outcome] = []
    simulation.run(arrivals, outcomes.append)
    assert len(outcomes) == len(arrivals)
    _, ledger = simulation.figures()
    assert ledger.wrong == ()
    return sorted(outcomes, key=lambda one: one.arrived)


def simulation(*workers: WorkerFacts, rules: Rules = RULES, **more: object) -> Simulation:
    return Simulation(rules, workers or [facts()], **more)  # type: ignore[arg-type]


def test_four_messages_come_to_a_time_to_first_token():
    (near,) = run(simulation(), [ask(1.0)])
    (far,) = run(simulation(message=0.010), [ask(1.0)])
    assert near.ttft is not None and far.ttft is not None and far.e2e is not None and near.e2e is not None
    assert far.ttft == pytest.approx(near.ttft + 0.040)
    assert far.e2e == pytest.approx(near.e2e + 0.040)
    assert far.tpot == pytest.approx(near.tpot)


def test_an_outcome_has_what_the_report_counts():
    (one,) = run(simulation(), [ask(1.0, output=50, request_id="mine", tier="t", model="m")])
    assert (one.request_id, one.tier, one.served_tier, one.model) == ("mine", "t", "t", "m")
    assert (one.worker, one.tenant, one.prompt_tokens, one.output_tokens) == ("w0", "default", 500, 50)
    assert one.ended is Ending.COMPLETED
    assert one.tpot == pytest.approx((one.e2e - one.ttft) / 49)  # type: ignore[operator]
    assert one.tpot < one.longest_gap * 1.001 < 2 * one.tpot  # type: ignore[operator]


def test_arrivals_are_taken_as_they_are_due():
    taken: list[float] = []
    seen: list[tuple[float, int]] = []

    def coming():
        for at in range(50):
            taken.append(load.now)
            yield ask(float(at), output=10)

    load = simulation()
    load.run(coming(), lambda outcome: None, lambda now, over: seen.append((now, over)))
    assert all(now >= at - 1 for at, now in enumerate(taken))
    assert seen[-1][1] <= 50
    assert all(one < other for one, other in pairwise(now for now, _ in seen))


def test_a_killed_workers_requests_go_on_elsewhere_behind_what_they_had_said():
    load = simulation(facts("w0"), facts("w1"), faults=[Kill(2.0, "w0")], message=0.001)
    outcomes = run(load, [ask(1.0, output=1_000), ask(1.001, output=1_000)])
    assert [one.ended for one in outcomes] == [Ending.COMPLETED] * 2
    assert {one.worker for one in outcomes} == {"w1"}
    moved = max(outcomes, key=lambda one: one.longest_gap or 0.0)
    assert moved.output_tokens == 1_000
    assert moved.longest_gap > 0.05  # type: ignore[operator]  # the pause, and the whole prompt again


def test_a_worker_that_cannot_resume_cuts_its_answers_short():
    load = simulation(facts("w0", can_resume=False), faults=[Kill(2.0, "w0", back_after=1.0)])
    before, after = run(load, [ask(1.0, output=1_000), ask(2.5, output=10)])
    assert (before.ended, before.problem) == (Ending.FAILED, "CUT_SHORT")
    assert 0 < before.output_tokens < 1_000
    assert after.ended is Ending.COMPLETED


def test_a_killed_worker_is_back_with_an_empty_pool():
    load = simulation(facts("w0", slots=2), faults=[Kill(2.0, "w0", back_after=0.5)])
    outcomes = run(load, [ask(1.0 + 0.01 * at, output=300) for at in range(4)])
    assert all(one.completed for one in outcomes)
    assert load.workers["w0"].facts.boot == 2


def test_without_any_worker_left_requests_are_refused_in_the_end():
    (one,) = run(simulation(faults=[Kill(0.5, "w0")]), [ask(1.0)])
    assert (one.ended, one.problem) == (Ending.FAILED, "NO_WORKER")


def test_a_cut_link_stops_no_stream():
    quiet = run(simulation(), [ask(1.0, output=600)])
    load = simulation(faults=[Cut(1.5, "w0", for_=0.7)])
    assert run(load, [ask(1.0, output=600)]) == quiet


def test_a_link_that_is_cut_for_longer_than_a_router_waits_stops_no_stream_either():
    load = simulation(faults=[Cut(1.5, "w0", for_=5.0)], message=0.002)
    one, late = run(load, [ask(1.0, output=2_000), ask(2.0, output=10)])
    assert one.completed
    assert one.longest_gap < 0.05  # type: ignore[operator]
    assert late.problem == "NO_WORKER" or late.completed


def test_a_slow_worker_is_slow_for_so_long():
    def took(*faults: Slow) -> float:
        (one,) = run(simulation(faults=faults), [ask(0.0, output=1_000)])
        return one.e2e or 0.0

    plain = took()
    assert took(Slow(1.0, "w0", 3.0, for_=1.5)) == pytest.approx(plain + 1.0, abs=0.05)
    assert took(Slow(1.0, "p0", 3.0, for_=1.5), Slow(1.0, "w0", 1.0, for_=9.0)) == pytest.approx(
        plain + 1.0, abs=0.05
    )


def test_a_draining_worker_finishes_what_it_has():
    load = simulation(facts("w0"), facts("w1"), faults=[Drain(1.5, "w0")])
    outcomes = run(load, [ask(1.0 + 0.1 * at, output=400) for at in range(10)])
    assert all(one.completed for one in outcomes)
    assert {one.worker for one in outcomes if one.arrived >= 1.5} == {"w1"}
    assert "w0" in {one.worker for one in outcomes}


def test_a_fault_names_a_worker_or_a_package():
    with pytest.raises(ValueError, match="a fault names 'w9', no worker and no package"):
        simulation(faults=[Drain(1.0, "w9")])


def rejecting() -> Rules:
    tier = replace(TIER, promise=Promise(Target(0.2)), when_late=WhenLate.REJECT)
    return replace(RULES, tiers={"t": tier})


BURST = [ask(1.0 + 0.001 * at, prompt=4_000, output=60, request_id=f"n{at}") for at in range(12)]


def test_a_refused_request_is_a_rejected_one_and_is_not_sent_again_unasked():
    refused = [one for one in run(simulation(rules=rejecting()), BURST) if one.ended is Ending.REJECTED]
    assert refused
    assert all((one.problem, one.retry_given, one.retry_obeyed) == ("TOO_LATE", 1, 0) for one in refused)


def test_a_refused_request_is_sent_once_more_exactly_when_its_refusal_said():
    load = simulation(rules=rejecting(), retry=True)
    asked: dict[str, list[float]] = {}
    promised: dict[str, float] = {}
    step = load.admission.step

    def listening(event: Event, now: float) -> list[Decision]:
        if isinstance(event, Asked):
            asked.setdefault(event.ask.request_id, []).append(now)
            request = event.ask.request_id
        decisions = step(event, now)
        for decision in decisions:
            if isinstance(decision, Refused) and isinstance(event, Asked):
                promised.setdefault(request, now + (decision.refusal.retry_after or 0.0))
        return decisions

    load.admission.step = listening  # type: ignore[method-assign]
    again = [one for one in run(load, BURST) if one.retry_obeyed]
    assert {one.request_id for one in again} == set(promised)
    for one in again:
        first, second = asked[one.request_id]
        assert second == pytest.approx(promised[one.request_id])
        assert second > first + 0.01
    assert any(one.completed for one in again)


@pytest.mark.parametrize(("timeout", "tokens"), [(1.0, True), (0.01, False)])
def test_a_client_gives_up_at_its_deadline(timeout: float, tokens: bool):
    one, other = run(simulation(timeout=timeout), [ask(1.0, output=3_000), ask(5.0, prompt=1, output=1)])
    assert (one.ended, one.problem) == (Ending.FAILED, "DEADLINE_PASSED")
    assert (one.output_tokens > 0) is tokens
    assert other.completed


def test_a_client_that_waits_gives_up_too():
    tier = replace(TIER, max_queue=None)
    load = simulation(facts(slots=1), rules=replace(RULES, tiers={"t": tier}), timeout=2.0)
    outcomes = run(load, [ask(1.0, output=150), ask(1.1, output=3_000), ask(1.1), ask(1.2, output=10)])
    assert [one.problem for one in outcomes] == ["", "DEADLINE_PASSED", "DEADLINE_PASSED", ""]
    waited, ran = outcomes[1:3]  # the one that ran is over when its worker says so
    assert waited.output_tokens == 0 < ran.output_tokens


# Prefixes.


def told(number: int, prompt: int, *, at: float, shared: int = 20, output: int = 20) -> Arrival:
    """A prompt whose first blocks are everybody's, and the others its own."""
    hashes = [*range(1, shared + 1), *range(1_000 * number, 1_000 * number + 900)][: prompt // 32]
    return Arrival(at, prompt, output, block_hashes=tuple(hashes))


def test_what_is_resident_is_not_read_again():
    first, second = run(simulation(), [told(1, 1_000, at=1.0), told(2, 1_000, at=3.0)])
    assert (first.cached_tokens, second.cached_tokens) == (0, 640)
    assert second.ttft < 0.7 * first.ttft  # type: ignore[operator]


def test_a_prompt_can_be_hit_while_its_request_runs():
    _, second = run(simulation(), [told(1, 1_000, at=1.0, output=2_000), told(2, 1_000, at=3.0)])
    assert second.cached_tokens == 640


def test_requests_without_hashes_hit_nothing():
    plain = [ask(1.0, prompt=1_000, output=20), ask(3.0, prompt=1_000, output=20)]
    assert [one.cached_tokens for one in run(simulation(), plain)] == [0, 0]


def test_a_prompt_that_is_cached_whole_still_has_its_last_token_read():
    whole = [told(0, 640, at=1.0), told(0, 640, at=3.0)]
    assert [one.cached_tokens for one in run(simulation(), whole)] == [0, 639]


def test_short_of_room_the_longest_unused_prefix_is_forgotten_first():
    # 64 blocks: each request takes 32 of its own and leaves 31 behind; the third needs 30 of the first's.
    others = [told(at, 1_000, at=1.0 + 2 * at, shared=0) for at in range(1, 4)]
    load = simulation(facts(blocks=64))
    outcomes = run(load, [*others, replace(others[2], at=10.0), replace(others[0], at=12.0)])
    assert [one.cached_tokens for one in outcomes] == [0, 0, 0, 992, 32]


@pytest.mark.parametrize("message", [0.0, 0.003])
def test_hits_that_are_gone_when_the_start_comes_are_asked_for_again(message: float):
    load = simulation(facts(blocks=150), message=message)
    outcomes = run(load, [told(at % 7, 1_600, at=1.0 + 0.013 * at, shared=20) for at in range(300)])
    assert all(one.completed for one in outcomes)
    assert any(one.cached_tokens for one in outcomes)
    worker = load.workers["w0"]
    assert worker.pool.resident.pinned == 0
    assert worker.cache.idle == len(worker.cache.kept) <= 150


# Figures.


def test_figures_and_timelines_tell_what_the_pools_held():
    load = simulation(facts("w0"), facts("w1"))
    outcomes = run(load, [ask(1.0 + 0.05 * at, output=200) for at in range(100)])
    workers, ledger = load.figures()
    assert {name: one.requests for name, one in workers.items()} == Counter(one.worker for one in outcomes)
    assert (ledger.leases_opened, ledger.leases_closed, ledger.over_capacity) == (100, 100, 0)
    for name, line in load.timelines().items():
        pool = workers[name].pool
        assert (pool.capacity, pool.end) == (2_000, 0)
        assert 0 < max(blocks for _, blocks in line) <= pool.peak <= pool.capacity
        assert pool.mean == pytest.approx(sum(blocks for _, blocks in line) / len(line), rel=0.2)
        assert all(later > earlier for (earlier, _), (later, _) in pairwise(line))


def test_a_long_run_has_no_longer_a_timeline():
    load = simulation()
    run(load, [ask(40.0 * at, output=10) for at in range(100)])
    (line,) = load.timelines().values()
    assert 200 < len(line) <= 512
    assert line[-1][0] > 3_900


moments, names = st.floats(0.1, 6.0), st.sampled_from(["w0", "w1", "p0"])
faults = st.one_of(
    st.builds(Kill, moments, names, st.sampled_from([None, 0.5, 4.0])),
    st.builds(Cut, moments, names, st.floats(0.1, 5.0)),
    st.builds(Slow, moments, names, st.floats(0.5, 9.0), st.floats(0.1, 3.0)),
    st.builds(Drain, moments, names),
)


@given(
    struck=st.lists(faults, max_size=5),
    asked=st.lists(
        st.tuples(st.floats(0.0, 0.5), st.integers(1, 900), st.integers(1, 150), st.integers(0, 9)),
        min_size=1,
        max_size=40,
    ),
    message=st.sampled_from([0.0, 0.002, 0.1]),
    retry=st.booleans(),
    timeout=st.sampled_from([None, 0.3, 5.0]),
    blocks=st.sampled_from([40, 300]),
)
@settings(max_examples=200, deadline=None)
def test_whatever_goes_wrong_each_fate_is_told_once_and_the_books_close(
    struck, asked, message, retry, timeout, blocks
):
    now, arrivals = 0.0, []
    for after, prompt, output, number in asked:
        now += after
        arrivals.append(replace(told(number, prompt, at=now, output=output), request_id=f"n{len(arrivals)}"))
    load = Simulation(
        rejecting() if retry else RULES,
        [facts("w0", blocks=blocks, slots=3), facts("w1", blocks=blocks)],
        faults=struck,
        message=message,
        retry=retry,
        timeout=timeout,
    )
    outcomes = run(load, arrivals)
    assert Counter(one.request_id for one in outcomes) == Counter(one.request_id for one in arrivals)
    asked_for = {one.request_id: one for one in arrivals}
    for one in outcomes:
        arrival = asked_for[one.request_id]
        if one.completed:
            assert one.output_tokens == arrival.output_tokens
            assert one.ttft is not None and one.e2e is not None and one.ttft <= one.e2e
    for worker in load.workers.values():
        assert (worker.pool.used_blocks, worker.pool.used_slots, worker.pool.resident.pinned) == (0, 0, 0)
        assert worker.pool.peak_blocks <= blocks
        assert (worker.engine.claimed, worker.engine.used_slots, worker.guests) == (0, 0, {})
