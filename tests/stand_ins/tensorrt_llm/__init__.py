"""A stand-in for TensorRT-LLM that whole processes can import, with this folder's parent on PYTHONPATH.

It computes nothing and is no evidence of what that does: see tests/workers/engines/trtllm_stand_in.py,
whose classes these are. Here an engine answers by itself, keeps prefix blocks and tells of them.
"""

__version__ = "1.3.0.stand-in"
