"""The router's `/metrics`: what it says parses, and has the names that dashboards go by."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    Refusal,
    Refused,
    Report,
    Reported,
    Served,
    Why,
    WorkerFacts,
)
from diplex_core.placement.book import OWN
from diplex_core.placement.place import Placement
from diplex_core.words import EndReason, Pattern, Rules, Tenant, Tier
from diplex_router.metrics import Metrics

RULES = Rules(frozenset({"m"}), "m", {"standard": Tier("standard", (Pattern.A,))}, "standard")
FACTS = WorkerFacts("w1", "w1", Pattern.A, frozenset({"m"}), 1, "h:1", 32, 100, 4, context=2048)
SERVED = Served(
    "mine", "m", "standard", "default", FACTS, EndReason.STOP, 40, 11, 0.02, 0.5, 0.0075, 1.0, True, 0.4
)
WHO = (("model", "m"), ("tier", "standard"))


def page(metrics: Metrics) -> dict[tuple[object, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_the_page_parses_and_has_the_names_that_dashboards_go_by():
    admission = Admission(RULES, ["w1"], epoch=1, now=0.0)
    metrics = Metrics(admission)
    admission.step(Reported("w1", Report(1, True, 0.0, 0, 0, facts=FACTS, observed_blocks=3)), 0.0)
    admission.step(Asked(AskKey(1, 1), Ask("mine", "m", prompt_tokens=40, max_tokens=24)), 0.0)
    admission.step(Asked(AskKey(1, 2), Ask("other", "nobody's", prompt_tokens=40)), 0.0)
    metrics.served(SERVED)
    samples = page(metrics)
    for state, blocks in {"capacity": 100, "reserved": 2, "observed": 3}.items():
        assert samples["diplex_kv_blocks", ("state", state), ("worker", "w1")] == blocks
    assert samples["diplex_admission_total", ("decision", "granted"), ("reason", "")] == 1
    assert samples["diplex_admission_total", ("decision", "refused"), ("reason", "UNKNOWN_MODEL")] == 1
    assert samples["diplex_queue_depth", *WHO] == 0
    assert ("diplex_output_tokens_total", ("worker", "w1")) in samples
    assert samples["diplex_ttft_seconds_sum", *WHO] == 0.5
    assert samples["diplex_tpot_seconds_sum", *WHO] == 0.0075
    assert samples["diplex_queue_seconds_sum", *WHO] == 0.02
    assert samples["diplex_slo_total", ("met", "true"), *WHO] == 1
    late_by = ("diplex_prediction_ttft_error_seconds_bucket", ("le", "0.1"), *WHO)
    assert samples[late_by] == 1
    assert samples["diplex_prediction_ttft_error_seconds_bucket", ("le", "0.03"), *WHO] == 0


def test_growth_preemption_drift_and_a_dead_signal_have_their_figures():
    admission = Admission(RULES, ["w1"], epoch=1, now=0.0)
    metrics = Metrics(admission)
    report = Report(1, True, 0.0, 7, 0, facts=FACTS, residency_problem="its events stopped")
    admission.step(Reported("w1", report), 0.0)
    admission.preempted = 3
    admission.workers["w1"].ledger.wanted = 12
    admission.workers["w1"].mismatched = 2
    samples = page(metrics)
    assert samples["diplex_preempted_total",] == 3
    assert samples["diplex_kv_wanted_blocks", ("worker", "w1")] == 12
    assert samples["diplex_kv_drift_blocks", ("worker", "w1")] == 7
    assert samples["diplex_residency_problem", ("worker", "w1")] == 1
    assert samples["diplex_block_size_mismatches_total", ("worker", "w1")] == 2


def test_a_promise_counts_for_the_tier_that_was_asked_for():
    metrics = Metrics(Admission(RULES, [], epoch=1, now=0.0))
    metrics.served(replace(SERVED, degraded_from="interactive", met=False))
    samples = page(metrics)
    assert samples["diplex_slo_total", ("met", "false"), ("model", "m"), ("tier", "interactive")] == 1


@pytest.mark.parametrize(("retry_after", "counted"), [(1.5, True), (None, False)])
def test_a_promise_to_a_request_that_found_no_room_was_not_kept(retry_after: float | None, counted: bool):
    metrics = Metrics(Admission(RULES, [], epoch=1, now=0.0))
    refusal = Refusal(Why.TOO_LATE if counted else Why.REQUEST_INVALID, "too late", retry_after)
    metrics.decided(Refused(AskKey(1, 1), refusal, "m", "interactive"), 0.0)
    missed = ("diplex_slo_total", ("met", "false"), ("model", "m"), ("tier", "interactive"))
    assert (page(metrics).get(missed) == 1) is counted


def test_rules_of_other_packages_that_fail_are_counted():
    book = OWN.with_rules({}, {}, {})
    admission = Admission(RULES, [], epoch=1, now=0.0, placement=Placement(book=book))
    metrics = Metrics(admission)
    book.failures.note("scorer", "mine", "it raised")
    assert page(metrics)["diplex_rule_failures_total", ("kind", "scorer"), ("rule", "mine")] == 1


def test_queues_of_one_tier_are_one_figure():
    tenants = tuple(
        Tenant(name, name, packages=frozenset({"w1"}) if name == "acme" else None)
        for name in ("acme", "zeta")
    )
    admission = Admission(replace(RULES, tenants=tenants), ["w1"], epoch=1, now=0.0)
    for number, key in enumerate(("acme", "zeta", "zeta")):
        admission.step(
            Asked(AskKey(1, number), Ask("mine", "m", api_key=key, prompt_tokens=40, max_tokens=24)), 0.0
        )
    assert page(Metrics(admission))["diplex_queue_depth", *WHO] == 3
