"""A deployment: a model on GPUs in a pattern. What cannot be is refused, with the nearest that can."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from math import ceil
from typing import Final, TypeVar

from diplex_core.model import catalogue, chapter
from diplex_core.model.catalogue import Gpu, Model, NotInCatalogue
from diplex_core.model.memory import Drafter, Layout, layout_of
from diplex_core.words import Pattern, Slots, Tokens

_T = TypeVar("_T")

_DIES_APART: Final = (Pattern.B, Pattern.C, Pattern.D)
_PAIR: Final = 2

# As many GPUs of one kind a box can have, where more of them are looked for.
_BOX: Final = (1, 2, 4, 8)

# So many ways out a refusal names.
_BEFORE_BLACKWELL: Final = ("bf16", "fp8")
"""Numbers with block scales came with the tensor cores that compute in FP4."""
_WAYS: Final = 3


class Unplannable(ValueError):
    """It cannot be deployed so. The message has the numbers, and the nearest thing that works."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on GPUs in a pattern.

    Attributes:
        weights, kv_cache: the formats of both; weights may be a recipe.
        count: GPUs in all.
        tp: GPUs that one engine spans; in pattern B, that the engines on both dies span.
        draft: pattern D's draft model.
    """

    model: Model
    gpu: Gpu
    pattern: Pattern
    weights: str
    kv_cache: str
    count: int
    tp: int
    draft: Drafter | None = None

    @property
    def paired(self) -> bool:
        """Whether two GPUs with a die each play the dies of a package."""
        return self.pattern in _DIES_APART and self.gpu.dies == 1

    @property
    def package(self) -> Gpu:
        """What has the dies: the GPU, or a pair of them with NVLink as the link between its dies."""
        return _pair(self.gpu) if self.paired else self.gpu

    @property
    def span(self) -> int:
        """Packages that one engine spans."""
        return self.tp // _PAIR if self.paired else self.tp

    @property
    def engines(self) -> int:
        """How many there are: in pattern B two where the others have one."""
        return self.count // self.tp * (2 if self.pattern is Pattern.B else 1)

    @property
    def shards(self) -> int:
        """Ways in which weights and KV cache of one engine are split."""
        return self.span * (self.package.dies if self.pattern is Pattern.C else 1)

    @property
    def draft_model(self) -> Model | None:
        return catalogue.model(self.draft.profile) if self.draft else None

    @property
    def layout(self) -> Layout:
        """The memory of one engine, on one of the packages that it spans."""
        return layout_of(
            self.pattern,
            self.package,
            self.model,
            self.weights,
            self.kv_cache,
            beside=chapter.memory_beside(),
            draft=(catalogue.model(self.draft.profile), self.draft.weights) if self.draft else None,
            span=self.span,
            dies_are_gpus=self.paired,
        )

    def largest_batch(self, context: Tokens) -> Slots:
        """Sequences of the whole deployment, each of `context` tokens, that its KV pools hold."""
        return self.engines * self.layout.largest_batch(context)

    def largest_context(self, batch: Slots) -> Tokens:
        """The longest context, the model's own at most, that `batch` of its sequences can have at once."""
        each = self.layout.largest_context(ceil(batch / self.engines))
        return min(each, self.model.longest)


def deployment_of(
    model: str,
    *,
    gpu: str = "b200",
    pattern: Pattern | str = Pattern.A,
    weights: str = "",
    kv_cache: str = "",
    count: int = 0,
    tp: int = 0,
) -> Deployment:
    """What was asked for, with what was left out filled in.

    Args:
        model: its name in the catalogue, or the path of a Hugging Face config.json.
        weights, kv_cache: "": mxfp4-mixed and mxfp8 on GPUs that compute in FP4, else fp8.
        count: 0: as many as the GPU's box has.
        tp: 0: `count`.
    Raises:
        Unplannable: it cannot be deployed; the message has the numbers and the nearest thing that works.
    """
    chosen, what = _known(catalogue.gpu, gpu), _known(catalogue.model, model)
    pattern = _pattern(pattern)
    weights = weights or ("mxfp4-mixed" if chosen.flops_fp4 else "fp8")
    kv_cache = kv_cache or ("mxfp8" if chosen.flops_fp4 else "fp8")
    _known(catalogue.recipe, weights)
    _known(catalogue.bytes_per_element, kv_cache)
    count, tp = _gpus(chosen, pattern, count, tp)
    draft = _drafter(what, chosen) if pattern is Pattern.D else None
    planned = Deployment(what, chosen, pattern, weights, kv_cache, count, tp, draft)
    _must_split(planned)
    if not _holds(planned):
        raise Unplannable(_too_large(planned))
    return planned


def fits(planned: Deployment, batch: Slots, context: Tokens) -> bool:
    """Whether the KV pools hold `batch` sequences of the deployment, of `context` tokens each."""
    return objection(planned, batch, context) is None


def objection(planned: Deployment, batch: Slots, context: Tokens) -> str | None:
    """Why a load does not fit, with the numbers and the nearest that does; `None`: it does.

    Args:
        batch: sequences of the whole deployment.
        context: tokens that each of them holds in the end.
    """
    name, longest = planned.model.name, planned.model.longest
    if batch < 1 or context < 1:
        asked = f"--batch {batch} --context {context}"
        return f"{asked} is nothing to plan for. Nearest: --batch {max(1, batch)} --context {max(1, context)}"
    if context > longest:
        return f"{name} reads at most {longest:,} tokens, not {context:,}. Nearest: --context {longest}"
    if batch <= (most := planned.largest_batch(context)):
        return None
    layout, each = planned.layout, ceil(batch / planned.engines)
    needed, pool = each * context * layout.kv_bytes_per_token, layout.pool_bytes * layout.gpus
    engines = f", on each of {planned.engines} engines," if planned.engines > 1 else ""
    reason = (
        f"{each} × {context:,} tokens{engines} need {needed / 1e9:.1f} GB of KV cache in {planned.kv_cache}; "
        f"{name} in {planned.weights} leaves {pool / 1e9:.1f} GB for it"
    )
    shorter = planned.largest_context(batch)
    smaller = chain([f"--batch {most}"] if most else [], [f"--context {shorter}"] if shorter else [])
    ways = chain(smaller, _others(planned, lambda other: other.largest_batch(context) >= batch))
    return f"{reason}. Nearest: {_either(ways)}"


def _known(look_up: Callable[[str], _T], name: str) -> _T:
    try:
        return look_up(name)
    except NotInCatalogue as error:
        raise Unplannable(str(error)) from error


def _pattern(name: str) -> Pattern:
    try:
        return Pattern(name)
    except ValueError:
        near, known = catalogue.nearest(name, list(Pattern)), ", ".join(Pattern)
        raise Unplannable(f"unknown pattern '{name}'; known: {known}; nearest: {near or Pattern.A}") from None


@cache
def _pair(gpu: Gpu) -> Gpu:
    """Two GPUs as one package with two dies."""
    return replace(
        gpu,
        name=f"2 {gpu.name}",
        title=f"two {gpu.title}",
        dies=_PAIR,
        memory_bytes=_PAIR * gpu.memory_bytes,
        bandwidth=_PAIR * gpu.bandwidth,
        flops_bf16=_PAIR * gpu.flops_bf16,
        flops_fp8=_PAIR * gpu.flops_fp8,
        flops_fp4=_PAIR * gpu.flops_fp4 if gpu.flops_fp4 else None,
        die_link=gpu.gpu_link,
        power=_PAIR * gpu.power,
        idle_power=_PAIR * gpu.idle_power,
    )


def _gpus(gpu: Gpu, pattern: Pattern, count: int, tp: int) -> tuple[int, int]:
    """How many GPUs there are, and how many of them an engine spans."""
    count = count or max(gpu.packages, tp)
    tp = tp or count
    if min(count, tp) < 1:
        raise Unplannable(f"--count {count} --tp {tp} is nothing to plan for. Nearest: --count 1 --tp 1")
    boxed, most = gpu.packages > 1, gpu.packages
    if boxed and max(count, tp) > most:
        raise Unplannable(
            f"--count {count} --tp {tp} is more than the GPUs of {gpu.name}. "
            f"Nearest: --count {min(count, most)} --tp {min(count, tp, most)}"
        )
    least = _PAIR if gpu.dies == 1 and pattern in _DIES_APART else 1
    if count % least or tp % least:
        even, spanned = count + count % least, tp + tp % least
        raise Unplannable(
            f"pattern {pattern} needs two dies and {gpu.name} has one: two of them play a package, and "
            f"--count {count} --tp {tp} leaves one over. "
            f"Nearest: --count {max(even, spanned)} --tp {spanned}, or --pattern A"
        )
    if tp > count:
        raise Unplannable(
            f"--tp {tp} spans more GPUs than --count {count}. Nearest: --tp {count}, or --count {tp}"
        )
    if count % tp:
        fewer, more = max(_spans(count, least, tp)), -(-count // tp) * tp
        ways = [f"--tp {fewer}"] if boxed and more > most else [f"--tp {fewer}", f"--count {more}"]
        raise Unplannable(f"--count {count} is no multiple of --tp {tp}. Nearest: {_either(ways)}")
    return count, tp


def _spans(count: int, least: int, below: int) -> Iterator[int]:
    """The ways in which `count` GPUs make whole engines."""
    return (tp for tp in range(least, below, least) if count % tp == 0)


def _drafter(model: Model, gpu: Gpu) -> Drafter:
    """The chapter's draft model, or else the largest here that could draft for this one: of its vocabulary,
    with at most a quarter of its parameters.

    Raises:
        Unplannable: there is none.
    """
    usual = chapter.drafter()
    weights = usual.weights if gpu.flops_fp4 else "fp8"
    others = sorted(catalogue.names("profiles/models"), key=_parameters, reverse=True)
    for name in (usual.profile, *others):
        draft = catalogue.model(name)
        if draft.vocabulary == model.vocabulary and 4 * draft.parameters <= model.parameters:
            return Drafter(name, weights)
    raise Unplannable(
        f"pattern D needs a draft model, and none here has {model.name}'s vocabulary of {model.vocabulary:,} "
        f"and at most a quarter of its parameters. "
        f"Nearest: --pattern A+EAGLE, which drafts with a head of its own"
    )


def _parameters(name: str) -> int:
    return catalogue.model(name).parameters


def _must_split(planned: Deployment) -> None:
    """Raises Unplannable where heads or KV heads do not come out even."""
    if (why := _uneven(planned)) is None:
        return
    spans = _spans(planned.count, _PAIR if planned.paired else 1, planned.count + 1)
    near = [tp for tp in spans if _uneven(replace(planned, tp=tp)) is None]
    mend = ", or ".join(f"--tp {tp}" for tp in near) if near else "--pattern A --tp 1"
    raise Unplannable(f"--tp {planned.tp} in pattern {planned.pattern} makes {why}. Nearest: {mend}")


def _uneven(planned: Deployment) -> str | None:
    for model, parts in ((planned.model, planned.shards), (planned.draft_model, planned.span)):
        if model is not None and (model.heads % parts or model.kv_heads % parts):
            heads = f"{model.heads} heads and {model.kv_heads} KV heads"
            return f"{parts} parts, which do not divide the {heads} of {model.name}"
    return None


def _holds(planned: Deployment) -> bool:
    """Whether there is room for the weights, the engine, and a block of KV cache."""
    return planned.layout.fits and planned.layout.largest_context(1) > 0


def _too_large(planned: Deployment) -> str:
    ways = list(islice(_others(planned, _holds), _WAYS))
    return f"{planned.layout.too_large()}. Nearest: {_either(ways or _anywhere(planned))}"


def _anywhere(planned: Deployment) -> Iterator[str]:
    """Where no single change is enough: the smallest box that holds it, in the best weights that fit."""
    for gpu in _boxes():
        for other in _elsewhere(planned, gpu):
            for weights in _smaller(other):
                if _uneven(other) is None and _holds(replace(other, weights=weights)):
                    yield f"--gpu {gpu.name} --weights {weights}"
                    return
    largest, smallest = _boxes()[-1], _smaller(planned)[-1] if _smaller(planned) else planned.weights
    takes = catalogue.recipe(smallest).weights(planned.model).total
    yield (
        f"a smaller model: in {smallest} its weights still take {takes / 1e9:.1f} GB, and the largest here, "
        f"{largest.name}, has {largest.packages * largest.memory_bytes / 1e9:.1f} GB"
    )


def _others(planned: Deployment, do: Callable[[Deployment], bool]) -> Iterator[str]:
    """What to change, one thing at a time, so that it does; the first of each kind."""
    kinds = (
        _plainer(planned),
        ((f"--weights {name}", replace(planned, weights=name)) for name in _smaller(planned)),
        _wider(planned),
        ((f"--gpu {gpu.name}", other) for gpu in _boxes() for other in _elsewhere(planned, gpu)),
    )
    for kind in kinds:
        yield from islice((flags for flags, other in kind if _uneven(other) is None and _may(other, do)), 1)


def _may(planned: Deployment, do: Callable[[Deployment], bool]) -> bool:
    return _holds(planned) and do(planned)


def _smaller(planned: Deployment) -> list[str]:
    """Formats of weights that take fewer bytes and that its GPU computes with, the largest first."""
    names = catalogue.names("profiles/formats") if planned.gpu.flops_fp4 else _BEFORE_BLACKWELL
    sizes = {name: catalogue.recipe(name).weights(planned.model).total for name in (*names, planned.weights)}
    smaller = (name for name, size in sizes.items() if size < sizes[planned.weights])
    return sorted(smaller, key=sizes.__getitem__, reverse=True)


def _wider(planned: Deployment) -> Iterator[tuple[str, Deployment]]:
    """An engine over more GPUs of the same kind, as far as a box of them goes."""
    for tp in _BOX:
        if tp > planned.tp and (planned.gpu.packages == 1 or tp <= planned.gpu.packages):
            count = -(-planned.count // tp) * tp
            yield f"--count {count} --tp {tp}", replace(planned, count=count, tp=tp)


def _boxes() -> list[Gpu]:
    """All GPUs and boxes, the smallest memory first."""
    all_of_them = map(catalogue.gpu, catalogue.names("profiles/gpus"))
    return sorted(all_of_them, key=lambda gpu: gpu.packages * gpu.memory_bytes)


def _elsewhere(planned: Deployment, gpu: Gpu) -> Iterator[Deployment]:
    """The same on another GPU or box, all of it."""
    apart = planned.pattern in _DIES_APART and gpu.dies == 1
    if gpu.name != planned.gpu.name and not apart:
        yield replace(planned, gpu=gpu, count=gpu.packages, tp=gpu.packages)


def _plainer(planned: Deployment) -> Iterator[tuple[str, Deployment]]:
    """Pattern A, where all memory is one engine's."""
    if planned.pattern in _DIES_APART:
        yield "--pattern A", replace(planned, pattern=Pattern.A, draft=None)


def _either(ways: Iterable[str]) -> str:
    return ", or ".join(islice(ways, _WAYS))
