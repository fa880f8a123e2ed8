"""Requests that are drawn: when they come, how long they are, and which of them begin alike.

    steady:rate=200                                       one every 5 ms
    poisson:rate=200,requests=10000,prompt=1500,output=200
    bursty:rate=200,burst=4,prompt=1500,prompt_p95=5000,output=200,output_p95=700
    poisson:rate=200,lengths=trace.csv.gz,prefixes=100x512

`burst` is the coefficient of variation of the gaps between arrivals, their standard deviation over their
mean: 1 is Poisson, 13 is Azure's code trace. Gaps are drawn from a Gamma distribution (Y. Wang et al.,
"BurstGPT", 2024, fit public traces so). A length with a `_p95` is log-normal with that mean and that 95th
percentile. `lengths=FILE` draws both lengths of a request together from a trace. `prefixes=100x512` gives
each prompt one of a hundred prefixes of 512 tokens that count as part of it, the k-th of them chosen with
weight k^-zipf.
"""

import math
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from diplex_cli.failures import UsageError
from diplex_cli.replay import traces
from diplex_cli.simulate.blocks import prefix_hashes
from diplex_cli.simulate.streams import SYNTHETIC, Request
from diplex_core.config.faults import nearest
from diplex_core.words import Seconds, Tokens

KINDS: Final = ("steady", "poisson", "bursty")
_REQUESTS: Final = 10_000
_PROMPT: Final[Tokens] = 1500
_OUTPUT: Final[Tokens] = 200
_BURST: Final = 4.0
_Z95: Final = 1.6448536269514722
"""Standard deviations from the median of a normal distribution to its 95th percentile."""
_MOST_SKEWED: Final = math.exp(_Z95**2 / 2)
"""No log-normal distribution has a 95th percentile further above its mean."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every length is the same."""

    tokens: Tokens

    def drawn(self, draw: Random) -> Callable[[], Tokens]:
        """Whatever draws one after the other."""
        return lambda: self.tokens

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens"


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Many short ones and a few long ones, by the mean and the 95th percentile of all.

    >>> round(LogNormal(100, 300).sigma, 3)
    0.932
    """

    mean: float
    p95: float

    @property
    def sigma(self) -> float:
        """Of the logarithms: from ln mean = mu + sigma²/2 and ln p95 = mu + 1.645 sigma."""
        return _Z95 - math.sqrt(max(0.0, _Z95**2 - 2 * math.log(self.p95 / self.mean)))

    def drawn(self, draw: Random) -> Callable[[], Tokens]:
        """Whatever draws one after the other, each of one token at least."""
        sigma, gauss, exp = self.sigma, draw.gauss, math.exp
        mu = math.log(self.mean) - sigma * sigma / 2
        return lambda: round(exp(gauss(mu, sigma))) or 1

    def __str__(self) -> str:
        return f"{self.mean:,.0f} tokens in the mean (p95 {self.p95:,.0f})"


Length: TypeAlias = Fixed | LogNormal


@dataclass(frozen=True, slots=True)
class Prefixes:
    """So many beginnings of so many tokens, the first the most frequent."""

    count: int
    tokens: Tokens
    zipf: float

    def weights(self) -> list[float]:
        """Added up: what is drawn is looked for in them."""
        return list(accumulate(rank**-self.zipf for rank in range(1, self.count + 1)))


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A stream that is drawn. `burst` 0: steady; 1: Poisson. `pairs`: both lengths, instead of the two."""

    kind: str
    rate: float | None
    burst: float
    count: int
    prompt: Length
    output: Length
    pairs: Sequence[tuple[Tokens, Tokens]]
    lengths: str
    prefixes: Prefixes | None
    seed: int

    @property
    def name(self) -> str:
        return self.kind

    @property
    def format(self) -> str:
        return SYNTHETIC

    @property
    def total(self) -> int:
        return self.count

    @property
    def about(self) -> str:
        said = [f"{self.count:,} requests drawn"]
        if self.kind == "bursty":
            said.append(f"gaps vary by {self.burst:g} times their mean")
        if self.lengths:
            said.append(f"lengths of {Path(self.lengths).name}")
        else:
            said.append(f"prompts of {self.prompt}, answers of {self.output}")
        if (prefixes := self.prefixes) is not None:
            said.append(
                f"one of {prefixes.count:,} prefixes of {prefixes.tokens:,} tokens (Zipf {prefixes.zipf:g})"
            )
        return ", ".join(said)

    def requests(self, block_tokens: Tokens, rate: float | None = None) -> Iterator[Request]:
        # Each kind of thing has draws of its own: another rate brings the same requests.
        gaps, sizes, begins = (Random(f"{what} {self.seed}") for what in ("gaps", "sizes", "prefixes"))
        mean = 1.0 / (rate or self.rate or 1.0)
        at: Seconds = 0.0
        shared = self._hashes(block_tokens)
        weights = self.prefixes.weights() if self.prefixes else []
        a_prompt, an_output = self.prompt.drawn(sizes), self.output.drawn(sizes)
        for _ in range(self.count):
            if self.pairs:
                prompt, output = self.pairs[int(sizes.random() * len(self.pairs))]
            else:
                prompt, output = a_prompt(), an_output()
            if weights:
                hashes = shared[bisect(weights, begins.random() * weights[-1])] if shared else ()
                room = (prompt - 1) // block_tokens if block_tokens else 0
                yield Request(at, prompt, output, hashes if len(hashes) <= room else hashes[:room])
            else:
                yield Request(at, prompt, output)
            at += self._gap(gaps, mean)

    def _gap(self, draw: Random, mean: Seconds) -> Seconds:
        if self.burst == 1.0:
            return draw.expovariate(1.0) * mean
        if not self.burst:
            return mean
        shape = self.burst**-2
        return draw.gammavariate(shape, mean / shape)

    def _hashes(self, block_tokens: Tokens) -> list[tuple[int, ...]]:
        """Of each prefix: one tuple for all prompts that begin with it."""
        prefixes = self.prefixes
        if prefixes is None or not block_tokens:
            return []
        return [
            prefix_hashes(number, prefixes.tokens, block_tokens, self.seed)
            for number in range(prefixes.count)
        ]


def named(text: str) -> bool:
    """Whether it names a kind of stream and no file."""
    return text.partition(":")[0] in KINDS and not Path(text).exists()


def read(text: str, *, requests: int | None, seed: int) -> Synthetic:
    """What `poisson:rate=200,…` says.

    Args:
        requests: how many, whatever the text says.
    Raises:
        UsageError: a word or a figure is none; with the mend.
    """
    kind, _, rest = text.partition(":")
    said = _Said(kind, dict(_pairs(kind, rest)))
    lengths = said.text("lengths")
    burst = {"steady": 0.0, "poisson": 1.0}.get(kind)
    return Synthetic(
        kind=kind,
        rate=said.number("rate", None),
        burst=said.number("burst", _BURST) or _BURST if burst is None else burst,
        count=requests or said.whole("requests", _REQUESTS),
        prompt=said.length("prompt", _PROMPT),
        output=said.length("output", _OUTPUT),
        pairs=_lengths(lengths) if lengths else (),
        lengths=lengths,
        prefixes=said.prefixes(),
        seed=seed,
    )


def _pairs(kind: str, rest: str) -> Iterator[tuple[str, str]]:
    known = [
        *("rate", "requests", "prompt", "prompt_p95", "output", "output_p95", "lengths", "prefixes", "zipf"),
        *(("burst",) if kind == "bursty" else ()),
    ]
    seen = set()
    for part in filter(None, (part.strip() for part in rest.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in known:
            near = nearest(name, known)
            mend = f"{near}=…" if near else f"one of {', '.join(known)}"
            raise UsageError(f"{kind}: '{name}' is no word of it. Mend: {mend}")
        if not equals or not value:
            raise UsageError(f"{kind}: {name} has no value. Mend: {name}=…")
        if name in seen:
            raise UsageError(f"{kind}: {name} is said twice. Mend: once")
        seen.add(name)
        yield name, value


def _lengths(file: str) -> list[tuple[Tokens, Tokens]]:
    return [(max(1, row.input_tokens), max(1, row.output_tokens)) for row in traces.read(file).rows]


class _Said:
    """The figures that were said, each looked at when it is asked for."""

    def __init__(self, kind: str, said: Mapping[str, str]) -> None:
        self._kind = kind
        self._said = said

    def text(self, name: str) -> str:
        return self._said.get(name, "")

    def number(self, name: str, default: float | None) -> float | None:
        if name not in self._said:
            return default
        try:
            number = float(self._said[name])
        except ValueError:
            number = 0.0
        if not (number > 0 and math.isfinite(number)):
            raise self._wrong(name, "is no number above 0")
        return number

    def whole(self, name: str, default: int) -> int:
        number = self.number(name, default)
        assert number is not None
        if number != int(number):
            raise self._wrong(name, "is no whole number")
        return int(number)

    def length(self, name: str, default: Tokens) -> Length:
        mean, p95 = self.whole(name, default), self.number(f"{name}_p95", None)
        if self.text("lengths") and {name, f"{name}_p95"} & self._said.keys():
            raise UsageError(f"{self._kind}: {name} and lengths are both said. Mend: one of them")
        if p95 is None:
            return Fixed(mean)
        if not mean <= p95 <= _MOST_SKEWED * mean:
            raise self._wrong(
                f"{name}_p95", f"is not within 1 and {_MOST_SKEWED:.2f} times the mean of {mean:,}",
                f"{name}_p95={2 * mean}",
            )  # fmt: skip
        return LogNormal(mean, p95)

    def prefixes(self) -> Prefixes | None:
        said = self.text("prefixes")
        zipf = self.number("zipf", 1.0)
        assert zipf is not None
        if not said:
            return None
        count, _, tokens = said.partition("x")
        if not (count.isdecimal() and tokens.isdecimal() and int(count) and int(tokens)):
            raise self._wrong("prefixes", "is not COUNTxTOKENS", "prefixes=100x512")
        return Prefixes(int(count), int(tokens), zipf)

    def _wrong(self, name: str, reason: str, mend: str = "") -> UsageError:
        return UsageError(f"{self._kind}: {name}={self._said[name]} {reason}. Mend: {mend or f'{name}=100'}")
