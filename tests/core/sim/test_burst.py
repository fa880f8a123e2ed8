"""The burst of docs/guide/burst.md on a virtual clock: what it costs those who chat beside it, exactly."""

from pathlib import Path

from diplex_cli import reader
from diplex_core.report.outcome import Outcome
from diplex_core.report.report import LedgerFigures, WorkerFigures
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.facts import facts_of
from diplex_core.sim.simulation import Simulation

CONFIG = reader.read([str(Path(__file__).parents[3] / "examples/burst.yaml")]).config()
CHATS = [Arrival(at / 4, 32, 128, "interactive", request_id=f"chat{at}") for at in range(60)]
BURST = [Arrival(2.0, 192, 256, "bulk", request_id=f"burst{at}") for at in range(16)]


def run(arrivals: list[Arrival]) -> tuple[dict[str, Outcome], dict[str, WorkerFigures], LedgerFigures]:
    outcomes: list[Outcome] = []
    simulation = Simulation(CONFIG.rules, map(facts_of, CONFIG.workers))
    simulation.run(sorted(arrivals, key=lambda one: one.at), outcomes.append)
    workers, ledger = simulation.figures()
    return {one.request_id: one for one in outcomes}, dict(workers), ledger


def test_a_burst_fills_the_pools_as_far_as_they_go_and_the_rest_waits():
    outcomes, workers, ledger = run(BURST)
    assert all(one.completed and one.output_tokens == 256 for one in outcomes.values())
    assert [worker.pool.peak for worker in workers.values()] == [28, 28], "two of 14 blocks each, of 40"
    assert sum(one.queued == 0.0 for one in outcomes.values()) == 4
    assert ledger.wrong == ()


def test_those_who_chat_beside_a_burst_never_wait_and_keep_what_they_were_promised():
    outcomes, workers, ledger = run([*CHATS, *BURST])
    tier = CONFIG.rules.tiers["interactive"]
    chats = [one for one in outcomes.values() if one.tier == "interactive"]
    assert all(one.queued == 0.0 for one in chats)
    assert all(one.met(tier) for one in chats)
    assert all(worker.pool.peak <= 40 for worker in workers.values())
    assert ledger.wrong == ()


def test_a_burst_beside_them_costs_those_who_chat_a_tenth_of_their_rate_at_most():
    alone, beside = run(CHATS)[0], run([*CHATS, *BURST])[0]
    slower = [beside[name].tpot / one.tpot for name, one in alone.items()]  # type: ignore[operator]
    assert 1.0 < max(slower) < 1.1
