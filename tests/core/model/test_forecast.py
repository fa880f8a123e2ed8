"""What is predicted of one more request, held against what the simulated engine then does."""

from dataclasses import replace

import pytest

from diplex_core.events import Served, WorkerFacts
from diplex_core.model.forecast import Forecast, Load, forecast_of
from diplex_core.sim.arrivals import Arrival
from diplex_core.sim.simulation import Simulation
from diplex_core.words import Pattern, Promise, Rules, Target, Tier

ALONE = Load(sequences=0, unread=0, context=0.0, backlog=0.0, intake=0.0)


def facts(pattern: Pattern = Pattern.C, budget: int = 256, **more: object) -> WorkerFacts:
    known = {"gpu": "b200", "profile": "qwen2.5-72b", "weights": "mxfp4-mixed", "kv_cache": "mxfp8"}
    return WorkerFacts(
        "w", "w", pattern, frozenset({"m"}), 1, "w:1", 32, 20_000, 16, context=65536,
        calibration="chapter", simulated=True, prefill_budget=budget, **{**known, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def forecast(**more: object) -> Forecast:
    found = forecast_of(facts(**more))  # type: ignore[arg-type]
    assert found is not None
    return found


def run(simulation: Simulation, arrivals: list[Arrival]) -> list[Served]:
    served: list[Served] = []
    simulation.on_served = served.append
    simulation.run(arrivals, lambda outcome: None)
    return served


@pytest.mark.parametrize(
    "strange", [{"calibration": ""}, {"profile": "unheard-of"}, {"gpu": "cpu"}, {"gpu": ""}, {"profile": ""}]
)
def test_of_a_worker_without_figures_nothing_is_predicted(strange: dict[str, str]) -> None:
    assert forecast_of(replace(facts(), **strange)) is None


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("prompt", [1, 200, 2048, 7400])
def test_alone_the_first_token_comes_when_predicted(pattern: Pattern, prompt: int) -> None:
    known = facts(pattern, 256 if pattern is Pattern.C else 0)
    tier = Tier("t", (pattern,))
    rules = Rules(frozenset({"m"}), "m", {"t": tier}, "t")
    (served,) = run(Simulation(rules, [known], seed=3), [Arrival(0.0, prompt, 20, "t")])
    assert served.ttft == pytest.approx(served.predicted_ttft, rel=0.4)


def test_in_a_burst_the_backlog_is_predicted() -> None:
    tier = Tier("t", (Pattern.C,), Promise(Target(1.0)))
    rules = Rules(frozenset({"m"}), "m", {"t": tier}, "t")
    burst = [Arrival(0.001 * at, 1500 + 400 * (at % 5), 12, "t") for at in range(12)]
    served = sorted(run(Simulation(rules, [facts()]), burst), key=lambda one: int(one.request_id[1:]))
    assert len(served) == len(burst)
    for one in served[3:]:
        assert one.ttft == pytest.approx(one.predicted_ttft, rel=0.3)


def test_a_larger_prompt_a_fuller_engine_and_a_backlog_each_put_the_first_token_off() -> None:
    known = forecast()
    base = known.outlook(2000, ALONE).ttft
    assert known.outlook(4000, ALONE).ttft > base
    assert known.outlook(2000, replace(ALONE, sequences=8, context=2000.0)).ttft > base
    assert known.outlook(2000, replace(ALONE, backlog=0.1)).ttft == pytest.approx(base + 0.1)


def test_what_is_cached_need_not_be_read() -> None:
    known, load = forecast(), replace(ALONE, sequences=8, context=2000.0)
    whole, half = known.outlook(4000, load), known.outlook(4000, load, cached=2048)
    tail = known.outlook(1952, load)
    assert tail.ttft < half.ttft < whole.ttft  # its tail looks back at all that is cached
    assert half.reading.seconds < whole.reading.seconds
    assert half.undisturbed == whole.undisturbed  # it is as long as before


def test_prompts_that_came_of_late_slow_each_token_up_to_a_chunk_a_step() -> None:
    known = forecast()
    quiet, busy, flooded = (
        known.outlook(2000, replace(ALONE, sequences=8, context=2000.0, intake=rate)).tpot
        for rate in (0, 20_000, 1e9)
    )
    assert quiet < busy < flooded
    load = replace(ALONE, sequences=8, context=2000.0)
    assert flooded == pytest.approx(known.outlook(2000, load).reading.step, rel=0.1)


def test_with_256_tokens_a_step_a_full_latency_worker_keeps_8_ms_a_token() -> None:
    load = replace(ALONE, sequences=16, context=2000.0)
    assert forecast().outlook(7000, load).reading.step < 0.008
    assert forecast(budget=16_384).outlook(7000, load).reading.step > 0.1


def test_a_worker_that_simulates_ten_seconds_in_one_is_ten_times_as_fast() -> None:
    fast, load = forecast(time_scale=10.0), replace(ALONE, sequences=4, context=2000.0, intake=5_000.0)
    scaled = replace(load, intake=50_000.0)
    assert fast.outlook(2000, ALONE).ttft == pytest.approx(forecast().outlook(2000, ALONE).ttft / 10)
    assert fast.outlook(2000, scaled).tpot == pytest.approx(forecast().outlook(2000, load).tpot / 10)
    assert fast.reading(2000, load) == pytest.approx(forecast().reading(2000, load) / 10)


def test_workers_that_are_alike_share_what_is_predicted() -> None:
    assert forecast_of(facts()) is forecast_of(replace(facts(), name="other", boot=7, capacity_blocks=9_000))
    assert forecast_of(facts()) is not forecast_of(facts(budget=512))
