"""What lies in an engine's memory, group by group and die by die, and how much is left for its KV cache.

Weights are split over the GPUs and dies of one engine as tensor parallelism splits them: linear layers by
rows or columns, embeddings and head by vocabulary, biases with their layers; norms, and the biases of what
is summed up, are whole on each. Where a split leaves a remainder, each part is taken to have the larger
share.

    A, A+EAGLE  interleaved over the package: no die has a share of its own
    B           an engine a die, each with a whole copy of the weights
    C           both dies half of what is split
    D           as the chapter draws it (§4.4): the draft model on die 0, the target on die 1 and, if it must,
                on die 0 too. Engines that speculate keep both models on one GPU without regard to its dies,
                and no setting of theirs places one on a die: the sums hold, the picture is an intent.

Beside weights and pool an engine has a context, scratch memory, activations and a reserve, by calibration,
once a GPU. An engine on one die of a GPU has a context and scratch of its own, and half of the activations
and the reserve; one over both dies is drawn with half of each on each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from diplex_core.model import catalogue
from diplex_core.model.catalogue import Gpu, Model, Weights
from diplex_core.words import Blocks, Pattern, Slots, Tokens

WEIGHTS: Final = ("attention", "ffn", "block scales", "embeddings", "head", "norms", "draft weights")
"""The groups that are weights."""

# Of what lies beside the weights, these grow with the batch or with the memory itself: an engine on one die
# has half of each. Context and scratch are a process's own, and each of two processes has them whole.
_HALVED: Final = ("activations", "reserve")

_BLOCK: Final[Tokens] = 32


def kv_bytes_per_token(model: Model, kv_cache: str) -> float:
    """Bytes of KV cache that one token takes: a key and a value for each layer and KV head.

    Raises:
        NotInCatalogue: the number format is unknown.

    >>> kv_bytes_per_token(catalogue.model("qwen2.5-72b"), "mxfp8")
    168960.0
    """
    return model.kv_elements * catalogue.bytes_per_element(kv_cache)


def weights_bytes(model: Model, weights: str) -> int:
    """Bytes that the weights take.

    Raises:
        NotInCatalogue: the format is unknown.

    >>> weights_bytes(catalogue.model("qwen2.5-72b"), "mxfp4-mixed")
    44700000000
    """
    return catalogue.recipe(weights).weights(model).total


def bytes_read(model: Model, weights: str) -> int:
    """Bytes of the weights that each decode step reads: all but the table in which tokens are looked up.

    Raises:
        NotInCatalogue: the format is unknown.

    >>> bytes_read(catalogue.model("qwen2.5-72b"), "nvfp4")
    41990307840
    """
    return catalogue.recipe(weights).weights(model).read


@dataclass(frozen=True, slots=True)
class Group:
    """Bytes of one kind. `die`: on which of a GPU's dies they lie; `None`: over the whole package."""

    name: str
    die: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The memory of one engine on one GPU; on each of the GPUs that it spans it looks the same.

    Attributes:
        model, where: whose it is, and what it lies on, in words.
        memory: all of it, by die.
        groups: what lies there beside the KV pool, in a box's order: process, weights, work, reserve.
        kv_bytes_per_token: of all models that keep a KV cache of the same sequence, on all GPUs together.
        gpus: how many it spans.
        evenly: each die has the same share of every token's KV cache.
    """

    model: str
    where: str
    memory: tuple[tuple[int | None, int], ...]
    groups: tuple[Group, ...]
    kv_bytes_per_token: float
    gpus: int = 1
    evenly: bool = True

    @property
    def memory_bytes(self) -> int:
        """Of one GPU, or of the die that the engine has of it."""
        return sum(size for _, size in self.memory)

    @property
    def dies(self) -> tuple[int | None, ...]:
        return tuple(die for die, _ in self.memory)

    @property
    def pools(self) -> tuple[Group, ...]:
        """What the groups leave for the KV pool, by die; below 0 where they alone do not fit."""
        return tuple(
            Group("kv pool", die, size - sum(group.bytes for group in self.groups if group.die == die))
            for die, size in self.memory
        )

    @property
    def pool_bytes(self) -> int:
        """The KV pool on one GPU. With all groups it is the memory, exactly."""
        return sum(pool.bytes for pool in self.pools)

    @property
    def weights_bytes(self) -> int:
        """Weights on one GPU, a draft model's included."""
        return sum(group.bytes for group in self.groups if group.name in WEIGHTS)

    @property
    def kv_bytes_per_token_and_gpu(self) -> float:
        return self.kv_bytes_per_token / self.gpus

    def size(self, *names: str) -> int:
        """Bytes of the groups of these names, all dies together."""
        return sum(group.bytes for group in self.groups if group.name in names)

    @property
    def fits(self) -> bool:
        """Whether the groups leave anything for a KV pool."""
        return self._usable > 0

    @property
    def _usable(self) -> int:
        """Bytes of the pool that sequences can fill: a die that is full stops the others of an even split."""
        if not self.evenly:
            return self.pool_bytes
        return len(self.memory) * min(pool.bytes for pool in self.pools)

    def capacity_blocks(self, block_tokens: Tokens) -> Blocks:
        """Whole KV blocks that fit into what the groups leave.

        Raises:
            ValueError: the groups alone do not fit; the message has the sums.
        """
        if not self.fits:
            raise ValueError(f"{self.too_large()}. Mend: a smaller model, or smaller weights")
        return int(self._usable * self.gpus // (self.kv_bytes_per_token * block_tokens))

    def too_large(self) -> str:
        """What one says when the groups alone do not fit, with the sums."""
        sizes = {"weights": self.weights_bytes - self.size("draft weights")}
        for group in self.groups:
            if group.name == "draft weights" or group.name not in WEIGHTS:
                sizes[group.name] = self.size(group.name)
        needed = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in sizes.items())
        each = f", each of {self.gpus}" if self.gpus > 1 else ""
        return (
            f"{self.model} does not fit into {self.where}'s {self.memory_bytes / 1e9:.1f} GB{each}: {needed}"
        )

    def kv_bytes(self, batch: int, context: Tokens) -> int:
        """What `batch` sequences of `context` tokens each take of the pool on one GPU."""
        return round(batch * context * self.kv_bytes_per_token_and_gpu)

    def largest_batch(self, context: Tokens, block_tokens: Tokens = _BLOCK) -> Slots:
        """The most sequences of `context` tokens each that the pool holds.

        Raises:
            ValueError: the groups alone do not fit.
        """
        return self.capacity_blocks(block_tokens) // max(1, -(-context // block_tokens))

    def largest_context(self, batch: Slots, block_tokens: Tokens = _BLOCK) -> Tokens:
        """The longest context that `batch` sequences can have at once, whatever the model reads at most.

        Raises:
            ValueError: the groups alone do not fit.
        """
        return self.capacity_blocks(block_tokens) // max(1, batch) * block_tokens

    @property
    def free_gpu_memory_fraction(self) -> float:
        """What `--kv_cache_free_gpu_memory_fraction` must say for the planned pool.

        TensorRT-LLM loads the weights, runs its largest batch once, and gives the pool this share of what is
        still free at the peak (its tensorrt_llm/_torch/pyexecutor/_util.py: `(total - peak) * fraction`). The
        rest is the reserve. Engines that share a GPU see each other's memory as taken.
        """
        return self.pool_bytes / (self.pool_bytes + self.size("reserve"))

    @property
    def gpu_memory_utilization(self) -> float:
        """What `--gpu-memory-utilization` must say for the planned pool.

        vLLM may use this share of all memory, weights and activations included, and the pool gets what they
        leave of it (its vllm/v1/worker/gpu_worker.py: `requested_memory - non_kv_cache_memory`). What is not
        requested is the reserve.
        """
        return 1 - self.size("reserve") / self.memory_bytes


@dataclass(frozen=True, slots=True)
class Drafter:
    """A draft model beside its target, by its profile and the format of its weights."""

    profile: str
    weights: str


@cache
def layout(
    pattern: Pattern,
    *,
    gpu: str,
    profile: str,
    weights: str,
    kv_cache: str,
    beside: tuple[tuple[str, int], ...],
    drafter: Drafter | None = None,
) -> Layout:
    """How a model lies in the memory that the pattern gives one engine on one package, all by their names.

    Args:
        beside: what an engine over the whole package has in its memory beside weights and KV: name, bytes.
        drafter: pattern D's draft model.
    Raises:
        NotInCatalogue: no data file describes the GPU, a model or a format.
    """
    draft = (catalogue.model(drafter.profile), drafter.weights) if drafter is not None else None
    package, model = catalogue.gpu(gpu), catalogue.model(profile)
    return layout_of(pattern, package, model, weights, kv_cache, beside=beside, draft=draft)


@cache
def layout_of(
    pattern: Pattern,
    package: Gpu,
    model: Model,
    weights: str,
    kv_cache: str,
    *,
    beside: tuple[tuple[str, int], ...],
    draft: tuple[Model, str] | None = None,
    span: int = 1,
    dies_are_gpus: bool = False,
) -> Layout:
    """How a model lies in the memory of one of the packages that an engine spans.

    Pattern D keeps two models, and a KV cache of both for each sequence. The head that A+EAGLE drafts with is
    taken to lie in the reserve.

    Args:
        beside: what an engine has in the memory of one GPU beside weights and KV: name, bytes.
        draft: pattern D's draft model and the format of its weights.
        span: packages that the engine spans, each with the same share of weights and KV cache.
        dies_are_gpus: the package's dies are GPUs of their own: each has all of `beside`.
    Raises:
        NotInCatalogue: a format is unknown.
    """
    per_token = kv_bytes_per_token(model, kv_cache)
    if draft is not None:
        per_token += kv_bytes_per_token(draft[0], kv_cache)
    dies = _dies(pattern, package.dies)
    memory = dict(zip(dies, _memory(package, dies), strict=True))
    split = span * (len(dies) if pattern is Pattern.C else 1)
    ours = tuple(_shares(model, catalogue.recipe(weights).weights(model), split))
    around = tuple(_beside(pattern, package, beside, whole=dies_are_gpus))
    drafting = 0 if draft is None else -(-catalogue.recipe(draft[1]).weights(draft[0]).total // span)
    if pattern is Pattern.D and len(dies) > 1:
        left = sum(size for _, size in around)
        lie = list(_apart({die: size - left for die, size in memory.items()}, ours, drafting))
    else:
        lie = [Group(name, die, size) for die in dies for name, size in ours if size]
        lie += [Group("draft weights", die, drafting) for die in dies if drafting]
    process = [Group(name, die, size) for die in dies for name, size in around if name not in _HALVED]
    work = [Group(name, die, size) for die in dies for name, size in around if name in _HALVED]
    return Layout(
        model.name,
        _where(pattern, package, dies_are_gpus),
        tuple(memory.items()),
        (*process, *lie, *work),
        per_token,
        gpus=span,
        evenly=pattern is not Pattern.D,
    )


def _where(pattern: Pattern, package: Gpu, dies_are_gpus: bool) -> str:
    if pattern is not Pattern.B:
        return package.name
    return f"one of {package.name}" if dies_are_gpus else f"one die of {package.name}"


def _dies(pattern: Pattern, dies: int) -> tuple[int | None, ...]:
    """The dies that one engine's memory is told apart by."""
    match pattern:
        case Pattern.C | Pattern.D if dies > 1:
            return tuple(range(dies))
        case Pattern.B:
            return (0,)
    return (None,)


def _memory(package: Gpu, dies: tuple[int | None, ...]) -> Iterator[int]:
    """Each die's part of the package, the odd byte on die 0; all of it where no die is told apart."""
    if dies == (None,):
        yield package.memory_bytes
    else:
        small, odd = divmod(package.memory_bytes, package.dies)
        yield from (small + odd if die == 0 else small for die in dies)


def _shares(model: Model, weights: Weights, split: int) -> Iterator[tuple[str, int]]:
    """What one of `split` parts has of each group of weights."""
    whole = weights.unsplit
    yield "attention", -(-(weights.attention - weights.attention_scales) // split)
    yield "ffn", -(-(weights.ffn - weights.ffn_scales) // split)
    yield "block scales", -(-(weights.attention_scales + weights.ffn_scales) // split)
    yield "embeddings", -(-weights.embeddings // split)
    yield "head", -(-weights.head // split)
    yield "norms", whole + -(-(weights.norms - whole) // split)


def _beside(
    pattern: Pattern, package: Gpu, beside: tuple[tuple[str, int], ...], *, whole: bool
) -> Iterator[tuple[str, int]]:
    """What lies beside weights and pool where one die is told apart, or all of it."""
    for name, size in beside:
        drawn_on_both, halved = pattern in (Pattern.C, Pattern.D), pattern is Pattern.B and name in _HALVED
        shared = (drawn_on_both or halved) and not whole
        yield name, size // package.dies if shared else size


def _apart(room: dict[int | None, int], target: Iterable[tuple[str, int]], drafting: int) -> Iterator[Group]:
    """The draft model on the first die, the target on the last one, and what is too large on the other.

    Args:
        room: bytes by die, for both models.
    """
    first, *_, last = room
    for name, size, at, other in (
        ("draft weights", drafting, first, last),
        *((name, size, last, first) for name, size in target),
    ):
        here = min(size, max(0, room[at]))
        for die, part in ((at, here), (other, size - here)):
            if part:
                room[die] -= part
                yield Group(name, die, part)
