"""Step times from what a step must read and compute: bytes over bandwidth, operations over rates.

A pass of a model over some tokens

    reads      every weight once (of the embedding table only the tokens' rows, which count as nothing), and
               the KV cache of each sequence once; it writes the KV cache of the new tokens
    computes   2 operations a parameter of the linear layers and token, at the rates of the layers' formats,
               and 4 * layers * heads * head_dim for each pair of a new token and one before it (so
               2 * T² * hidden * layers for a prompt of T tokens); the head where a next token is wanted
    exchanges  the ranks' parts, if it is split (collectives.py)

    seconds = max(bytes / bandwidth, operations / rate, exchanged / link) + latencies + overhead

in which each term is divided by its efficiency. The maximum says that reading, computing and exchanging
overlap fully; linear layers and attention use the same tensor cores, so their times add. Activations,
sampling and whatever a host does count as nothing.

`LIMIT` has every efficiency at 1 and no latency or overhead: no engine can do better with these weights, this
cache and this draft. Other efficiencies are data; with `overlaps=False` the ranks wait for each other.

Attention on a cache of 8 bits or fewer computes at the FP8 rate: an NVFP4 cache is widened before.
Speculation: a step drafts K tokens one after the other and checks them in one pass over K + 1 tokens a
sequence, which reads the cache once. Draft and target have the whole engine each for its turn.

Source: Williams et al., "Roofline", 2009; Kaplan et al., "Scaling Laws", 2020, table 1, for the operations.
"""

from dataclasses import dataclass, replace
from typing import Final

from diplex_core.model import catalogue, speculation
from diplex_core.model.catalogue import Gpu, Link, Model
from diplex_core.model.collectives import AllReduces, all_reduces
from diplex_core.model.memory import kv_bytes_per_token
from diplex_core.model.speculation import Speculation
from diplex_core.words import Seconds, Slots, Tokens

# What TensorRT-LLM does where nothing is said: max_batch_size and max_num_tokens of its LLM API.
_LARGEST_BATCH: Final[Slots] = 2048
_MOST_PREFILL: Final[Tokens] = 8192


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How much of the chip's rates an engine makes use of.

    Attributes:
        name: what to call figures of it.
        memory, linear, attention, link: shares of the peak rates, 0 to 1.
        overhead: seconds that every pass takes beside.
        latency: how many times its link's latency each all-reduce takes.
        overlaps: the ranks exchange while they compute.
        tail: the 95th percentile of a prompt's reading time over its median.
    """

    name: str
    memory: float = 1.0
    linear: float = 1.0
    attention: float = 1.0
    link: float = 1.0
    overhead: Seconds = 0.0
    latency: float = 1.0
    overlaps: bool = False
    tail: float = 1.0


LIMIT: Final = Efficiency("limit", latency=0.0, overlaps=True)
"""No engine can do better."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pass, or several, come to.

    Attributes:
        seconds: how long they take.
        reading, computing: how long memory and tensor cores would be busy at their full rates.
    """

    seconds: Seconds = 0.0
    reading: Seconds = 0.0
    computing: Seconds = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds, self.reading + other.reading, self.computing + other.computing
        )

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.seconds * times, self.reading * times, self.computing * times)

    @property
    def bandwidth(self) -> float:
        """Share of the memory's bandwidth in use, 0 to 1."""
        return self.reading / self.seconds if self.seconds else 0.0

    @property
    def compute(self) -> float:
        """Share of the time in which the tensor cores are busy, 0 to 1."""
        return self.computing / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Chips:
    """What one engine lies on.

    Attributes:
        packages: how many, or what part of one: an engine on one of two dies has 0.5.
        shards: ways in which the model is split over them.
        link: between these.
    """

    gpu: Gpu
    packages: float
    shards: int
    link: Link


class _Passes:
    """Passes of one model on some chips."""

    def __init__(self, model: Model, weights: str, kv_cache: str, chips: Chips, efficiency: Efficiency):
        recipe, gpu = catalogue.recipe(weights), chips.gpu
        self._efficiency = efficiency
        self._bandwidth = gpu.bandwidth * chips.packages
        self._weights = recipe.weights(model).read / self._bandwidth
        # A rank holds one KV head at least, so more ranks than heads keep some twice.
        kept = max(1.0, chips.shards / model.kv_heads)
        self._kv = kept * kv_bytes_per_token(model, kv_cache) / self._bandwidth
        self._linear = (2 / chips.packages) * (
            model.attention_parameters / gpu.flops(recipe.attention_rate)
            + model.ffn_parameters / gpu.flops(recipe.ffn_rate)
        )
        head = model.embedding_parameters / chips.packages  # as large as the table, tied or not
        self._head = 2 * head / gpu.flops("bf16")
        cache_rate = "bf16" if catalogue.number_format(kv_cache).rate == "bf16" else "fp8"
        pair = 4 * model.layers * model.heads * model.head_dim
        self._pair = pair / (gpu.flops(cache_rate) * chips.packages)
        self._exchange: AllReduces = all_reduces(model, chips.shards, chips.link)

    def cost(
        self, tokens: float, *, pairs: float, read: float, heads: float, reads_weights: bool = True
    ) -> Cost:
        """One pass.

        Args:
            tokens: new ones, of all sequences.
            pairs: of a new token and one before it in its sequence.
            read: tokens whose KV cache is read.
            heads: tokens whose successor is wanted.
            reads_weights: False: the pass is part of another that reads them.
        """
        said = self._efficiency
        reading = self._kv * (read + tokens) + (self._weights if reads_weights else 0.0)
        linear = self._linear * tokens + self._head * heads
        attention = self._pair * pairs
        exchanging = self._exchange.moving(tokens) / said.link
        seconds = max(reading / said.memory, linear / said.linear + attention / said.attention)
        seconds = max(seconds, exchanging) if said.overlaps else seconds + exchanging
        if reads_weights:
            seconds += said.overhead + said.latency * self._exchange.waiting
        return Cost(seconds, reading, linear + attention)


class Roofline:
    """Step times of one engine; `steps.StepTimes`.

    Args:
        draft: what drafts, by its shape and the format of its weights, if anything does.
        speculates: how far ahead, and how often it is right.
    """

    def __init__(
        self,
        model: Model,
        *,
        weights: str,
        kv_cache: str,
        chips: Chips,
        draft: tuple[Model, str] | None = None,
        speculates: Speculation = speculation.NONE,
        efficiency: Efficiency = LIMIT,
    ) -> None:
        self._speculation = speculates if draft else speculation.NONE
        self._efficiency = efficiency
        self._target = _Passes(model, weights, kv_cache, chips, efficiency)
        self._draft = _Passes(draft[0], draft[1], kv_cache, chips, efficiency) if draft else None

    @property
    def calibration(self) -> str:
        return self._efficiency.name

    @property
    def largest_batch(self) -> Slots:
        return _LARGEST_BATCH

    @property
    def most_prefill_per_step(self) -> Tokens:
        return _MOST_PREFILL

    @property
    def draft_tokens(self) -> Tokens:
        return self._speculation.draft_tokens

    @property
    def acceptance(self) -> float:
        return self._speculation.acceptance

    @property
    def tokens_per_step(self) -> float:
        return self._speculation.tokens_per_step

    def decode_step(self, batch: int, context: float) -> Seconds:
        return self.step(batch, context).seconds if batch >= 1 else 0.0

    def prefill(self, tokens: Tokens, *, behind: Tokens = 0) -> Seconds:
        """What reading `tokens` of a prompt adds to a step, which reads the weights anyway. (Step and this
        one after the other take longer than `step` does for both: there memory and tensor cores overlap.)"""
        passes = [self._target] if self._draft is None else [self._target, self._draft]
        work = _Work(tokens, behind)
        return sum(
            one.cost(tokens, pairs=work.pairs, read=behind, heads=0, reads_weights=False).seconds
            for one in passes
        )

    def prefill_per_step(self, batch: int) -> Tokens:
        return _MOST_PREFILL

    def tail(self, batch: int) -> float:
        return self._efficiency.tail

    def step(self, batch: int, context: float, chunk: Tokens = 0, behind: Tokens = 0) -> Cost:
        """One step: `batch` sequences of `context` tokens, and beside them `chunk` tokens of a prompt of
        which `behind` are read already. All of it is one pass that reads the weights once."""
        ahead = self.draft_tokens
        cost = self._pass(self._target, batch, 1 + ahead, context, chunk, behind)
        if self._draft is not None:
            # The prompt is read beside the first drafted token.
            cost += self._pass(self._draft, batch, 1, context, chunk, behind)
            cost += self._pass(self._draft, batch, 1, context) * (max(0, ahead - 1) if batch else 0)
        return cost

    @staticmethod
    def _pass(
        passes: _Passes, batch: int, tokens: Tokens, context: float, chunk: Tokens = 0, behind: Tokens = 0
    ) -> Cost:
        each, prompt = _Work(tokens, context), _Work(chunk, behind)
        return passes.cost(
            batch * tokens + chunk,
            pairs=batch * each.pairs + prompt.pairs,
            read=batch * context + (behind if chunk else 0),
            heads=batch * tokens + (1 if chunk else 0),
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """New tokens of one sequence, behind others."""

    tokens: float
    behind: float

    @property
    def pairs(self) -> float:
        """Each new token with all before it: causal attention computes half of the square."""
        return self.tokens * (self.behind + self.tokens / 2)


def eagle_head(model: Model) -> Model:
    """What A+EAGLE drafts with, as far as a pass reads it: one layer of the target's shape, and the target's
    own head. (The layer that joins token and feature is left out: 2 * hidden² parameters.)

    Source: Li et al., "EAGLE", 2024: one decoder layer on the target's embedding and head.
    """
    return replace(model, name=f"{model.name}-eagle", layers=1)
