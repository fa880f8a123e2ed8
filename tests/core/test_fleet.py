"""What a router takes over from a worker's words of itself."""

from collections.abc import Callable

from diplex_core.events import Report, WorkerFacts
from diplex_core.fleet import Worker
from diplex_core.prefixes import Prefixes


def hears(worker: Worker, *stored: int, full: bool = False, problem: str = "") -> None:
    worker.note_others(Report(1, full, 0.0, 0, 0, stored=stored, residency_problem=problem))


def test_while_a_worker_does_not_know_what_is_resident_nothing_is_and_why_is_kept(
    facts: Callable[..., WorkerFacts],
) -> None:
    shelf = Prefixes().shelf()
    worker = Worker("w", shelf=shelf)
    worker.introduce(facts("w"))
    worker.open_account()
    hears(worker, 1, 2, full=True)
    assert (shelf.leading([1, 2]), worker.residency_problem) == (2, "")
    hears(worker, 3, problem="its events stopped")
    assert (len(shelf), worker.residency_problem) == (0, "its events stopped")
    hears(worker, 1, 2, full=True, problem="its events stopped")
    assert len(shelf) == 0
    hears(worker, 1, 2, full=True)
    assert (shelf.leading([1, 2]), worker.residency_problem) == (2, "")
