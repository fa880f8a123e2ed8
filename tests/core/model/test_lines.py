"""Lines through points."""

import pytest

from diplex_core.model.lines import Line

LINE = Line([(4, 40.0), (1, 10.0), (3, 20.0)])


@pytest.mark.parametrize(
    ("x", "y"), [(1, 10), (2, 15), (3, 20), (3.5, 30), (4, 40), (5, 60), (0, 5), (-1, 0)]
)
def test_a_line_goes_through_its_points_and_straight_on_beyond(x: float, y: float):
    assert LINE(x) == pytest.approx(y)


def test_a_single_point_makes_a_constant():
    assert Line([(3, 7.0)])(100) == 7.0
