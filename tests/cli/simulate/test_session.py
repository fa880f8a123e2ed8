"""A stream against a small simulated fleet: what was asked for is what was run, and the report says so."""

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from diplex_cli.failures import UsageError
from diplex_cli.simulate import session
from diplex_cli.simulate.fleet import Fleet
from diplex_cli.simulate.session import Simulated, clamped
from diplex_cli.simulate.streams import Request
from diplex_core.sim.faults import Drain, Kill, Slow
from diplex_core.words import Tenant

Run = Callable[..., Simulated]
EVEN = {"fast": 0.5, "bulk": 0.5}


def test_every_request_is_accounted_for(simulated: Run):
    done = simulated("poisson:prefixes=3x512", 60, shares=EVEN, load=0.5)
    report = done.report.to_json()
    assert {name: tier["requests"] for name, tier in report["tiers"].items()} == {"fast": 30, "bulk": 30}
    assert sum(worker["requests"] for worker in report["workers"].values()) == 60
    assert report["ledger"]["leases_opened"] == report["ledger"]["leases_closed"] == 60
    assert report["ledger"]["over_capacity"] == report["ledger"]["blocks_reserved_end"] == 0
    assert done.fine
    assert report["run"]["requests_per_s"] == pytest.approx(
        0.5 * report["run"]["capacity_requests_per_s"], abs=1e-4
    )
    assert report["run"]["requests_sent"] == 60
    assert (report["run"]["packages"], report["run"]["config"]) == (2, "small.yaml")


def test_the_same_seed_gives_the_same_report_and_another_seed_another(simulated: Run):
    one, same, other = (
        simulated("bursty:prompt_p95=4000", 80, shares=EVEN, load=0.8, seed=seed).report.to_json()
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one["tiers"] != other["tiers"]


@pytest.mark.parametrize(("settings", "rate"), [({}, 4.0), ({"speed": 10.0}, 40.0)])
def test_speed_divides_arrival_times(simulated: Run, settings: dict[str, float], rate: float):
    done = simulated("steady:rate=4", 9, **settings)
    assert done.report.run["requests_per_s"] == rate
    assert done.seen.fine.points[-1] == pytest.approx(8 / rate)


def test_lengths_are_clamped_and_the_report_says_so(simulated: Run):
    done = simulated("steady:rate=1,prompt=3000,output=50", 4, clamp_input=1000, clamp_output=10)
    assert done.report.prompt_tokens == 4000
    assert done.report.tiers["bulk"].output_tokens == 40
    assert "NOT THE STREAM'S OWN LENGTHS: prompts clamped to 1,000 tokens, answers clamped to 10 tokens" in (
        done.report.notes
    )


def test_what_requests_ask_for_may_be_more_than_their_answers_come_to_and_the_report_says_so(simulated: Run):
    done = simulated("steady:rate=1,prompt=300,output=50", 4, max_tokens=2000)
    assert done.report.tiers["bulk"].output_tokens == 200
    assert done.report.run["max_tokens"] == 2000
    assert "each request asks for at most 2,000 tokens; its answer ends where the trace's does" in (
        done.report.notes
    )
    (worker,) = [one for one in done.report.workers.values() if one.requests]
    assert worker.pool.peak > 2000 // 32


@pytest.mark.parametrize(
    ("request_", "clamps", "after"),
    [
        (Request(1.0, 100, 10, (1, 2, 3)), (None, None), Request(1.0, 100, 10, (1, 2, 3))),
        (
            Request(1.0, 100, 10, (1, 2, 3)),
            (64, 5),
            Request(1.0, 64, 5, (1,)),
        ),  # the last token has to be read
        (Request(1.0, 100, 10, (1, 2, 3)), (65, 20), Request(1.0, 65, 10, (1, 2))),
        (Request(1.0, 0, 0), (None, None), Request(1.0, 1, 1)),
    ],
)
def test_a_shorter_prompt_shares_less(
    request_: Request, clamps: tuple[int | None, int | None], after: Request
):
    assert list(clamped([request_], *clamps, 32)) == [after]


def test_keys_share_the_requests_evenly_and_name_their_tenants(simulated: Run, fleet: Fleet):
    tenants = (Tenant("acme", "a"), Tenant("blue", "b"))
    bound = Fleet(replace(fleet.rules, tenants=tenants), fleet.workers, {})
    done = simulated("steady:rate=5", 40, bound, shares=EVEN, api_keys=("a", "b"))
    assert {name: requests for name, (requests, _) in done.report.tenants.items()} == {"acme": 20, "blue": 20}


def test_without_a_key_tenants_refuse_and_that_is_not_fine(simulated: Run, fleet: Fleet):
    bound = Fleet(replace(fleet.rules, tenants=(Tenant("acme", "a"),)), fleet.workers, {})
    done = simulated("steady:rate=5", 4, bound)
    assert done.report.problems == {"failed: UNKNOWN_KEY": 4}
    assert not done.fine


def test_faults_are_told_and_what_they_broke_is_in_the_report(simulated: Run):
    quiet = simulated("steady:rate=5,output=400", 40).report
    faults = (Kill(2.0, "pkg1", 1.0), Slow(5.0, "pkg1", 4.0, 2.0), Drain(7.9, "pkg0"))
    broken = simulated("steady:rate=5,output=400", 40, faults=faults).report
    assert broken.run["faults"][0] == {"kind": "kill", "at": 2.0, "worker": "pkg1", "back_after": 1.0}
    assert broken.run["faults"][1]["for"] == 2.0
    told = "pkg1 killed at 2 s, back after 1 s; pkg1 4 times as slow at 5 s for 2 s; pkg0 drained at 7.9 s"
    assert f"faults: {told}" in broken.notes
    gaps = [report.tiers["bulk"].longest_gap.p95 or 0.0 for report in (quiet, broken)]
    assert gaps[1] > 3 * gaps[0]


def test_scaled_time_is_told(simulated: Run, fleet: Fleet):
    scaled = Fleet(fleet.rules, tuple(replace(one, time_scale=10.0) for one in fleet.workers), {})
    done = simulated("steady:rate=5", 4, scaled)
    assert any(note.startswith("SIMULATED TIME IS SCALED (10)") for note in done.report.notes)


def test_a_load_needs_somebody_to_serve_it(simulated: Run, fleet: Fleet):
    latency = Fleet(fleet.rules, fleet.workers[:1], {})
    with pytest.raises(UsageError, match=r"--load: no simulated worker serves m in bulk. Mend: --tiers"):
        simulated("poisson", 4, latency, load=0.9)


def test_what_is_drawn_needs_a_rate(simulated: Run):
    with pytest.raises(
        UsageError, match=r"poisson: nobody says how many come a second. Mend: rate=10, or --load"
    ):
        simulated("poisson", 4)


def test_ctrl_c_lets_nothing_more_arrive_and_the_second_one_ends_everything(
    simulated: Run, monkeypatch: pytest.MonkeyPatch
):
    class Impatient(session.Seen):
        presses = 1

        def look(self, now: float, running: int, waiting: int) -> None:
            if now > 1.0 and self.presses:
                for _ in range(self.presses):
                    signal.raise_signal(signal.SIGINT)
                Impatient.presses = 0
            super().look(now, running, waiting)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(session, "Seen", Impatient)
    done = simulated("steady:rate=10", 100)
    assert done.report.run["interrupted"] is True
    sent = done.report.run["requests_sent"]
    assert 10 < sent < 15  # one was on its way already
    assert sent == done.report.tiers["bulk"].requests == done.report.tiers["bulk"].completed
    assert f"INTERRUPTED: {sent} requests arrived" in done.report.notes
    Impatient.presses = 2
    with pytest.raises(KeyboardInterrupt):
        simulated("steady:rate=10", 100)
    assert signal.getsignal(signal.SIGINT) is before
