#!/usr/bin/env bash
# diplex recipe qwen2.5-72b --pattern C --engine trtllm --gpu h200 --count 2
#
# TensorRT-LLM 1.2 and 1.3: Qwen2.5-72B-Instruct on 2 NVIDIA H200 SXM,
# pattern C, placement pair.
# - qwen2.5-72b in fp8 is 75.2 GB of weights; the KV pool of one engine holds 1,050,016 tokens in
#   fp8.
# - For latency: 35 running sequences and 512 prompt tokens a step keep 50 ms a token, as the
#   planner reckons at half of the limit.
#
# bash THIS [quantize | place | serve [ENGINE] | undo]

set -euo pipefail

fail() { echo "$1" >&2; exit 1; }

quantize() {
  # A checkout of github.com/NVIDIA/Model-Optimizer; older ones have it in examples/llm_ptq.
  local hf_ptq="${MODELOPT:-./Model-Optimizer}/examples/hf_ptq/hf_ptq.py"
  [ -f "$hf_ptq" ] || hf_ptq="${hf_ptq/hf_ptq\/hf_ptq/llm_ptq\/hf_ptq}"
  # ./qwen2.5-72b in fp8, once
  python3 "$hf_ptq" \
    --pyt_ckpt_path ./qwen2.5-72b \
    --qformat fp8 \
    --kv_cache_qformat fp8 \
    --calib_size 512 \
    --export_path ./qwen2.5-72b-fp8
}

place() {
  echo 'whole GPUs: nothing to prepare'
}

# 512 prompt tokens a step beside 35 running sequences.
serve() {
  local config
  config="$(mktemp --suffix .yaml)"
  case "${1:-0}" in
    0)
      cat >"$config" <<'EOF'
enable_chunked_prefill: true
kv_cache_config:
  dtype: fp8
  free_gpu_memory_fraction: 0.89
  enable_block_reuse: true
  tokens_per_block: 32
  event_buffer_max_size: 65536
scheduler_config:
  capacity_scheduler_policy: GUARANTEED_NO_EVICT
cuda_graph_config:
  max_batch_size: 35
  enable_padding: true
enable_iter_perf_stats: true
return_perf_metrics: true
EOF
      export CUDA_DEVICE_ORDER=PCI_BUS_ID
      export CUDA_VISIBLE_DEVICES=0,1
      exec trtllm-serve ./qwen2.5-72b-fp8 \
        --backend pytorch \
        --host 127.0.0.1 \
        --port 8000 \
        --tp_size 2 \
        --max_batch_size 35 \
        --max_num_tokens 547 \
        --max_seq_len 32768 \
        --extra_llm_api_options "$config"
      ;;
    *) fail "engines are 0 to 0" ;;
  esac
}

undo() {
  echo 'whole GPUs: nothing to undo'
}

case "${1:-}" in
  quantize | place | serve | undo) "$@" ;;
  *) fail "usage: bash $0 [quantize | place | serve [ENGINE] | undo]" ;;
esac

# The chapter's flags, and what there really is:
#
# python -m tensorrt_llm.quantization.quantize: no such command; ModelOpt's hf_ptq.py
#   --model_dir ./qwen72b                        --pyt_ckpt_path
#   --output_dir ./qwen72b-mx-fp4                --export_path
#   --dtype bf16                                 no such value (bfloat16), and not needed
#   --qformat mx_fp4_mixed                       does not exist; --qformat nvfp4, or nvfp4_mlp_only for a mixture
#   --calib_dataset openassistant-en-zh-code     does not exist; --dataset cnn_dailymail, or left out
#   --calib_size 256                             --calib_size
#
# trtllm-build: gone after 1.2 with the TensorRT backend; the Hugging Face checkpoint is served as it is
#   --checkpoint_dir, --output_dir               gone: nothing is built
#   --gemm_plugin mx_fp4                         no such value; the quantized checkpoint picks its kernels
#   --gpt_attention_plugin auto                  gone: attn_backend, TRTLLM where nothing is said
#   --max_batch_size 32                          trtllm-serve --max_batch_size
#   --max_input_len 32768                        gone: --max_seq_len bounds prompt and output together
#   --max_seq_len 65536                          trtllm-serve --max_seq_len
#   --kv_cache_type mx_fp8                       never a number format; kv_cache_config.dtype: fp8 or nvfp4. MX there is none
#   --use_paged_context_fmha                     gone: always so
#   --use_fused_mlp                              gone: always so
#   --paged_kv_cache                             gone: always so
#   --remove_input_padding                       gone: always so
#   --gather_context_logits=false                a switch without a value; left out
#
# trtllm-serve ./qwen72b-engine: a folder of engines, which the PyTorch backend cannot load
#   --backend pytorch                            real; then the argument is a checkpoint
#   --port 8000                                  real
#   --max_num_tokens 16384                       real: the prefill budget and every running sequence's own tokens
#   --max_batch_size 32                          real
#   --enable_chunked_context                     does not exist here; enable_chunked_prefill
#   --kv_cache_free_gpu_memory_fraction 0.7      real; set in kv_cache_config, which replaces it
#   --tp_size 2 (pattern C)                      real
#   --intra_package=True (pattern C)             does not exist; two MLOPart devices and --tp_size 2
#
# the checks (§7): diplex doctor does what is meant by them
#   nvidia-smi: Driver 560.x, CUDA 13.x          cannot be: CUDA 13 needs driver 580, MLOPart 590
#   nvidia-smi: Compute Cap 10.0                 not in its header; nvidia-smi --query-gpu=compute_cap
#   trtllm-bench --dtype mx_fp4                  does not exist; the report says Quantization: NVFP4
#   trtllm-bench --short                         does not exist
#   kernel: gemm_mx_fp4_sm100                    no such line is known
#   /metrics kv_cache_type                       does not exist; /prometheus/metrics: trtllm_kv_cache_config_info{cache_dtype}
#   trtllm-bench --num_requests, --concurrency   real, after the subcommand throughput
#   trtllm-bench --max_input_len                 for multimodal models only; the dataset has the prompts
#   trtllm-bench --max_output_len                does not exist; the dataset's output_tokens
#   nvidia-smi memory.used, utilization.gpu, power.draw, clocks.gr, clocks.mem real
