"""What spans and metrics call things, said once for every side of the wire.

OpenTelemetry's semantic conventions for generative AI come first, `diplex.*` names the rest. The conventions
are still in development; these are the names of the conventions' own repository (semantic-conventions-genai,
gen-ai-spans and gen-ai-metrics), which were read beside general conventions v1.42.
docs/guide/telemetry.md lists which span and which metric says what.
"""

from typing import Final

from diplex.v1 import generation_pb2 as pb

# The conventions' words.
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
CHOICES: Final = "gen_ai.request.choice.count"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# diplex's own. Times in milliseconds, as the names say.
REQUEST_ID: Final = "diplex.request_id"
TIER: Final = "diplex.tier"
TENANT: Final = "diplex.tenant"
DEGRADED_FROM: Final = "diplex.degraded_from"
WORKER: Final = "diplex.worker"
PACKAGE: Final = "diplex.package"
PATTERN: Final = "diplex.pattern"
ENGINE: Final = "diplex.engine"
SIMULATED: Final = "diplex.simulated"
ATTEMPT: Final = "diplex.lease.attempt"
PREEMPTIONS: Final = "diplex.preemptions"
BLOCKS: Final = "diplex.lease.blocks"
QUEUE_MS: Final = "diplex.queue_ms"
TTFT_MS: Final = "diplex.ttft_ms"
TPOT_MS: Final = "diplex.tpot_ms"
TOKENS_PER_SECOND: Final = "diplex.tokens_per_second"
PREDICTED_TTFT_MS: Final = "diplex.prediction.ttft_ms"
TTFT_ERROR: Final = "diplex.prediction.ttft_error"
"""Measured less predicted, in seconds: below zero, the first token came sooner than promised."""
SLO_MET: Final = "diplex.slo.met"

DIPLEX: Final = "diplex"
"""The provider, as the conventions call whoever serves the model."""

# Bucket bounds in seconds that the conventions ask for.
TTFT_BOUNDS: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
TPOT_BOUNDS: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION_BOUNDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip

# And those of `/metrics`, in seconds: from a simulated B200 to a model on a busy CPU.
TTFT_BUCKETS: Final = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
TPOT_BUCKETS: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01, 0.0125,
    0.015, 0.02, 0.025, 0.03, 0.05, 0.1, 0.15, 0.2, 0.5, 1.0,
)  # fmt: skip


def operation_of(prompt: pb.Prompt) -> str:
    """The conventions' word for what is asked of the model."""
    return "chat" if prompt.HasField("chat") else "text_completion"


def finish_word(reason: "pb.EndReason.ValueType") -> str:
    """STOP as "stop", and so on."""
    return pb.EndReason.Name(reason).removeprefix("END_REASON_").lower()
