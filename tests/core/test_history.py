"""What an engine that tells nobody probably keeps: by what was sent there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from diplex_core.events import Report, Reported, WorkerFacts
from diplex_core.history import History
from diplex_core.resident import Alone


def test_what_was_longest_unused_is_forgotten_first_and_of_a_prompt_its_end() -> None:
    kept = Alone()
    history = History(kept)
    history.sent((1, 2, 3), room=5)
    history.sent((7, 8), room=5)
    history.sent((1, 2), room=5)
    assert kept == {1, 2, 3, 7, 8}
    history.sent((9,), room=4)
    assert kept == {9, 1, 2, 7}, "3 was sent before 8, and that before 7"
    history.sent((10, 11), room=2)
    assert kept == {10, 11}
    assert len(history) == 2


def test_no_more_is_remembered_than_has_room() -> None:
    history = History(kept := Alone())
    history.sent(range(1, 100), room=10)
    assert kept == set(range(1, 11))
    history.sent((500,), room=-3)
    assert not kept


@pytest.fixture
def desk(new_desk: Callable[..., Any], facts: Callable[..., WorkerFacts]) -> Any:
    """Two workers that do not say what they keep."""
    return new_desk(*(replace(facts(name), reports_residency=False) for name in ("w1", "w2")))


PROMPT = tuple(range(1, 13))


def read_at(desk: Any, worker: str, **more: object) -> Any:
    """A prompt of 12 blocks that is granted there, runs and ends."""
    granted = desk.grant(12 * 32, 32, block_hashes=PROMPT, **more)
    assert granted.worker.name == worker
    desk.start(granted)
    desk.end(granted)
    return granted


def test_prompts_that_begin_alike_meet_where_nobody_says_what_is_resident(desk: Any) -> None:
    read_at(desk, "w1")
    first, second = desk.grant(4 * 32, 32), desk.grant(4 * 32, 32)
    assert (first.worker.name, second.worker.name) == ("w1", "w2")
    desk.end(second)  # there is more room there now
    read_at(desk, "w1")


def test_what_is_only_believed_is_charged_in_full(desk: Any) -> None:
    first, second = read_at(desk, "w1"), read_at(desk, "w1")
    assert (second.blocks, second.cached) == (first.blocks, 0) == (13, 0)
    worker = desk.admission.workers["w1"]
    assert worker.ledger.cached == 0
    assert len(worker.shelf) == 12


def test_a_full_report_of_such_a_worker_says_nothing_of_what_is_resident(desk: Any) -> None:
    read_at(desk, "w1")
    desk.report("w1", full=desk.admission.workers["w1"].facts)
    assert len(desk.admission.workers["w1"].shelf) == 12


def test_a_new_start_of_the_worker_has_nothing_of_it(desk: Any, facts: Callable[..., WorkerFacts]) -> None:
    read_at(desk, "w1")
    desk.lose("w1")
    desk.link(replace(facts("w1", boot=2), reports_residency=False))
    assert len(desk.admission.workers["w1"].shelf) == 0
    assert len(desk.admission.workers["w1"].history) == 0


def test_a_pool_that_holds_much_else_has_little_room_for_old_prompts(
    new_desk: Callable[..., Any], facts: Callable[..., WorkerFacts]
) -> None:
    desk = new_desk(replace(facts("w1"), reports_residency=False))
    shelf = desk.admission.workers["w1"].shelf
    read_at(desk, "w1")
    desk.grant(84 * 32, 32)
    desk.grant(5 * 32, 32, block_hashes=(21, 22, 23, 24, 25))
    assert len(shelf) == 100 - 85 - 1, "all that is free but for the new prompt's answer"
    assert (shelf.leading((21, 22, 23, 24, 25)), shelf.leading(PROMPT)) == (5, 9)


def test_a_word_that_died_is_replaced_by_history_until_a_full_report_comes(
    new_desk: Callable[..., Any], facts: Callable[..., WorkerFacts]
) -> None:
    desk = new_desk(facts("w1"))
    worker = desk.admission.workers["w1"]

    def says(*stored: int, full: bool = False, problem: str = "") -> None:
        desk.numbers["w1"] += 1
        report = Report(
            desk.numbers["w1"], full, 1.0, 0, 0, facts=worker.facts if full else None, stored=stored,
            residency_problem=problem,
        )  # fmt: skip
        desk.tell(Reported("w1", report))

    says(1, 2, 3, full=True)
    assert desk.grant(5 * 32, 32, block_hashes=PROMPT[:5]).cached == 3
    says(4, problem="its events stopped")
    assert worker.residency_problem == "its events stopped"
    assert desk.grant(5 * 32, 32, block_hashes=PROMPT[:5]).cached == 0, (
        "what it said before is no longer true"
    )
    assert worker.shelf.leading(PROMPT) == 5, "but this one went there since"
    says(6)
    assert (worker.residency_problem, worker.shelf.leading(PROMPT)) == ("", 5), "changes of what nobody knows"
    says(1, 2, full=True)
    assert worker.history is None
    assert desk.grant(5 * 32, 32, block_hashes=PROMPT[:5]).cached == 2


@pytest.mark.parametrize(("size", "cached", "mismatched"), [(0, 3, 0), (32, 3, 0), (16, 0, 1)])
def test_blocks_of_another_size_are_none_of_a_pools_and_that_is_counted(
    new_desk: Callable[..., Any], facts: Callable[..., WorkerFacts], size: int, cached: int, mismatched: int
) -> None:
    desk = new_desk(facts("w1"))
    desk.numbers["w1"] += 1
    desk.tell(Reported("w1", Report(desk.numbers["w1"], False, 1.0, 0, 0, stored=(1, 2, 3))))
    granted = desk.grant(5 * 32, 32, block_hashes=PROMPT[:5], hash_block_tokens=size)
    assert granted.cached == cached
    assert desk.admission.workers["w1"].mismatched == mismatched


def test_blocks_of_another_size_are_not_remembered_either(desk: Any) -> None:
    read_at(desk, "w1", hash_block_tokens=16)
    assert [len(worker.shelf) for worker in desk.admission.workers.values()] == [0, 0]
