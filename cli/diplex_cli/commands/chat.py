"""Ask one question and stream the answer, then say how fast it came and who gave it.

examples:
  diplex chat "Name three rivers."
  diplex chat "Name three rivers." --model smollm2-135m-instruct --tier interactive --max-tokens 64
"""

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any, Final

from diplex_cli import telemetry, whom

if TYPE_CHECKING:
    from diplex import AsyncClient, Reply

# llama.cpp on two cores reads 110 to 240 prompt tokens a second; from here on one waits for the first word.
_LONG_PROMPT: Final = 300
_READS: Final = (110, 240)
_BYTES_A_TOKEN: Final = 4
# Seconds to wait for a router that does not answer; one that was restarted needs three.
_PATIENCE: Final = 4.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("prompt", help="what to ask; - reads it from stdin")
    parser.add_argument("--model", default="", help="default: the configuration's default_model")
    parser.add_argument("--tier", default="", help="default: the configuration's default_tier")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="most tokens of the answer (default: the tier's)"
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="give up after so many seconds")
    whom.add_url(parser)
    whom.add_api_key(parser)
    telemetry.add_trace_file(parser)
    parser.add_argument("--json", action="store_true", help="print the whole answer as one line of JSON")


def run(args: Namespace) -> int:
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    with telemetry.exported(args, "diplex-client"):
        return asyncio.run(_ask(args, prompt))


async def _ask(args: Namespace, prompt: str) -> int:
    from diplex import AsyncClient

    async with AsyncClient(args.url, api_key=args.api_key, patience=_PATIENCE) as client:
        if len(prompt.encode()) >= _LONG_PROMPT * _BYTES_A_TOKEN:
            await _warn(client, args.model, prompt)
        stream = client.stream(
            messages=[{"role": "user", "content": prompt}],
            model=args.model,
            tier=args.tier,
            max_tokens=args.max_tokens,
            timeout=args.timeout,
        )
        async with stream:
            async for chunk in stream:
                if not args.json:
                    print(chunk.text, end="", flush=True)
        reply = stream.reply
    if args.json:
        print(json.dumps(_fields(reply), ensure_ascii=False))
    else:
        print(f"\n\n{_summary(reply)}")
    return 0


async def _warn(client: "AsyncClient", model: str, prompt: str) -> None:
    """Say why nothing comes for a while, where a CPU is to read a long prompt."""
    await client.wait_ready(_PATIENCE)
    name = model or client.default_model
    fleet = await client.fleet()
    serving = [one.info for one in fleet.workers if name in (served.name for served in one.info.models)]
    tokens = len(prompt.encode()) // _BYTES_A_TOKEN
    # One that is too long for every worker is refused in a moment.
    readers = {info.engine for info in serving if tokens < info.context}
    if readers == {"llamacpp"}:
        slow, fast = _READS
        rates = f"{slow} to {fast} a second on two idle cores"
        until = f"the first word takes {tokens / fast:.0f} s at best"
        print(f"{name} reads about {tokens} prompt tokens on the CPU, {rates}: {until}", file=sys.stderr)


def _summary(reply: "Reply") -> str:
    """How fast it came, and who gave it."""
    words = [] if reply.ttft_s is None else [f"ttft {reply.ttft_s * 1000:.0f} ms"]
    if reply.tokens_per_s is not None:
        words.append(f"{reply.tokens_per_s:.1f} tok/s")
    if serving := reply.serving:
        words += [serving.worker, f"pattern {serving.pattern}", f"engine {serving.engine}"]
        words += ["simulated"] if serving.simulated else []
    if reply.preemptions:
        words.append(f"gave way to others {reply.preemptions} times")
    return " · ".join(words)


def _fields(reply: "Reply") -> dict[str, Any]:
    """The answer as `--json` prints it: times in milliseconds."""
    from dataclasses import asdict

    return {
        "request_id": reply.request_id,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "ttft_ms": None if reply.ttft_s is None else reply.ttft_s * 1000,
        "tok_s": reply.tokens_per_s,
        "preemptions": reply.preemptions,
        **(asdict(reply.serving) if reply.serving else {}),
    }
