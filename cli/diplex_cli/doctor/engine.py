"""Checks 2 and 3: the quantisation and the KV cache that an engine really uses, as far as it tells.

The chapter looks for a log line `kernel: gemm_mx_fp4_sm100` and for `kv_cache_type="mx_fp8"` in /metrics.
Neither exists: no engine names its kernels, and TensorRT-LLM has no MX format among its KV caches. What it
does tell is on its Prometheus page (served with `return_perf_metrics: true`): `trtllm_model_config_info` with
the quantisation, `trtllm_kv_cache_config_info` with the cache's type. vLLM has `vllm:cache_config_info`, and
no word of kernels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from diplex_cli.doctor.check import Check, Status
from diplex_cli.doctor.subject import Subject
from diplex_core.plan.page import BLOCK
from diplex_workers.engines.dialects.prometheus import Samples

_PATIENCE: Final = 5.0
_PAGES: Final = ("/prometheus/metrics", "/metrics")
_MODEL, _CACHE = "trtllm_model_config_info", "trtllm_kv_cache_config_info"
_BLOCKS, _BLOCK_TOKENS = "trtllm_kv_cache_max_blocks", "trtllm_kv_cache_tokens_per_block"
_VLLM: Final = "vllm:cache_config_info"
# diplex's formats of weights and of the KV cache, and what engines that run them call them.
_QUANTISED: Final[Mapping[str, tuple[str, ...]]] = {
    "nvfp4": ("nvfp4",),
    "mxfp4": ("nvfp4", "mxfp4"),
    "mxfp4-mixed": ("nvfp4", "mxfp4"),
    "fp8": ("fp8",),
    "bf16": ("none", "no_quant", "unquantized", "bfloat16"),
}
_CACHED: Final[Mapping[str, tuple[str, ...]]] = {
    "nvfp4": ("nvfp4",),
    "fp8": ("fp8",),
    "mxfp8": ("fp8",),
    "bf16": ("auto", "bfloat16"),
}
# Of the tokens that the planner has room for: below the first something else takes memory.
_POOL_WELL, _POOL_SMALL = 0.85, 0.5
_TWO, _THREE = "2 kernels", "3 KV cache"


@dataclass(frozen=True, slots=True)
class Told:
    """What an engine's own page says; "" and `None`: it does not.

    Attributes:
        quantization, cache_dtype: in its own words.
        pool: tokens of its KV cache.
    """

    quantization: str = ""
    cache_dtype: str = ""
    pool: int | None = None
    problem: str = ""


def told_by(url: str) -> Told:
    """Ask an engine's HTTP server for its Prometheus page."""
    base = url.rstrip("/").removesuffix("/v1")
    reason = ""
    for page in _PAGES:
        try:
            with urlopen(base + page, timeout=_PATIENCE) as answer:
                told = read(answer.read().decode("utf-8", "replace"))
        except (URLError, OSError, ValueError) as error:
            reason = reason or f"{base}{page}: {getattr(error, 'reason', error)}"
            continue
        if told.cache_dtype or told.quantization:
            return told
    return Told(problem=reason or f"{base} tells neither quantisation nor KV cache")


def read(page: str) -> Told:
    """What a Prometheus page says.

    >>> read('trtllm_kv_cache_config_info{page_size="32",cache_dtype="fp8"} 1').cache_dtype
    'fp8'
    """
    samples = Samples(page, (_MODEL, _CACHE, _BLOCKS, _BLOCK_TOKENS, _VLLM))
    models, caches, vllm = samples[_MODEL], samples[_CACHE], samples[_VLLM]
    pool = None
    if (blocks := samples.highest(_BLOCKS)) is not None:
        pool = int(blocks * (samples.highest(_BLOCK_TOKENS) or BLOCK))
    if vllm:
        labels = vllm[0][0]
        count, tokens = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        pool = int(count) * int(tokens) if count.isdecimal() and tokens.isdecimal() else None
        return Told(cache_dtype=labels.get("cache_dtype", ""), pool=pool)
    return Told(
        quantization=models[0][0].get("quantization", "") if models else "",
        cache_dtype=caches[0][0].get("cache_dtype", "") if caches else "",
        pool=pool,
    )


def engine_checks(found: Sequence[Subject], told: Told | None) -> Iterator[Check]:
    """Checks 2 and 3.

    Args:
        told: by the engine's own page; `None`: nobody said where that is.
    """
    real = [subject for subject in found if not subject.simulated]
    yield _kernels(found, real, told)
    yield _cache_type(found, real, told)
    yield _pool(found, told)


def _kernels(found: Sequence[Subject], real: Sequence[Subject], told: Told | None) -> Check:
    id_, title = "kernels", f"{_TWO}, quantisation in use"
    formats = sorted({subject.info.weights for subject in real if subject.info.weights})
    wanted = formats[0] if formats else ""
    expected = (
        f"{' or '.join(_QUANTISED.get(wanted, (wanted,)))} for weights {wanted}"
        if wanted
        else "what was asked"
    )
    expected += '; the chapter\'s line "gemm_mx_fp4_sm100" exists in no known version'
    return _compared(
        id_, title, expected, _QUANTISED.get(wanted, ()), told.quantization if told else "", found, told
    )


def _cache_type(found: Sequence[Subject], real: Sequence[Subject], told: Told | None) -> Check:
    id_, title = "kv_cache_type", f"{_THREE}, type"
    formats = sorted({subject.info.kv_cache for subject in real if subject.info.kv_cache})
    wanted = formats[0] if formats else ""
    expected = (
        f"{' or '.join(_CACHED.get(wanted, (wanted,)))} for KV cache {wanted}" if wanted else "what was asked"
    )
    expected += '; the chapter\'s kv_cache_type="mx_fp8" exists nowhere: fp8 is the nearest'
    return _compared(
        id_, title, expected, _CACHED.get(wanted, ()), told.cache_dtype if told else "", found, told
    )


def _compared(
    id_: str,
    title: str,
    expected: str,
    right: Sequence[str],
    said: str,
    found: Sequence[Subject],
    told: Told | None,
) -> Check:
    if not said:
        return Check(id_, title, "skip", expected, *_untold(found, told))
    if not right:
        mend = "models.….weights and kv_cache in the configuration: then it can be compared"
        return Check(id_, title, "warn", expected, said, mend)
    # TensorRT-LLM writes NVFP4, vLLM fp8_e4m3: the beginning decides.
    if any(said.lower().replace("quantalgo.", "").startswith(word) for word in right):
        return Check(id_, title, "pass", expected, said)
    mend = "serve the checkpoint that `diplex recipe` makes for this format, or correct the configuration"
    return Check(id_, title, "fail", expected, said, mend)


def _untold(found: Sequence[Subject], told: Told | None) -> tuple[str, str]:
    if found and all(subject.simulated for subject in found):
        return "simulated engines have no kernels and no cache", "ask a fleet of real engines"
    if told is not None:
        reason = told.problem or "the engine's page does not say"
        return reason, "return_perf_metrics: true in trtllm-serve's --config file brings its page"
    return "nobody was asked", "--engine-url http://HOST:8000, where the engine serves HTTP"


def _pool(found: Sequence[Subject], told: Told | None) -> Check:
    """The pool that the ledger counts in, against what the planner has room for, and what the engine has."""
    id_, title = "kv_pool", f"{_THREE}, pool"
    if not found:
        return Check(id_, title, "skip", "what the planner has room for", "no worker is up", "diplex up")
    status: Status = "pass"
    expected, seen, mend = [], [], ""
    for subject in found:
        info, deployment = subject.info, subject.deployment
        tokens = info.capacity_blocks * info.block_tokens
        seen.append(f"{subject.name} {tokens:,}")
        if told is not None and told.pool and not subject.simulated and tokens > told.pool:
            status, mend = (
                "fail",
                f"packages.….kv_blocks: the engine has {told.pool:,} tokens, and more are promised",
            )
        if deployment is None:
            continue
        room = deployment.layout.capacity_blocks(BLOCK) * BLOCK
        expected.append(f"{subject.name} {room:,}")
        share = tokens / room if room else 1.0
        if share < _POOL_SMALL and status == "pass":
            status, mend = (
                "fail",
                f"look what else takes the memory of {subject.name}'s device, or its kv_share",
            )
        elif share < _POOL_WELL and status == "pass":
            status, mend = "warn", f"a larger share of memory for {subject.name}'s KV cache"
    if not expected and status == "pass":
        status = "skip"
        mend = "models.….profile: a model that `diplex plan` knows"
    return Check(
        id_,
        title,
        status,
        f"tokens that the planner has room for: {', '.join(expected) or 'unknown of such models'}",
        f"tokens: {', '.join(seen)}",
        mend,
    )
