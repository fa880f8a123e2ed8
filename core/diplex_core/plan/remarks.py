"""What follows from the facts and must be said where somebody decides by the page."""

from collections.abc import Iterator

from diplex_core.model.memory import bytes_read
from diplex_core.plan.compare import Compared
from diplex_core.plan.deployment import Deployment
from diplex_core.plan.prediction import predictions_of
from diplex_core.words import Pattern, Tokens

_SPECULATING = (Pattern.A_EAGLE, Pattern.D)


def remarks(
    planned: Deployment, patterns: tuple[Compared, ...], context: Tokens, prompt: Tokens
) -> Iterator[str]:
    """Sentences, the most important first."""
    bounds = {row.pattern: _bound(row.deployment) for row in patterns if row.deployment is not None}
    yield _one_stream(planned, bounds)
    if planned.gpu.dies > 1:
        yield (
            f"Pattern C adds no bandwidth: in A both dies' HBM already serves one device. What C can give "
            f"is locality, and a worker that bulk never disturbs, for {_all_reduces(planned)} all-reduces a "
            f"token."
        )
    else:
        yield (
            f"On {planned.gpu.title} two GPUs joined by NVLink play the dies (--count 2): there pattern C "
            f"does double one stream's bandwidth, for {_all_reduces(planned)} all-reduces a token."
        )
    yield (
        "Pattern D: in every real engine draft and target share the GPU, and no setting places either on a "
        "die. Die 0 and die 1 are the chapter's picture of it."
    )
    yield (
        "Pattern B keeps two copies of the weights and gives each stream one die's bandwidth; what it buys "
        "is that long prompts of one kind never delay the streams of the other."
    )
    if planned.weights.startswith("mx") or planned.kv_cache.startswith("mx"):
        # TensorRT-LLM's formats: its docs/source/features/quantization.md, and KvCacheConfig.dtype.
        yield (
            "MX weights and an MX KV cache are the chapter's; TensorRT-LLM has neither for dense models. "
            "What it serves on Blackwell is --weights nvfp4 --kv-cache fp8, or FP8 for both."
        )
    if prompt > context:
        yield (
            f"The prompt of {prompt:,} tokens is longer than what the others hold: TTFT is its own; memory "
            f"and the rates of streams are counted for {context:,} tokens each."
        )
    if (longest := max(context, prompt)) > planned.model.context:
        yield (
            f"{planned.model.name} is set up for {planned.model.context:,} tokens; {longest:,} need its "
            f"publisher's rescaled positions (YaRN), which cost some quality on short texts."
        )


def _one_stream(planned: Deployment, bounds: dict[Pattern, float]) -> str:
    """What a stream that is alone can have at most."""
    read = bytes_read(planned.model, planned.weights)
    packages = planned.count / planned.engines
    bandwidth = packages * planned.gpu.bandwidth
    said = (
        f"One stream alone: every token reads {read / 1e9:.1f} GB of weights, so {bandwidth / 1e12:.1f} TB/s "
        f"give at most {bandwidth / read:.0f} tok/s without speculation."
    )
    past = [f"{name} {bounds[name]:.0f}" for name in _SPECULATING if name in bounds]
    if past:
        limits = ", ".join(past)
        said += f" Only speculation goes past that (limits: {limits}); its gain shrinks as the batch grows."
    return said


def _bound(deployment: Deployment) -> float:
    """The most tokens a second of one stream with next to nothing behind it."""
    return predictions_of(deployment, batch=deployment.engines, context=1, prompt=1).limit.tok_s_stream


def _all_reduces(planned: Deployment) -> int:
    """After the attention and after the FFN of each layer."""
    return 2 * planned.model.layers
