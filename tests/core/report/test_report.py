"""From outcomes to a report, and the report as JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diplex_core.report import Ending, LedgerFigures, Outcome, Pool, Report, WorkerFigures, report_of
from diplex_core.report.report import targets
from diplex_core.words import Tier

Make = Callable[..., Outcome]
MODEL = "m"
WORKERS = {
    "pkg0": WorkerFigures("C", "sim", True, "chapter", Pool(1000, 12.5, 40, 0), {"interactive": 2}),
}
SPREAD = {"p50", "p95", "p99"}
# Design §5.7, field by field.
CONTRACT: dict[str, Any] = {
    "report": int,
    "duration_s": float,
    "tiers": {
        "*": {
            **dict.fromkeys(("requests", "completed", "rejected", "degraded", "failed"), int),
            **dict.fromkeys(("ttft_ms", "tpot_ms", "e2e_ms", "queue_ms"), dict.fromkeys(SPREAD, float)),
            "slo_attainment": float,
            "goodput_rps": float,
            "output_tokens": int,
            "retry_after": dict.fromkeys(("given", "obeyed", "succeeded"), int),
        }
    },
    "tenants": {"*": dict.fromkeys(("requests", "output_tokens"), int)},
    "fairness_jain": float,
    "output_tokens_per_s": float,
    "goodput_rps": float,
    "prefix": dict.fromkeys(("prompt_tokens", "prefill_tokens_saved"), int),
    "workers": {
        "*": {
            **dict.fromkeys(("pattern", "engine", "calibration"), str),
            "requests": int,
            "requests_by_tier": {"*": int},
            "prefill_tokens": int,
            "kv_blocks": {"capacity": int, "mean": float, "peak": int, "end": int},
        }
    },
    "ledger": dict.fromkeys(
        ("leases_opened", "leases_closed", "blocks_reserved_end", "preempted", "refused_by_worker",
         "drift_max", "over_capacity"),
        int,
    ),
}  # fmt: skip


def report(outcomes: list[Outcome], tiers: dict[str, Tier], **more: Any) -> Report:
    given: dict[str, Any] = {"model": MODEL, "duration": 10.0, **more}
    return report_of(outcomes, tiers, WORKERS, LedgerFigures(), **given)


def breaks(contract: Any, said: Any, path: str = "") -> list[str]:
    """Where a report has not the shape that scripts rely on."""
    if not isinstance(contract, dict):
        return [] if isinstance(said, contract) else [f"{path} is {said!r}"]
    if not isinstance(said, dict):
        return [f"{path} is {said!r}"]
    names = said if "*" in contract else contract
    missing = [f"{path}.{name} is missing" for name in names if name not in said]
    return missing + [
        wrong
        for name in names
        if name in said
        for wrong in breaks(contract.get(name, contract.get("*")), said[name], f"{path}.{name}")
    ]


def test_the_json_has_every_field_that_scripts_rely_on(outcome: Make, tiers: dict[str, Tier]):
    made = report([outcome(), outcome(), outcome("bulk")], tiers).to_json()
    assert breaks(CONTRACT, made) == []
    assert made["report"] == 1
    assert "\n" not in json.dumps(made)


def test_a_tier_without_requests_has_no_figures_and_not_zeros(tiers: dict[str, Tier]):
    made = report([], tiers).to_json()
    for tier in made["tiers"].values():
        assert tier["ttft_ms"] == tier["tpot_ms"] == {"p50": None, "p95": None, "p99": None}
        assert tier["slo_attainment"] is None
    assert made["fairness_jain"] is None
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_without_time_there_are_no_rates(outcome: Make, tiers: dict[str, Tier]):
    made = report([outcome()], tiers, duration=0.0).to_json()
    assert made["goodput_rps"] is made["output_tokens_per_s"] is None
    assert made["tiers"]["interactive"]["goodput_rps"] is None


@pytest.mark.parametrize(
    ("more", "met"),
    [
        ({}, True),
        ({"ttft": 0.15}, True),  # 100 ms and 50 for the thousand tokens
        ({"ttft": 0.151}, False),
        ({"tpot": 0.0101}, False),
        ({"tpot": None, "output_tokens": 1}, True),
        ({"ttft": None, "e2e": None, "output_tokens": 0}, False),
        ({"served_tier": "bulk"}, False),
        ({"ended": Ending.REJECTED}, False),
        ({"ended": Ending.FAILED}, False),
        ({"model": "small", "ttft": 2.0, "tpot": 1.0}, True),
    ],
)
def test_a_request_met_its_tier_only_if_it_met_every_target_undegraded(
    more: dict[str, Any], met: bool, outcome: Make, tiers: dict[str, Tier]
):
    assert outcome(**more).met(tiers["interactive"]) is met


def test_a_deadline_is_a_target_like_another(outcome: Make, tiers: dict[str, Tier]):
    assert outcome("bulk", ttft=500.0, e2e=600.0).met(tiers["bulk"])
    assert not outcome("bulk", ttft=500.0, e2e=600.1).met(tiers["bulk"])


def test_attainment_is_a_share_of_those_that_arrived(outcome: Make, tiers: dict[str, Tier]):
    outcomes = [
        outcome(),
        outcome(ttft=9.0),
        outcome(served_tier="bulk"),
        outcome(ended=Ending.REJECTED),
        outcome(ended=Ending.FAILED),
    ]
    tier = report(outcomes, tiers).tiers["interactive"]
    assert (tier.requests, tier.completed, tier.rejected, tier.degraded, tier.failed) == (5, 3, 1, 1, 1)
    assert (tier.attainment, tier.goodput) == (0.2, 0.1)


def test_latencies_are_those_of_completed_requests(outcome: Make, tiers: dict[str, Tier]):
    broken = outcome(ended=Ending.FAILED, ttft=99.0, e2e=99.0, worker="pkg0", tenant="acme")
    tier = report([outcome(), broken], tiers).tiers["interactive"]
    assert (tier.ttft.p99, tier.e2e.p99) == (0.1, 0.2)


def test_a_request_sent_again_counts_once_and_by_how_it_ended(outcome: Make, tiers: dict[str, Tier]):
    outcomes = [
        outcome(retry_given=1, retry_obeyed=1, ttft=1.1),
        outcome(ended=Ending.REJECTED, retry_given=2, retry_obeyed=1),
        outcome(ended=Ending.REJECTED, retry_given=1),
    ]
    tier = report(outcomes, tiers).to_json()["tiers"]["interactive"]
    assert (tier["requests"], tier["completed"], tier["rejected"]) == (3, 1, 2)
    assert tier["retry_after"] == {"given": 4, "obeyed": 2, "succeeded": 1}


def test_fairness_divides_each_tenants_tokens_by_its_weight(outcome: Make, tiers: dict[str, Tier]):
    outcomes = [outcome(tenant="acme", output_tokens=200), outcome(tenant="blue", output_tokens=100)]
    assert report(outcomes, tiers, weights={"acme": 2.0}).fairness == 1.0
    assert report(outcomes, tiers).fairness == pytest.approx(0.9)


def test_a_refused_request_is_its_key_owners_where_only_one_owner_is_known(
    outcome: Make, tiers: dict[str, Tier]
):
    refused = outcome(ended=Ending.REJECTED)
    assert report([outcome(), refused], tiers).tenants == {"acme": (2, 21)}
    assert report([outcome(), outcome(tenant="blue"), refused], tiers).tenants["unknown"] == (1, 0)
    assert report([refused], tiers).tenants == {"unknown": (1, 0)}


def test_problems_are_counted_by_their_reason(outcome: Make, tiers: dict[str, Tier]):
    outcomes = [outcome(ended=Ending.REJECTED, problem="QUEUED_TOO_LONG")] * 2
    outcomes.append(outcome(ended=Ending.FAILED, problem="WORKER_GONE"))
    problems = report(outcomes, tiers).problems
    assert list(problems.items()) == [("rejected: QUEUED_TOO_LONG", 2), ("failed: WORKER_GONE", 1)]


@pytest.mark.parametrize(
    ("ledger", "wrong"),
    [
        (LedgerFigures(5, 5), ()),
        (LedgerFigures(5, 4), ("5 leases opened, 4 closed",)),
        (LedgerFigures(5, 5, blocks_reserved_end=3), ("3 blocks held at the end",)),
        (LedgerFigures(5, 5, over_capacity=2), ("a pool held more than it has, 2 times",)),
        (LedgerFigures(5, 5, preempted=1, refused_by_worker=2, drift_max=3), ()),
    ],
)
def test_the_ledger_says_what_is_not_as_it_must_be(ledger: LedgerFigures, wrong: tuple[str, ...]):
    assert ledger.wrong == wrong


def test_targets_read_as_the_configuration_says_them(tiers: dict[str, Tier]):
    assert targets(tiers["interactive"], MODEL) == "TTFT 100 + 50/1k ms, TPOT 10 ms"
    assert targets(tiers["interactive"], "small") == "TTFT 3000 ms"
    assert targets(tiers["bulk"], MODEL) == "E2E 600 s"


SOME = st.tuples(
    st.sampled_from(("interactive", "bulk")),
    st.sampled_from(list(Ending)),
    st.none() | st.floats(0, 100),
    st.none() | st.floats(0, 1),
    st.booleans(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SOME), st.floats(0.001, 1e6))
def test_every_request_is_counted_once_and_every_share_lies_between_0_and_1(
    outcome: Make, tiers: dict[str, Tier], some: list[tuple[Any, ...]], duration: float
):
    outcomes = [
        outcome(tier, ended, ttft=ttft, e2e=ttft, tpot=tpot, served_tier="other" if degraded else tier)
        for tier, ended, ttft, tpot, degraded in some
    ]
    made = report(outcomes, tiers, duration=duration)
    assert sum(tier.requests for tier in made.tiers.values()) == len(outcomes)
    for tier in made.tiers.values():
        assert tier.completed + tier.rejected + tier.failed == tier.requests
        assert tier.met <= tier.completed
        assert tier.attainment is None or 0 <= tier.attainment <= 1
    assert breaks(CONTRACT["ledger"], made.to_json()["ledger"]) == []
    json.dumps(made.to_json(), allow_nan=False)
