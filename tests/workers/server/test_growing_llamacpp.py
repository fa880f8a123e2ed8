"""Growing on llama.cpp, which cannot pause a sequence: it gives way at its limit, and goes on whole."""

from diplex.v1 import generation_pb2 as pb
from diplex_workers.engines.llamacpp import LlamaCppEngine, LlamaCppSettings

GREEDY = pb.Sampling(ignore_eos=True, temperature=0)
STORY = "Once upon a time there was a fox who"
TOKENS = 120


async def test_it_gives_way_with_all_that_it_produced_and_goes_on_behind_it(serve):
    engine = LlamaCppEngine(LlamaCppSettings(model="m", context=256, slots=2))
    async with serve(engine=engine) as worker:
        link, client = await worker.link(), worker.client()
        await link.until(lambda: link.last.engine_ready, within=60)
        info = (await worker.info()).info
        assert (info.can_grow, info.reports_residency) == (True, False)
        whole, grows = (
            worker.grant(1, max_tokens=TOKENS),
            worker.grant(2, max_tokens=TOKENS, grows=True, blocks=2),
        )
        await client.send(starts=[worker.start(1, text=STORY, grant=whole, sampling=GREEDY)])
        await client.until(lambda: 1 in client.done, within=60)
        await client.send(starts=[worker.start(2, text=STORY, grant=grows, sampling=GREEDY)])
        await client.until(lambda: 2 in client.done, within=60)

        done = client.done[2]
        produced, prompt = done.usage.completion_tokens, done.usage.prompt_tokens
        assert done.reason == pb.END_REASON_PREEMPTED
        assert 64 - prompt <= produced < TOKENS
        assert [want.blocks for want in link.wants(2)][:1] == [5], "it asked, and nobody raised it"
        ids = [i for frame in client.frames for tokens in frame.tokens if tokens.seq == 2 for i in tokens.ids]
        assert len(ids) == produced

        again = worker.start(
            3,
            text=STORY,
            grant=worker.grant(3, max_tokens=TOKENS),
            sampling=GREEDY,
            resume=pb.Resume(from_index=produced, ids=ids),
        )
        other = worker.client()
        await other.send(starts=[again])
        await other.until(lambda: 3 in other.done, within=60)
        rest = "".join(tokens.text for frame in other.frames for tokens in frame.tokens)
        assert client.text(2) + rest == client.text(1)
        assert other.done[3].usage.completion_tokens == TOKENS
        assert (await worker.info()).used_blocks == 0


async def test_raised_in_time_it_is_never_interrupted(serve):
    engine = LlamaCppEngine(LlamaCppSettings(model="m", context=256, slots=1))
    async with serve(engine=engine) as worker:
        link, client = await worker.link(), worker.client()
        await link.until(lambda: link.last.engine_ready, within=60)
        grows = worker.grant(1, max_tokens=TOKENS, grows=True, blocks=3)
        await client.send(starts=[worker.start(1, text=STORY, grant=grows, sampling=GREEDY)])
        await link.until(lambda: link.wants(1), within=30)
        claim = pb.Claim(lease_id=1, attempt=1)
        await link.order(raises=[{"claim": claim, "blocks": link.wants(1)[0].blocks, "id": 4}])
        await client.until(lambda: 1 in client.done, within=60)
        assert client.done[1].reason == pb.END_REASON_LENGTH
        assert client.done[1].usage.completion_tokens == TOKENS
