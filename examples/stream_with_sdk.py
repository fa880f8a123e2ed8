"""Stream an answer with the SDK: the router says where, the tokens come straight from the worker."""

import asyncio
import sys

import diplex


async def main(target: str) -> None:
    question = [{"role": "user", "content": "Name three rivers."}]
    async with diplex.AsyncClient(target) as client:
        stream = client.stream(
            messages=question, model="smollm2-135m-instruct", tier="interactive", max_tokens=48
        )
        async for chunk in stream:
            print(chunk.text, end="", flush=True)
        serving = stream.reply.serving
        print(f"\n{stream.reply.ttft_s * 1000:.0f} ms to the first token, from {serving.worker}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7600"))
