"""Why requests went where they went, for as long as it is remembered."""

from diplex_core.past import MOST_WORDS, REMEMBERED, Explanation, Outcome, Past
from diplex_core.placement.place import Explained

SAID = Explained({}, {"room": 1.0}, 0.5)


def explanation(request_id: str, workers: int = 1, outcome: Outcome = Outcome.GRANTED) -> Explanation:
    return Explanation(request_id, 0.0, outcome, words={f"w{number}": SAID for number in range(workers)})


def test_the_last_decision_on_a_request_is_the_one_remembered() -> None:
    past = Past()
    past.note(explanation("r", outcome=Outcome.QUEUED))
    past.note(explanation("r"))
    found = past.of("r")
    assert found is not None
    assert found.outcome is Outcome.GRANTED


def test_the_oldest_requests_are_forgotten_first() -> None:
    past = Past()
    for number in range(REMEMBERED + 1):
        past.note(explanation(f"r{number}"))
    assert past.of("r0") is None
    assert past.of("r1") is not None


def test_of_a_large_fleet_fewer_requests_are_remembered_but_always_the_last() -> None:
    past = Past()
    for number in range(4):
        past.note(explanation(f"r{number}", workers=MOST_WORDS // 2))
    assert [past.of(f"r{number}") is not None for number in range(4)] == [False, False, True, True]
    past.note(explanation("huge", workers=MOST_WORDS + 1))
    assert past.of("huge") is not None
    assert past.of("r3") is None
