"""The answers that are being made, so that a process that ends can end them in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from diplex_rest.answer import Answer
from diplex_rest.openai.errors import SERVER, ApiError

_SHUTTING_DOWN: Final = (
    "this server is being shut down, and the answer took too long to wait for. Mend: ask again"
)


class Underway:
    """Every answer of one shim that has not ended."""

    def __init__(self) -> None:
        self._answers: set[Answer] = set()

    @contextmanager
    def noted(self, answer: Answer) -> Iterator[None]:
        """The answer is being made inside the `with` block."""
        self._answers.add(answer)
        try:
            yield
        finally:
            self._answers.discard(answer)

    def end_all(self) -> None:
        """End what is still being made: 503 where nothing was sent yet, else an error event."""
        for answer in tuple(self._answers):
            answer.refuse(ApiError(503, _SHUTTING_DOWN, type=SERVER, code="shutting_down"))
