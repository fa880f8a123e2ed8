"""What one router is told over its link: changes as they come, everything once a second.

Changes are kept as claims, not as messages, and read when the writer is ready: what gathers during a write
goes out together, each claim once and as it is then.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex_core.words import BlockHash, Blocks, Claim
from diplex_workers.claims import claim_on_wire


class Pools(Protocol):
    """The worker's account, as a link reads it."""

    def figures(self, reader: str) -> worker_pb2.WorkerLinkResponse:
        """A report without claims: uptime, what is used, what of it is foreign to this router."""

    def info(self) -> pb.WorkerInfo: ...

    def claims_of(self, router: str) -> list[Claim]: ...

    def held(self, claim: Claim) -> worker_pb2.Held | None:
        """A claim as it is held now; `None`: it is not."""

    def resident(self) -> Iterable[BlockHash]:
        """All prefix blocks that the engine keeps."""

    def wanted(self, claim: Claim) -> Blocks:
        """The whole size that a claim asks to grow to; 0: it does not ask."""


class Feed:
    """One router's link, from its hello to its end.

    Args:
        news: called when there is something to take.
    """

    def __init__(self, router: str, news: Callable[[], None]) -> None:
        self.router = router
        self.closed = False
        self._news = news
        self._number = 0
        self._full_due = True  # the first report is a full one
        self._changed: dict[Claim, None] = {}
        self._answers: list[tuple[Claim, int]] = []
        self._ended: list[worker_pb2.Ended] = []
        self._wants: dict[Claim, None] = {}
        self._blocks: dict[BlockHash, bool] = {}  # stored since the last report, or removed: the last word

    def changed(self, claim: Claim) -> None:
        """A claim was accepted, has its first token, or another size."""
        self._changed[claim] = None
        self._news()

    def answer(self, claim: Claim, raise_id: int) -> None:
        """A raise was carried out or not: the claim's size tells."""
        self._answers.append((claim, raise_id))
        self._news()

    def ended(self, ended: worker_pb2.Ended) -> None:
        self._ended.append(ended)
        self._news()

    def wants(self, claim: Claim) -> None:
        """A claim asks to grow. While it does, full reports say so again."""
        self._wants[claim] = None
        self._news()

    def kept(self, stored: Iterable[BlockHash], removed: Iterable[BlockHash]) -> None:
        """The engine keeps these prefix blocks now, and those no longer."""
        self._blocks |= dict.fromkeys(removed, False)
        self._blocks |= dict.fromkeys(stored, True)
        self._news()

    def full_due(self) -> None:
        self._full_due = True
        self._news()

    def close(self) -> None:
        """Another link of this router took its place, or the worker stops."""
        self.closed = True
        self._news()

    def take(self, pools: Pools) -> worker_pb2.WorkerLinkResponse | None:
        """The next report; `None`: there is nothing to say."""
        told = self._changed or self._answers or self._ended or self._wants or self._blocks
        if not (self._full_due or told):
            return None
        report = pools.figures(self.router)
        self._number += 1
        report.number = self._number
        if self._full_due:
            report.full = True
            report.info.CopyFrom(pools.info())
            self._changed = dict.fromkeys(pools.claims_of(self.router))
            self._wants = dict(self._changed)
            report.stored_blocks.extend(pools.resident())
        else:
            report.stored_blocks.extend(block for block, kept in self._blocks.items() if kept)
            report.removed_blocks.extend(block for block, kept in self._blocks.items() if not kept)
        # A claim that ended meanwhile is in `ended`.
        report.held.extend(held for claim in self._changed if (held := pools.held(claim)) is not None)
        for claim, raise_id in self._answers:
            if (held := pools.held(claim)) is not None:
                held.answers_raise = raise_id
                report.held.append(held)
        report.ended.extend(self._ended)
        for claim in self._wants:
            if blocks := pools.wanted(claim):
                report.wants.add(claim=claim_on_wire(claim), blocks=blocks)
        self._full_due = False
        self._changed, self._answers, self._ended, self._wants, self._blocks = {}, [], [], {}, {}
        return report
