"""What a worker measures by the GenAI conventions, as a collector of metrics would get it."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from diplex_core.words import EndReason
from diplex_workers.instruments import Instruments


@pytest.fixture
def reader(house) -> InMemoryMetricReader:
    reader = InMemoryMetricReader()
    house.account.observers.append(Instruments(house.account.settings, MeterProvider([reader])))
    return reader


def measured(reader: InMemoryMetricReader):
    """Each histogram's one point, by the metric's name."""
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    points = {metric.name: list(metric.data.data_points) for metric in scope.metrics}
    assert all(len(of_one) == 1 for of_one in points.values())
    return {name: of_one[0] for name, of_one in points.items()}


def test_a_request_is_measured_by_the_conventions_names_attributes_and_bounds(house, reader):
    claim = house.run()
    house.clock.pass_time(0.5)
    house.say(claim, 1)
    house.clock.pass_time(1.0)
    house.say(claim, 10, end=EndReason.STOP)
    points = measured(reader)
    assert {name: point.sum for name, point in points.items()} == {
        "gen_ai.server.time_to_first_token": pytest.approx(0.5),
        "gen_ai.server.time_per_output_token": pytest.approx(0.1),
        "gen_ai.server.request.duration": pytest.approx(1.5),
    }
    for point in points.values():
        assert dict(point.attributes) == {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "diplex",
            "gen_ai.request.model": "chatty",
            "diplex.tier": "standard",
            "diplex.worker": "w0",
            "diplex.pattern": "A",
        }
    assert points["gen_ai.server.time_to_first_token"].explicit_bounds[:3] == (0.001, 0.005, 0.01)
    assert points["gen_ai.server.time_per_output_token"].explicit_bounds[:3] == (0.01, 0.025, 0.05)
    assert points["gen_ai.server.request.duration"].explicit_bounds[-1] == 81.92


def test_a_request_that_failed_has_only_a_duration_and_says_of_what(house, reader):
    claim = house.run()
    house.clock.pass_time(0.25)
    house.let_go(claim, EndReason.FAILED)
    points = measured(reader)
    assert list(points) == ["gen_ai.server.request.duration"]
    assert points["gen_ai.server.request.duration"].attributes["error.type"] == "FAILED"
