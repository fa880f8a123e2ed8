"""Prefix blocks that claims on one pool use, each counted once however many do: few bytes for many blocks.

A block's hash stands for all that comes before it, so what two claims share are their first blocks, and the
prompts of a pool's claims make a tree. What has the same users all along is one *run* of it, cut where a
prompt ends or another begins to differ. A run names its blocks by their place in some prompt's own hashes,
and a claim names its last run. So neither costs more for a longer prompt.

Hashes that are no chain are counted too, but a block that has come behind two others counts as two.
"""

from collections.abc import Sequence
from typing import Final

from diplex_core.words import BlockHash, Blocks, packed


class Run:
    """Blocks that have the same users, and come one after another.

    Attributes:
        above: the run before it; `None`: a prompt begins with it.
        below: those that come after it, by their first blocks.
        users: claims that use it.
    """

    __slots__ = ("_prompt", "_start", "_stop", "above", "below", "users")

    def __init__(
        self, prompt: Sequence[BlockHash], start: int, stop: int, above: "Run | None", users: int
    ) -> None:
        self._prompt = prompt
        self._start = start
        self._stop = stop
        self.above = above
        self.below: dict[BlockHash, Run] = _NONE
        self.users = users

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def first(self) -> BlockHash:
        return self._prompt[self._start]

    @property
    def blocks(self) -> Sequence[BlockHash]:
        return self._prompt[self._start : self._stop]

    @property
    def all(self) -> tuple[BlockHash, ...]:
        """Its blocks, and those before them."""
        return (*(self.above.all if self.above is not None else ()), *self.blocks)

    def alike(self, prompt: Sequence[BlockHash], at: int) -> Blocks:
        """How many of its first blocks a prompt has, from a place on."""
        most = min(len(self), len(prompt) - at)
        mine, others = self._prompt[self._start : self._start + most], prompt[at : at + most]
        if mine == others:
            return most
        return next(i for i in range(most) if mine[i] != others[i])

    def cut(self, blocks: Blocks) -> "Run":
        """Its first blocks become a run of their own, which is answered."""
        upper = Run(self._prompt, self._start, self._start + blocks, self.above, self.users)
        self._start += blocks
        self.above = upper
        upper.below = {self.first: self}
        return upper


_NONE: Final[dict[BlockHash, Run]] = {}
"""What comes after a run that nothing comes after. Nobody writes to it."""


class Pins:
    """The blocks in use on one pool.

    Attributes:
        blocks: how many they are.
    """

    __slots__ = ("_firsts", "blocks")

    def __init__(self) -> None:
        self.blocks: Blocks = 0
        self._firsts: dict[BlockHash, Run] = {}

    def new(self, prompt: Sequence[BlockHash]) -> Blocks:
        """How many of these nobody uses yet: what one more claim on them would cost."""
        prompt, at, runs = packed(prompt), 0, self._firsts
        while at < len(prompt) and (run := runs.get(prompt[at])) is not None:
            alike = run.alike(prompt, at)
            at += alike
            if alike < len(run):
                break
            runs = run.below
        return len(prompt) - at

    def use(self, prompt: Sequence[BlockHash]) -> Run:
        """One more claim uses these, one at least. Answers the last run of them, by which it leaves."""
        prompt, at, above = packed(prompt), 0, None
        while True:
            runs = self._firsts if above is None else above.below
            run = runs.get(prompt[at])
            if run is None:
                run = Run(prompt, at, len(prompt), above, 1)
                self.blocks += len(run)
                if runs is _NONE and above is not None:
                    runs = above.below = {}
                runs[run.first] = run
                return run
            alike = run.alike(prompt, at)
            if alike < len(run):
                run = runs[run.first] = run.cut(alike)
            run.users += 1
            at += alike
            if at == len(prompt):
                return run
            above = run

    def leave(self, last: Run) -> None:
        """A claim that used everything up to this run uses it no longer."""
        run: Run | None = last
        while run is not None:
            run.users -= 1
            if not run.users:
                self.blocks -= len(run)
                runs = self._firsts if run.above is None else run.above.below
                del runs[run.first]
            run = run.above
