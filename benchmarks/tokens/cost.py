"""What counting a prompt exactly costs a client, with Qwen3's tokenizer: reading, hashing, and who waits.

The texts are this repository's documents, as a chat of several turns. Times are the least of several tries.
"Held" is the longest that a second thread, which wakes every millisecond, was kept from running: so long the
event loop of the process would have stood still.

    .venv/bin/python benchmarks/tokens/cost.py            # about half a minute
"""

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Loaded

from diplex.tokens import sources
from diplex.tokens.pieces import Pieces
from diplex.tokens.tokenizer import Tokenizer
from diplex.v1 import generation_pb2 as pb
from diplex.wire.blocks import block_hashes

TRIES = 5
DOCS = Path(__file__).parents[2] / "docs"
HASHES: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest()[:8],
    "blake2b": lambda data: hashlib.blake2b(data, digest_size=8).digest(),
    "blake2s": lambda data: hashlib.blake2s(data, digest_size=8).digest(),
    "md5": lambda data: hashlib.md5(data).digest()[:8],
}


def main() -> None:
    source = sources.known("qwen3-8b")
    assert source is not None, "pip install 'diplex[tokenizers,qwen]'"
    text = "\n".join(file.read_text() for file in sorted(DOCS.rglob("*.md")))
    print(f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}")

    print("\nloading it, once a process")
    took, held = watched(lambda: Tokenizer(source))
    print(f"  {took:6.0f} ms, held {held:.0f} ms")
    tokenizer, loaded = Tokenizer(source), Loaded.from_file(str(source.file))

    print("\na text of a megabyte (tokenizers' two ways)")
    megabyte = (text * (1_000_000 // len(text) + 1))[:1_000_000]
    for name, read in (
        ("encode", lambda: loaded.encode(megabyte)),
        ("encode_batch_fast", lambda: loaded.encode_batch_fast([megabyte])),
    ):
        took, held = watched(read)
        print(f"  {name:18} {took:6.0f} ms, held {held:.0f} ms")

    print("\na text, by its length")
    for size in (1_000, 4_000, 16_000, 64_000):
        took = least(lambda size=size: loaded.encode_batch_fast([text[:size]]))
        print(f"  {size:7,} bytes {took:8.2f} ms")

    print("\na chat: rendered and read for the first time, its next turn, and hashed in blocks of 32")
    for turns, size in ((2, 500), (4, 2_000), (8, 4_000), (16, 8_000)):
        chat_costs(tokenizer, loaded, text, turns, size)

    print("\nhashing 32,768 token ids in a chain, by the tokens of a block")
    ids = os.urandom(4 * 32_768)
    for tokens in (16, 32, 512):
        costs = {name: least(partial(chain, hash, ids, 4 * tokens)) for name, hash in HASHES.items()}
        print(f"  {tokens:3}  " + "  ".join(f"{name} {took:.2f} ms" for name, took in costs.items()))


def chat_costs(tokenizer: Tokenizer, loaded: Loaded, text: str, turns: int, size: int) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": text[:size]}]
    for turn in range(1, turns + 1):
        messages.append({"role": "user", "content": text[turn * size : (turn + 1) * size]})
        messages.append({"role": "assistant", "content": text[turn * size + 1 : (turn + 1) * size - 1]})
    messages.append({"role": "user", "content": "And then?"})
    prompt = chat_of(messages)

    def first() -> None:
        tokenizer._pieces = Pieces(loaded)
        tokenizer.ids_of(prompt)

    def next_turn() -> None:
        # A last question that it has not seen, on top of what it has.
        messages[-1] = {"role": "user", "content": f"And then, {time.perf_counter()}?"}
        tokenizer.ids_of(chat_of(messages))

    cost, again = least(first), least(next_turn)
    ids = tokenizer.ids_of(prompt)
    hashed = least(lambda: block_hashes(ids, 32, "m"))
    print(
        f"  {len(prompt.chat.messages):7,} bytes, {len(ids):6,} tokens: first {cost:7.2f} ms, "
        f"next turn {again:6.2f} ms, hashed {hashed:5.2f} ms"
    )


def chat_of(messages: list[dict[str, Any]]) -> pb.Prompt:
    return pb.Prompt(chat=pb.Chat(messages=json.dumps(messages).encode()))


def chain(hash: Callable[[bytes], bytes], ids: bytes, size: int) -> None:
    before = bytes(8)
    for start in range(0, len(ids), size):
        before = hash(before + ids[start : start + size])


def least(work: Callable[[], object]) -> float:
    """Milliseconds, the least of several tries."""
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best * 1000


def watched(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that it took, and the longest that another thread was kept from running meanwhile: of
    the try that kept it shortest."""
    tries = []
    for _ in range(TRIES):
        gaps, over = [0.0], threading.Event()

        def tick(gaps: list[float] = gaps, over: threading.Event = over) -> None:
            last = time.perf_counter()
            while not over.wait(0.001):
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        other = threading.Thread(target=tick)
        other.start()
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
        over.set()
        other.join()
        tries.append((max(gaps) * 1000, took * 1000))
    held, took = min(tries)
    return took, held


if __name__ == "__main__":
    main()
