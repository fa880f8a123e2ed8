"""A worker's `/metrics` parses, and has the names that dashboards go by."""

from prometheus_client.parser import text_string_to_metric_families

from diplex_core.words import EndReason
from diplex_workers.metrics import WorkerMetrics


def test_the_page_parses_and_has_the_names_that_dashboards_go_by(house):
    metrics = WorkerMetrics(house.account)
    claim = house.run()
    house.clock.pass_time(0.5)
    house.say(claim, 1)
    house.clock.pass_time(1.0)
    house.say(claim, 10, end=EndReason.STOP)
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }
    who = (("model", "chatty"), ("tier", "standard"))
    assert samples["diplex_ttft_seconds_sum", *who] == 0.5
    assert samples["diplex_tpot_seconds_sum", *who] == 0.1
    assert samples["diplex_output_tokens_total", *who] == 11
    for state in ("capacity", "reserved"):
        assert ("diplex_kv_blocks", ("state", state)) in samples
    # A simulated B200 takes 5 ms a token and a model on a CPU 50: both lie well inside the bounds.
    bounds = [float(dict(key[1:])["le"]) for key in samples if key[0] == "diplex_tpot_seconds_bucket"]
    assert (
        sum(0.003 <= bound <= 0.01 for bound in bounds) >= 5 and sum(bound >= 0.05 for bound in bounds) >= 4
    )
