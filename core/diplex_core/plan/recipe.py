"""From a deployment to the commands that make it: quantize, divide the package, serve. Values in, text out.

What the chapter calls patterns is done with what engines really have (docs/guide/placement.md). Figures come
from the planner (`recipe_sizes`), places from `recipe_ways`; a file for each engine has its words.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from diplex_core.model import catalogue
from diplex_core.model.memory import Drafter
from diplex_core.plan import recipe_trtllm, recipe_vllm
from diplex_core.plan.deployment import Deployment, Unplannable
from diplex_core.plan.prediction import roofline_of
from diplex_core.plan.recipe_sizes import CONTEXT, GAP, Serves, Sizes, sizes_of
from diplex_core.plan.recipe_ways import Seat, Way, preparing, ranks, seats, undoing, way_of
from diplex_core.words import Pattern, Seconds, Slots, Tokens

ENGINES: Final[Mapping[str, ModuleType]] = {"trtllm": recipe_trtllm, "vllm": recipe_vllm}
FIRST_PORT: Final = 8000

_CHAPTER: Final = Path(__file__).with_name("recipe_chapter.toml")
_CALIBRATION: Final = 512
# ModelOpt's names, by ours: what its hf_ptq.py calls formats of weights and of the KV cache.
_QFORMATS: Final = {"nvfp4": "nvfp4", "fp8": "fp8", "bf16": ""}
_KV_QFORMATS: Final = {"nvfp4": "nvfp4", "fp8": "fp8", "bf16": "none"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a recipe is for, where that is not the deployment itself.

    Attributes:
        engine: "trtllm" or "vllm".
        serves: `None`: as the pattern is meant: C and D for latency.
        placement: a way of `recipe_ways`; "": the usual one.
        source: the checkpoint in BF16; "": `./MODEL`. `checkpoint`: what is served; "": `./MODEL-FORMAT`.
        draft: pattern D's draft checkpoint, or A+EAGLE's head; "": `./…`.
        name: what clients call the model; "": as the planner does.
        sequences, budget: where they are not to be the planner's.
    """

    engine: str = "trtllm"
    serves: Serves | None = None
    placement: str = ""
    gap: Seconds = GAP
    context: Tokens = CONTEXT
    longest: Tokens = 0
    source: str = ""
    checkpoint: str = ""
    draft: str = ""
    name: str = ""
    host: str = "127.0.0.1"
    port: int = FIRST_PORT
    sequences: Slots = 0
    budget: Tokens = 0


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that an engine's file needs to write one engine's command.

    Attributes:
        number: of the engine; its port is the first one's and so many more.
        ranks: devices that it spans.
        share: of its GPU's memory that is its own: 0.5 where two processes see the whole of it.
        draft: what speculates, its kind being the pattern's; "": nothing.
        ahead: tokens drafted in each step.
    """

    deployment: Deployment
    sizes: Sizes
    way: Way
    number: int
    ranks: int
    share: float
    checkpoint: str
    draft: str
    ahead: Tokens
    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Engine:
    """One process. Where it reads `config` from a file, its path in `command` is recipe_trtllm's `CONFIG`."""

    seat: Seat
    command: tuple[str, ...]
    config: Mapping[str, Any]
    url: str


@dataclass(frozen=True, slots=True)
class Flag:
    """A word of the chapter's commands, and what there really is."""

    said: str
    real: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """Attributes:
    quantize: commands that make the checkpoints, each with a sentence; empty: they are served as they are.
    prepare, undo: shell lines that make the package's devices, and that give them back.
    """

    deployment: Deployment
    asked: Asked
    way: Way
    sizes: Sizes
    quantize: tuple[tuple[str, tuple[str, ...]], ...]
    prepare: tuple[str, ...]
    undo: tuple[str, ...]
    engines: tuple[Engine, ...]
    notes: tuple[str, ...]

    @property
    def module(self) -> ModuleType:
        return ENGINES[self.asked.engine]


def recipe_of(deployment: Deployment, asked: Asked) -> Recipe:
    """The whole of it.

    Raises:
        Unplannable: the engine has no such format, or the pattern cannot lie so; with the nearest that works.
    """
    if asked.engine not in ENGINES:
        raise Unplannable(
            f"no recipe for the engine '{asked.engine}'. Nearest: --engine {next(iter(ENGINES))}"
        )
    _must_serve(deployment, asked.engine)
    way = way_of(deployment, asked.placement, ENGINES[asked.engine].CANNOT)
    latency = deployment.pattern in (Pattern.C, Pattern.D)
    serves = asked.serves or (Serves.LATENCY if latency else Serves.THROUGHPUT)
    sizes = sizes_of(
        deployment,
        serves,
        gap=asked.gap,
        context=asked.context,
        longest=asked.longest,
        sequences=asked.sequences,
        budget=asked.budget,
    )
    places = seats(deployment, way)
    gpus = 1 + max(place.gpu for place in places)
    return Recipe(
        deployment=deployment,
        asked=asked,
        way=way,
        sizes=sizes,
        quantize=_quantize(deployment, asked),
        prepare=preparing(way, gpus),
        undo=undoing(way, gpus),
        engines=tuple(_engine(deployment, asked, way, sizes, place) for place in places),
        notes=tuple(_notes(deployment, asked, way, sizes)),
    )


@cache
def chapter_flags() -> tuple[tuple[str, tuple[Flag, ...]], ...]:
    """The chapter's commands (§2, §4.3, §7), each with its words and what there really is instead."""
    with _CHAPTER.open("rb") as file:
        said = tomllib.load(file)["command"]
    return tuple((one["title"], tuple(Flag(*pair) for pair in one["flags"])) for one in said)


def _must_serve(deployment: Deployment, engine: str) -> None:
    """Raises Unplannable where the engine has no such format."""
    kinds = ENGINES[engine]
    for flag, said, known in (
        ("--weights", deployment.weights, kinds.WEIGHTS),
        ("--kv-cache", deployment.kv_cache, kinds.KV_CACHES),
    ):
        if said not in known:
            usual = known[0] if deployment.gpu.flops_fp4 else "fp8"
            raise Unplannable(
                f"{kinds.TITLE} serves no dense model with {flag} {said}; it has {', '.join(known)}. "
                f"Nearest: {flag} {usual}"
            )
    if deployment.weights == "nvfp4" and not deployment.gpu.flops_fp4:
        raise Unplannable(f"{deployment.gpu.name} has no tensor cores for NVFP4. Nearest: --weights fp8")
    if deployment.kv_cache == "nvfp4" and not deployment.gpu.flops_fp4:
        raise Unplannable(f"{deployment.gpu.name} has no NVFP4 KV cache. Nearest: --kv-cache fp8")


def _engine(deployment: Deployment, asked: Asked, way: Way, sizes: Sizes, seat: Seat) -> Engine:
    served = Served(
        deployment=deployment,
        sizes=sizes,
        way=way,
        number=int(seat.name),
        ranks=ranks(deployment, way),
        share=0.5 if way is Way.MPS else 1.0,
        checkpoint=checkpoint_of(deployment, asked),
        draft=_drafts_with(deployment, asked),
        ahead=roofline_of(deployment).draft_tokens,
        name=asked.name or deployment.model.name,
        host=asked.host,
        port=asked.port + int(seat.name),
    )
    kinds = ENGINES[asked.engine]
    return Engine(seat, kinds.command(served), kinds.config(served), f"http://{asked.host}:{served.port}")


def checkpoint_of(deployment: Deployment, asked: Asked) -> str:
    """What is served: as asked, or where the quantizing command puts it."""
    source = asked.source or f"./{deployment.model.name}"
    return asked.checkpoint or (source if deployment.weights == "bf16" else f"{source}-{deployment.weights}")


def _drafts_with(deployment: Deployment, asked: Asked) -> str:
    match deployment.pattern:
        case Pattern.D:
            assert deployment.draft is not None
            return (
                asked.draft or f"./{deployment.draft.profile}-{_draft_format(deployment.draft, deployment)}"
            )
        case Pattern.A_EAGLE:
            return asked.draft or f"./{deployment.model.name}-eagle3"
    return ""


def _draft_format(draft: Drafter, deployment: Deployment) -> str:
    """The draft model's, which the chapter has in MXFP4: as the target's, where no engine has that."""
    return draft.weights if draft.weights in _QFORMATS else deployment.weights


def _quantize(deployment: Deployment, asked: Asked) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """ModelOpt's script on what there is in BF16.

    Source: NVIDIA/Model-Optimizer, examples/hf_ptq (in older releases examples/llm_ptq), hf_ptq.py.
    """
    it, found = deployment, []
    sources = [(asked.source or f"./{it.model.name}", checkpoint_of(it, asked), it.weights)]
    if it.pattern is Pattern.D and it.draft is not None:
        weights = _draft_format(it.draft, it)
        sources.append((f"./{it.draft.profile}", _drafts_with(it, asked), weights))
    for source, target, weights in sources:
        if _QFORMATS[weights]:
            words = (
                *("hf_ptq", "--pyt_ckpt_path", source, "--qformat", _QFORMATS[weights]),
                *("--kv_cache_qformat", _KV_QFORMATS[it.kv_cache], "--calib_size", str(_CALIBRATION)),
                *("--export_path", target),
            )
            found.append((f"{source} in {weights}, once", words))
    return tuple(found)


def _notes(deployment: Deployment, asked: Asked, way: Way, sizes: Sizes) -> list[str]:
    it, notes = deployment, []
    read = catalogue.recipe(it.weights).weights(it.model).total
    notes.append(
        f"{it.model.name} in {it.weights} is {read / 1e9:.1f} GB of weights; the KV pool of one engine holds "
        f"{sizes.pool_tokens:,} tokens in {it.kv_cache}."
    )
    if sizes.serves is Serves.LATENCY:
        assert sizes.gap is not None
        notes.append(
            f"For latency: {sizes.sequences} running sequences and {sizes.prefill_budget:,} prompt tokens a "
            f"step keep {1000 * sizes.gap:g} ms a token, as the planner reckons at half of the limit."
        )
        if not sizes.kept:
            notes[-1:] = [
                f"No engine here keeps {1000 * sizes.gap:g} ms a token even for one stream, as the planner "
                f"reckons at half of the limit: sized for the least that a few streams can have."
            ]
    else:
        notes.append(
            f"For throughput: as many sequences of {asked.context:,} tokens as the pool holds. Give latency "
            f"tiers a worker of their own (--serve latency): while a step reads a neighbour's long prompt, "
            f"every stream waits."
        )
    if sizes.longest > it.model.context:
        notes.append(
            f"{sizes.longest:,} tokens need rescaled positions (YaRN): put rope_scaling into the "
            f"checkpoint's config.json as its publisher says."
        )
    notes += _of_pattern(it, way)
    return notes


def _of_pattern(it: Deployment, way: Way) -> list[str]:
    match it.pattern:
        case Pattern.C if way is Way.MLOPART:
            return [
                "Pattern C on B200 adds no bandwidth over A: both dies' HBM already serves one device. It is "
                "experimental: no engine is publicly known to have served on MLOPart devices.",
                "NCCL takes two partitions of one GPU for two ranks from 2.30.7 on; an older one is refused.",
            ]
        case Pattern.B if way is Way.MIG:
            return [
                "Two MIG slices use six of seven compute slices; neither engine can fail or crowd the other."
            ]
        case Pattern.B if way is Way.MPS:
            return [
                "Two MPS halves share one memory and its bandwidth; each has half of the SMs. What a process "
                "may take is bounded by its engine's own figures, not by hardware."
            ]
        case Pattern.B if way is Way.MLOPART:
            return ["MLOPart is experimental: no engine is publicly known to have served on such a device."]
        case Pattern.D:
            return [
                "Draft and target are one instance on the same devices: no engine can place them on two dies."
            ]
        case Pattern.A_EAGLE:
            return ["Speculation needs an EAGLE-3 head that was trained for this very model."]
    return []
