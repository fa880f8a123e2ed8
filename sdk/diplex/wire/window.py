"""How far one request may run ahead of its reader: no bound while it reads, a window when it lags.

A reader that keeps up costs nothing here. Once more than `ahead` tokens wait for it the window is shut: the
worker gathers what comes, and no frame grows, nor waits, for one slow reader. From then on it moves as the
reader takes what waits, until it has caught up and there is no bound again. One that takes nothing is ended
by the worker, thirty seconds after the window let the last token through.
"""

from collections.abc import Callable


class Window:
    """One request's window, as its reader's end sees it. Indices are of its longest choice.

    Args:
        ahead: tokens that may wait for the reader before the window is shut; more may be on their way.
        tell: moves the window: tokens below the index may be sent; 0: all.
    """

    def __init__(self, ahead: int, tell: Callable[[int], None]) -> None:
        self._ahead = ahead
        self._tell = tell
        self._taken = 0
        self._upto = 0
        self.so_far = 0
        """Tokens below this index have come."""

    def came(self, index: int) -> None:
        """Tokens up to below `index` have come, and wait for the reader."""
        if index > self.so_far:
            self.so_far = index
            if not self._upto and index - self._taken > self._ahead:
                self._move(index)

    def took(self, index: int) -> None:
        """The reader has all tokens below `index`."""
        self._taken = index
        if not self._upto:
            return
        if index == self.so_far < self._upto:
            self._move(0)  # more was allowed than there was: it has caught up
        elif self._upto - index <= self._ahead // 2:
            self._move(index + self._ahead)

    def _move(self, upto: int) -> None:
        self._upto = upto
        self._tell(upto)
