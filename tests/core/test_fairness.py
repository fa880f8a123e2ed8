"""What each tenant has had, and how far apart two of them can come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diplex_core.fairness import Counters, cost
from diplex_core.words import Tenant

ACME, GLOBEX = Tenant("acme", weight=2.0), Tenant("globex")


def test_an_output_token_weighs_two_input_tokens_and_a_weight_divides_both() -> None:
    assert cost(GLOBEX, 100, 50) == 200.0
    assert cost(ACME, 100, 50) == 100.0


def test_a_grant_is_charged_as_expected_and_trued_up_when_the_answer_is_known() -> None:
    counters = Counters()
    counters.waits("globex")
    assert counters.granted(1, GLOBEX, 100, 50) == 200.0
    assert counters.ended(1, 10) == "globex"
    assert counters.of("globex") == 120.0
    assert counters.ended(1, 10) == ""  # once


def test_a_grant_that_came_to_nothing_is_given_back() -> None:
    counters = Counters()
    counters.granted(1, GLOBEX, 100, 50)
    counters.ended(1, None, ran=False)
    assert counters.of("globex") == 0.0


def test_an_answer_whose_length_nobody_told_stays_charged_as_expected() -> None:
    counters = Counters()
    counters.granted(1, GLOBEX, 100, 50)
    assert counters.ended(1, None) == ""
    assert counters.of("globex") == 200.0


def test_who_is_served_without_waiting_is_charged_too_and_lifts_whoever_comes_then() -> None:
    counters = Counters()
    counters.granted(1, GLOBEX, 1000, 0)
    counters.granted(2, ACME, 100, 0)  # lifted to globex, the last that was served
    assert counters.of("acme") == 1050.0


def test_an_attempt_after_another_charges_what_it_reads_once_more_and_its_answer_once() -> None:
    counters = Counters()
    counters.granted(1, GLOBEX, 100, 50)
    counters.granted(1, GLOBEX, 130, 20)  # 30 tokens were produced before it gave way
    counters.ended(1, 50)
    assert counters.of("globex") == 100 + 130 + 2 * 50


def test_nobody_saves_up_for_a_burst() -> None:
    counters = Counters()
    counters.waits("globex")
    counters.granted(1, GLOBEX, 1000, 0)
    assert counters.waits("acme") == 1000.0  # new, and lifted to the only one that waits
    counters.waits_no_more("acme")
    counters.granted(2, GLOBEX, 500, 0)
    counters.waits_no_more("globex")
    assert counters.waits("acme") == 1500.0  # nobody waits: to that of the last who did


def test_a_tenant_that_comes_back_is_not_lowered() -> None:
    counters = Counters()
    counters.waits("globex")
    counters.granted(1, GLOBEX, 1000, 0)
    counters.waits_no_more("globex")
    counters.waits("acme")
    counters.ended(1, 0)
    assert counters.waits("globex") == 1000.0


MOST_PROMPT, MOST_OUTPUT, IN_FLIGHT = 500, 300, 6
grants = st.lists(
    st.tuples(
        st.integers(1, MOST_PROMPT), st.integers(1, MOST_OUTPUT), st.integers(0, MOST_OUTPUT), st.booleans()
    ),
    min_size=1,
    max_size=200,
)


@given(grants, st.sampled_from([0.5, 1.0, 3.0]), st.data())
@settings(deadline=None, max_examples=60)
def test_two_tenants_that_wait_all_the_time_are_never_further_apart_than_the_bound(
    grants: list[tuple[int, int, int, bool]], weight: float, data: st.DataObject
) -> None:
    f, g = Tenant("f", weight=weight), Tenant("g")
    counters = Counters()
    counters.waits("f")
    counters.waits("g")
    flying: dict[str, list[tuple[int, int]]] = {"f": [], "g": []}
    r = (MOST_PROMPT + 2 * MOST_OUTPUT) / min(weight, 1.0)
    error = 2 * MOST_OUTPUT / min(weight, 1.0)
    given_truly = {"f": 0.0, "g": 0.0}
    for number, (prompt, expected, true, one_ends) in enumerate(grants):
        tenant = min((f, g), key=lambda tenant: counters.of(tenant.name))
        counters.granted(number, tenant, prompt, expected)
        given_truly[tenant.name] += cost(tenant, prompt, true)
        flying[tenant.name].append((number, true))
        for name, mine in flying.items():
            if mine and (len(mine) > IN_FLIGHT or (one_ends and name == "f")):
                counters.ended(*mine.pop(data.draw(st.integers(0, len(mine) - 1))))
            assert len(mine) <= IN_FLIGHT
        assert abs(counters.of("f") - counters.of("g")) <= r + 2 * (IN_FLIGHT + 1) * error
    for mine in flying.values():
        for lease, true in mine:
            counters.ended(lease, true)
    for name, true_cost in given_truly.items():
        assert counters.of(name) == pytest.approx(true_cost)


@given(st.lists(st.integers(1, MOST_PROMPT), min_size=1, max_size=200))
def test_where_answers_are_as_expected_they_are_one_request_apart_at_most(prompts: list[int]) -> None:
    counters = Counters()
    tenants = [Tenant("f"), Tenant("g"), Tenant("h")]
    for tenant in tenants:
        counters.waits(tenant.name)
    for number, prompt in enumerate(prompts):
        least = min(tenants, key=lambda tenant: counters.of(tenant.name))
        counters.granted(number, least, prompt, 7)
        counters.ended(number, 7)
        values = [counters.of(tenant.name) for tenant in tenants]
        assert max(values) - min(values) <= MOST_PROMPT + 14
