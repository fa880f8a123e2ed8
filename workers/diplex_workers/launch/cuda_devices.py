"""What CUDA gives a program that is started from here: `python -m diplex_workers.launch.cuda_devices`.

NVML shows GPUs; this shows what `CUDA_VISIBLE_DEVICES`, MIG and MPS leave of them, by the same driver that an
engine asks. Its own process, because a CUDA context cannot be undone. It imports nothing but Python's own.

One line of JSON a device: index, uuid, name, memory (bytes), multiprocessors. Exit code 1: CUDA cannot be
asked; see stderr.

Source: the CUDA driver API, device management (see docs/engines.md).
"""

import ctypes
import json
import sys
from collections.abc import Iterator
from typing import Any

# 256 is what cuDeviceGetName's own example takes; a UUID is 16 bytes.
_NAME = 256
_UUID = 16
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: an answer, not a failure


def main() -> int:
    try:
        for one in devices():
            print(json.dumps(one), flush=True)
    except (OSError, RuntimeError) as error:
        print(f"CUDA cannot be asked: {error}", file=sys.stderr)
        return 1
    return 0


def devices() -> Iterator[dict[str, Any]]:
    """Raises OSError without a driver, RuntimeError where it refuses."""
    cuda = ctypes.CDLL("libcuda.so.1")
    code = cuda.cuInit(0)
    if code == _NO_DEVICE:
        return
    _good("cuInit", code)
    count, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME)
    _good("cuDeviceGetCount", cuda.cuDeviceGetCount(ctypes.byref(count)))
    for index in range(count.value):
        device, uuid, memory = ctypes.c_int(), (ctypes.c_ubyte * _UUID)(), ctypes.c_size_t()
        _good("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(device), index))
        _good("cuDeviceGetName", cuda.cuDeviceGetName(name, _NAME, device))
        _good("cuDeviceGetUuid_v2", cuda.cuDeviceGetUuid_v2(ctypes.byref(uuid), device))
        _good("cuDeviceTotalMem_v2", cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
        processors = ctypes.c_int()
        _good(
            "cuDeviceGetAttribute",
            cuda.cuDeviceGetAttribute(ctypes.byref(processors), _MULTIPROCESSORS, device),
        )
        yield {
            "index": index,
            "uuid": _written(bytes(uuid)),
            "name": name.value.decode(errors="replace"),
            "memory": memory.value,
            "multiprocessors": processors.value,
        }


def _written(uuid: bytes) -> str:
    """As nvidia-smi writes it, without the GPU- or MIG- before it."""
    digits = uuid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _good(what: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{what} answers error {code}")


if __name__ == "__main__":
    sys.exit(main())
