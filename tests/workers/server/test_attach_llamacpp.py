"""A worker before a real llama.cpp server that somebody else started: 32 streams, and whose account is right.

llama.cpp has no gauge of its KV cache, but says in `/slots` what each sequence has in it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex_workers import server
from diplex_workers.account import Account
from diplex_workers.engines.attach import AttachEngine, AttachSettings
from diplex_workers.engines.llamacpp_questions import Questions, tokens_in
from diplex_workers.engines.openai_http import Upstream
from diplex_workers.launch import weights
from diplex_workers.launch.child import Child, launched

STREAMS, CONTEXT, TOKENS = 32, 256, 20  # llama.cpp rounds a context up to 256
KEY = "sesame"


@asynccontextmanager
async def llama_server() -> AsyncIterator[Child]:
    """It listens at its hello's `url`."""
    options = {
        "weights": str(weights.find("smollm2")),
        "slots": STREAMS,
        "context": CONTEXT,
        "threads": 2,
        "prefill_chunk": 64,
        "port": 0,
        "api_key": KEY,
        "niceness": 5,
    }
    async with launched("diplex_workers.launch.llamacpp_server", options, within=60) as child:
        yield child


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> list[Account]:
    """The account of each worker that the test serves."""
    made: list[Account] = []

    def account(*args: object) -> Account:
        made.append(Account(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(server, "Account", account)
    return made


def in_cache(account: Account) -> int:
    """Tokens that its sequences have in the cache, as far as their first token is out."""
    return sum(
        one.prompt_tokens + one.produced for one in account.live.values() if one.first_token is not None
    )


async def test_with_32_streams_the_account_agrees_with_its_slots_to_a_steps_tokens(serve, accounts):
    async with llama_server() as child, Upstream(child.hello["url"], KEY) as upstream:
        url = child.hello["url"]
        engine = AttachEngine(AttachSettings(url, "m", api="llamacpp", api_key=KEY, guard_blocks=0))
        async with serve(engine=engine) as worker:
            link, client = await worker.link(), worker.client()
            await link.until(lambda: link.last.engine_ready, within=60)
            account = accounts[0]
            assert account.pool.capacity * 32 == STREAMS * CONTEXT, "its own word on its size"
            sampling = pb.Sampling(ignore_eos=True, temperature=0)
            grants = [worker.grant(seq, blocks=2, max_tokens=TOKENS) for seq in range(1, STREAMS + 1)]
            for seq, grant in enumerate(grants, 1):
                text = f"Once upon a time there were {seq} foxes who"
                start = worker.start(seq, text=text, grant=grant, sampling=sampling)
                await client.send(starts=[start])

            questions, apart, together = Questions(upstream), [], 0
            while len(client.done) < STREAMS:
                before, all_run = in_cache(account), len(account.live) == STREAMS
                slots = await questions.busy_slots()
                after = in_cache(account)
                decoding = [slot for slot in slots if any(t["n_decoded"] for t in slot["next_token"])]
                assert sum(map(tokens_in, slots)) <= account.pool.used_blocks * 32
                if all_run and len(account.live) == STREAMS == len(decoding):
                    said = sum(map(tokens_in, decoding))
                    apart.append(max(before - said, said - after, 0))
                    together += 1
                await asyncio.sleep(0.1)

            assert together >= 10, "so many times all 32 ran at once"
            assert max(apart) <= STREAMS, f"a step brings each stream one token: {apart}"
            assert {done.usage.completion_tokens for done in client.done.values()} == {TOKENS}
            assert not await questions.busy_slots()
            assert (await worker.info()).used_blocks == 0
            assert engine.remarks.alarms == {}


async def test_a_server_that_dies_under_its_streams_leaves_the_account_empty(serve, accounts):
    async with llama_server() as child:
        url = child.hello["url"]
        engine = AttachEngine(AttachSettings(url, "m", api="llamacpp", api_key=KEY), every=0.1)
        async with serve(engine=engine) as worker:
            link, client = await worker.link(), worker.client()
            await link.until(lambda: link.last.engine_ready, within=60)
            grant = worker.grant(1, blocks=2, max_tokens=TOKENS)
            await client.send(starts=[worker.start(1, text="Once upon a time", grant=grant)])
            await client.until(lambda: client.frames, within=30)
            child.kill()
            await client.until(lambda: 1 in client.done, within=30)
            await link.until(lambda: not link.last.engine_ready, within=30)
            assert client.done[1].reason == pb.END_REASON_FAILED
            assert [ended.reason for ended in link.ended(1)] == [pb.END_REASON_FAILED]
            assert (accounts[0].pool.used_blocks, link.last.used_blocks) == (0, 0)
