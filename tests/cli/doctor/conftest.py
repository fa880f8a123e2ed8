"""`install()` makes a stand-in for TensorRT-LLM's package what is imported."""

from ...workers.engines.trtllm_stand_in import install  # noqa: F401  # a fixture
