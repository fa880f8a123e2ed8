"""What comes to a simulated fleet: a trace, as it is or many times round, or requests that are drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Protocol

from diplex_cli.failures import UsageError
from diplex_cli.replay import traces
from diplex_cli.replay.traces import Trace
from diplex_cli.simulate.blocks import piece_hashes
from diplex_core.words import BlockHash, Seconds, Tokens

SYNTHETIC: Final = "synthetic"
"""The format of what is drawn."""


class Request(NamedTuple):
    """One request, before anybody is asked for it. `at` counts from the first one's arrival."""

    at: Seconds
    prompt: Tokens
    output: Tokens
    hashes: tuple[BlockHash, ...] = ()


class Stream(Protocol):
    """Requests in the order of their arrival, the same ones whenever they are asked for.

    `total`: how many there are to choose from; `count`: how many come. `rate`: a second, in the mean; `None`:
    that is for others to say. `about`: in a few words.
    """

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def total(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def rate(self) -> float | None: ...
    @property
    def about(self) -> str: ...

    def requests(self, block_tokens: Tokens, rate: float | None = None) -> Iterator[Request]:
        """All of them.

        Args:
            block_tokens: of the fleet's KV blocks; 0: nothing is said of shared ones.
            rate: so many a second instead of the stream's own.
        """


@dataclass(frozen=True, slots=True)
class Recorded:
    """A trace, round after round until `count` requests have come.

    A round begins one mean gap after the last arrival of the one before. Its prompts share what the trace
    says that they share, but nothing with those of another round: those would be the same prompts.
    """

    trace: Trace
    count: int

    @property
    def name(self) -> str:
        return self.trace.name

    @property
    def format(self) -> str:
        return self.trace.format

    @property
    def total(self) -> int:
        return self.trace.total

    @property
    def rate(self) -> float | None:
        """Requests a second; `None` where all come at once, or there is only one."""
        return len(self.trace.rows) / self._round if self._round else None

    @property
    def about(self) -> str:
        rows = len(self.trace.rows)
        if self.count > rows:
            return f"{rows:,} requests, {self.count / rows:.4g} times round, {self.count:,} in all"
        which = f"the first {self.count:,} of " if self.count < self.total else ""
        return f"{which}{self.total:,} requests"

    @property
    def _round(self) -> Seconds:
        rows = self.trace.rows
        return rows[-1].arrival * len(rows) / (len(rows) - 1) if len(rows) > 1 else 0.0

    def requests(self, block_tokens: Tokens, rate: float | None = None) -> Iterator[Request]:
        return islice(self._rounds(block_tokens, (self.rate or 1.0) / rate if rate else 1.0), self.count)

    def _rounds(self, block_tokens: Tokens, stretch: float) -> Iterator[Request]:
        trace, number = self.trace, 0
        hashed = bool(block_tokens and trace.block_tokens)
        while True:
            begins = number * self._round
            for row in trace.rows:
                pieces = row.hash_ids if hashed else ()
                yield Request(
                    (begins + row.arrival) * stretch,
                    row.input_tokens,
                    row.output_tokens,
                    piece_hashes(pieces, trace.block_tokens, row.input_tokens, block_tokens, number)
                    if pieces
                    else (),
                )
            number += 1


def stream_of(text: str, *, limit: int | None, rounds: int | None, requests: int | None, seed: int) -> Stream:
    """The stream that TRACE names: a kind with its figures, such as `poisson:rate=200`, or a file.

    Args:
        limit: only the first so many of a file's requests; `rounds`: so many times round these.
        requests: until so many have come.
        seed: draws what is drawn.
    Raises:
        UsageError: the file cannot be read, or the figures are none.
    """
    from diplex_cli.simulate import synthetic

    if synthetic.named(text):
        if rounds is not None:
            raise UsageError("--repeat: there is no end to what is drawn. Mend: --requests N")
        return synthetic.read(text, requests=requests or limit, seed=seed)
    trace = traces.read(text, limit)
    rows = len(trace.rows)
    count = requests or rows * (rounds or 1)
    if count > rows and rows == 1:
        raise UsageError(
            f"{text}: one request has no rate to go round at. Mend: poisson:rate=…,lengths={text}"
        )
    return Recorded(trace, count)
