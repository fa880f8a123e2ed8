"""What each OpenAI-compatible server calls things, and what it tells of itself: a file a server."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from diplex_workers.engines.dialects.dialect import Dialect
from diplex_workers.engines.dialects.llamacpp import LlamaCpp
from diplex_workers.engines.dialects.sglang import SGLang
from diplex_workers.engines.dialects.triton import Triton
from diplex_workers.engines.dialects.trtllm import TrtLlm
from diplex_workers.engines.dialects.vllm import Vllm

DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {dialect.api: dialect for dialect in (Dialect(), Vllm(), SGLang(), TrtLlm(), LlamaCpp(), Triton())}
)
