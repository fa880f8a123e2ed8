"""A job as TensorRT-LLM wants it, and its answer's news: what is new in outputs that are whole each time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import EndReason, Tokens
from diplex_workers.engines.engine import Job
from diplex_workers.engines.trtllm_interface import CompletionOutput, Package, accepts

# Sampling's optional fields, and what TensorRT-LLM calls them.
_NAMES: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_tokens",
}
_ENDS: Final = {
    "stop": EndReason.STOP,
    "length": EndReason.LENGTH,
    "cancelled": EndReason.CANCELLED,
}
# TensorRT-LLM evicts the blocks of the lowest of these first.
_RETENTION_MOST: Final = 100


def left_to_produce(job: Job) -> Tokens:
    """Output tokens that the job may still produce: what an earlier attempt produced is behind it."""
    return job.max_tokens - (job.resume.from_index if job.resume else 0)


def sampling_of(job: Job, package: Package) -> Any:
    """The job's SamplingParams.

    Raises:
        Problem: INVALID_ARGUMENT for what TensorRT-LLM has no word for.
    """
    sampling = job.sampling
    stated = {field.name: value for field, value in sampling.ListFields()}
    words: dict[str, Any] = {
        "max_tokens": left_to_produce(job),
        "n": job.choices,
        "ignore_eos": sampling.ignore_eos,
        "detokenize": True,
        "add_special_tokens": False,
        "skip_special_tokens": True,
    }
    words |= {theirs: stated[ours] for ours, theirs in _NAMES.items() if ours in stated}
    # OpenAI's own defaults: left alone, the LLM API decodes greedily, and then refuses several choices.
    if words.setdefault("temperature", 1.0):
        words.setdefault("top_p", 1.0)
    if sampling.stop:
        words["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        message = "TensorRT-LLM takes a bias for the whole vocabulary or none. Mend: leave logit_bias out"
        raise bad(message, "logit_bias")
    if (guided := _guided(sampling)) is not None:
        words["guided_decoding"] = package.guided(**guided)
    try:
        return package.sampling(**words)
    except (TypeError, ValueError) as error:
        raise bad(f"TensorRT-LLM refuses this sampling: {error}. Mend: other values", "sampling") from error


def _guided(sampling: pb.Sampling) -> dict[str, Any] | None:
    if not sampling.response_format:
        return None
    try:
        wanted = json.loads(sampling.response_format)
        match wanted["type"]:
            case "text":
                return None
            case "json_object":
                return {"json_object": True}
            case "json_schema":
                return {"json": wanted["json_schema"]["schema"]}
            case other:
                raise bad(f"response_format {other!r} is not known. Mend: json_schema", "response_format")
    except (ValueError, KeyError, TypeError) as error:
        message = f"response_format cannot be read: {error!r}. Mend: OpenAI's json_schema or json_object"
        raise bad(message, "response_format") from error


def placing_of(job: Job, package: Package) -> dict[str, Any]:
    """What else a request says, as far as this version listens: how soon it begins, how long its blocks stay,
    and with whom it shares them.

    Tiers have priorities like 100, 50 and 0. TensorRT-LLM orders its queue by 0 to 1 (0.5 by default) and
    keeps blocks by 0 to 100 (35 by default): a hundredth, and the number itself.
    """
    held = min(_RETENTION_MOST, max(0, job.priority))
    retention = package.retention(
        **{
            "token_range_retention_configs": [
                package.retention.TokenRangeRetentionConfig(
                    **{"token_start": 0, "token_end": None, "priority": held, "duration_ms": None}
                )
            ],
            "decode_retention_priority": held,
            "decode_duration_ms": None,
        }
    )
    words: dict[str, Any] = {"kv_cache_retention_config": retention}
    if job.salt:
        if not package.has_salt:
            message = (
                "this TensorRT-LLM cannot keep a tenant's prefix blocks apart (generate_async takes no "
                "cache_salt). Mend: TensorRT-LLM 1.1 or newer, or tenants.….isolate_prefixes: false"
            )
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_NO_SALT")
        words["cache_salt"] = f"{job.salt:016x}"
    if package.has_priority:
        words["priority"] = held / _RETENTION_MOST
    return words


def speculation_of(package: Package, *, eagle: bool, checkpoint: str, tokens: Tokens) -> Any:
    """The speculative_config: draft and target are one engine, on the same devices."""
    kind = package.eagle if eagle else package.draft_target
    newer = "speculative_model" if accepts(kind, "speculative_model") else "speculative_model_dir"
    return kind(**{"max_draft_len": tokens, newer: checkpoint})


@dataclass(slots=True)
class ChoiceReader:
    """What is new of one choice. Pure: it is told, and says.

    Counts what was said itself: TensorRT-LLM's own difference is wrong where several choices share a request.
    """

    stops: Sequence[str] = ()
    said: Tokens = 0
    spoken: int = 0  # characters

    def take(self, output: CompletionOutput) -> tuple[tuple[int, ...], str, EndReason | None]:
        """New ids, new text, and the end once it has one. Text that may become a stop string waits.

        Raises:
            Problem: it ended in a way that is none of its own.
        """
        ids = tuple((output.token_ids or ())[self.said :])
        self.said += len(ids)
        end = None
        if output.finish_reason is not None:
            end = _ENDS.get(output.finish_reason)
            if end is None:
                words = f"TensorRT-LLM gave the answer up: finish_reason {output.finish_reason!r}"
                raise Problem(StatusCode.UNAVAILABLE, words, "ENGINE_UNAVAILABLE")
        whole = output.text
        if end is None:
            whole = whole[: len(whole) - may_become(whole, self.stops)].removesuffix("\ufffd")
        text, self.spoken = whole[self.spoken :], max(self.spoken, len(whole))
        return ids, text, end


def may_become(text: str, stops: Sequence[str]) -> int:
    """Characters at a text's end that may be the beginning of a stop string.

    >>> may_become("so E", ("END", "stop")), may_become("so", ("END",))
    (1, 0)
    """
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)


def bad(message: str, field: str) -> Problem:
    return Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_SAMPLING", field=field)
