"""`Worker.Link` over a real connection."""

import asyncio

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.grants import Keys
from diplex.wire.status import Problem


async def test_the_first_report_says_everything_at_once(serve):
    async with serve() as worker:
        link = await worker.link()
        first = link.reports[0]
        assert (first.number, first.full, first.engine_ready) == (1, True, True)
        info = first.info
        assert (info.name, info.package, info.pattern, info.engine) == ("w0", "pkg0", "A", "sim")
        assert (info.simulated, info.calibration, info.time_scale) == (True, "chapter", 10)
        assert (info.boot, info.address) == (worker.boot, f"127.0.0.1:{worker.port}")
        assert (info.models[0].name, info.models[0].bound.bytes_per_token) == ("m", 4)


async def test_the_whole_is_said_again_every_second(serve):
    async with serve() as worker:
        link = await worker.link()
        await link.until(lambda: len([r for r in link.reports if r.full]) >= 3, within=5)
        assert 1500 < link.last.uptime_ms - link.reports[0].uptime_ms < 4000


async def test_a_claims_life_is_reported_as_it_happens_and_numbered(serve):
    async with serve(time_scale=1.0) as worker:
        link = await worker.link()
        client = worker.client()
        await client.send(starts=[worker.start(1)])
        await link.until(lambda: link.ended(1))
        await client.until(lambda: client.done)
        held = link.held(1)
        assert (held[0].prefilled, held[-1].prefilled) == (False, True)
        assert held[-1].blocks == 1  # of the ten that were granted: 3 + 20 tokens
        (ended,) = link.ended(1)
        assert (ended.reason, ended.usage.completion_tokens) == (pb.END_REASON_LENGTH, 20)
        assert ended.usage == client.done[1].usage
        assert [report.number for report in link.reports] == list(range(1, len(link.reports) + 1))


@pytest.mark.parametrize(
    "hello",
    [
        None,
        Keys.of("forged").hello("r1", 5, "w0"),
        worker_pb2.Hello(router="r1", epoch=5, worker="w0"),
    ],
)
async def test_a_link_without_a_good_hello_is_unauthenticated(serve, hello):
    async with serve() as worker:
        call = worker.stub().Link()
        await call.write(worker_pb2.WorkerLinkRequest(hello=hello))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert Problem.from_rpc(refused.value).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_router_that_reached_another_worker_is_told_so(serve):
    async with serve() as worker:
        call = worker.stub().Link()
        await call.write(worker_pb2.WorkerLinkRequest(hello=worker.keys.hello("r1", 5, "w7")))
        with pytest.raises(grpc.aio.AioRpcError, match="looks for worker 'w7'"):
            await call.read()


async def test_a_new_hello_takes_the_older_links_place(serve):
    async with serve() as worker:
        older = await worker.link()
        newer = await worker.link()
        await older.until(lambda: older.over)
        client = worker.client()
        await client.send(starts=[worker.start(1)])
        await newer.until(lambda: newer.ended(1))
        assert not older.held(1)


async def test_a_router_that_comes_back_finds_its_claims_and_its_old_grants_void(serve):
    async with serve(time_scale=1.0) as worker:
        await worker.link(epoch=5)
        client = worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=3000, blocks=120))])
        await client.until(lambda: client.text(1))
        again = await worker.link(epoch=6)
        assert [h.claim.lease_id for h in again.reports[0].held] == [1]
        await client.send(starts=[worker.start(2), worker.start(3, grant=worker.grant(3, epoch=6))])
        await client.until(lambda: len(client.done) == 2)
        assert Problem.from_bytes(client.done[2].error).reason == "OLD_EPOCH"
        assert client.done[3].reason == pb.END_REASON_LENGTH
        assert 1 not in client.done, "what ran goes on"


async def test_two_routers_see_each_others_claims_as_foreign(serve):
    async with serve(time_scale=1.0) as worker:
        one, two = await worker.link("r1"), await worker.link("r2")
        client = worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=300, blocks=10))])
        await one.until(lambda: one.held(1))
        await two.until(lambda: two.last.foreign_blocks == 10 and two.last.foreign_slots == 1, within=3)
        assert one.last.foreign_blocks == 0
        assert not two.held(1)


async def test_a_stopped_sequence_is_preempted_and_its_end_reported(serve):
    async with serve(time_scale=1.0) as worker:
        link, client = await worker.link(), worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=3000, blocks=120))])
        await client.until(lambda: client.text(1))
        claim = pb.Claim(lease_id=1, attempt=1)
        await link.order(stops=[{"claim": claim, "reason": pb.END_REASON_PREEMPTED}])
        await client.until(lambda: client.done)
        await link.until(lambda: link.ended(1))
        assert client.done[1].reason == link.ended(1)[0].reason == pb.END_REASON_PREEMPTED
        assert client.done[1].usage.completion_tokens == len(client.text(1).split())


async def test_a_preempted_sequence_goes_on_whole_elsewhere(serve, said):
    async with serve(time_scale=1.0) as worker:
        link, client = await worker.link(), worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=200, blocks=10))])
        await client.until(lambda: len(client.text(1)) > 50)
        claim = pb.Claim(lease_id=1, attempt=1)
        await link.order(stops=[{"claim": claim, "reason": pb.END_REASON_PREEMPTED}])
        await client.until(lambda: client.done)
        first, produced = client.text(1), client.done[1].usage.completion_tokens

        other = worker.client()
        resume = pb.Resume(from_index=produced, text=first)
        grant = worker.grant(2, max_tokens=200, blocks=10)
        await other.send(starts=[worker.start(2, text="prompt 1", grant=grant, resume=resume)])
        await other.until(lambda: other.done)
        rest = "".join(t.text for frame in other.frames for t in frame.tokens)
        assert first + rest == said("prompt 1", 200)
        assert other.frames[0].tokens[0].index == produced
        assert other.done[2].usage.completion_tokens == 200


async def test_a_drained_worker_says_so_and_takes_nothing_new(serve):
    async with serve() as worker:
        link, client = await worker.link(), worker.client()
        await link.order(drain={"active": True})
        await link.until(lambda: link.last.draining)
        await client.send(starts=[worker.start(1)])
        await client.until(lambda: client.done)
        assert Problem.from_bytes(client.done[1].error).reason == "DRAINING"
        await link.order(drain={"active": False})
        await link.until(lambda: not link.last.draining)
        await client.send(starts=[worker.start(2)])
        await client.until(lambda: 2 in client.done)
        assert client.done[2].reason == pb.END_REASON_LENGTH


async def test_a_link_that_goes_quiet_leaves_what_runs_alone(serve, said):
    async with serve(time_scale=1.0) as worker:
        link, client = await worker.link(), worker.client()
        await client.send(starts=[worker.start(1, grant=worker.grant(1, max_tokens=100, blocks=10))])
        await client.until(lambda: client.text(1))
        link._call.cancel()
        await client.until(lambda: client.done)
        assert client.text(1) == said("prompt 1", 100)
        assert (await worker.info()).used_blocks == 0


async def test_what_gathers_while_a_router_does_not_read_goes_out_together(serve):
    async with serve() as worker:
        call = worker.stub().Link()
        await call.write(worker_pb2.WorkerLinkRequest(hello=worker.keys.hello("r1", 5, "w0")))
        client = worker.client()
        for seq in range(1, 40):
            await client.send(starts=[worker.start(seq)])
        await client.until(lambda: len(client.done) == 39)
        ended: list[int] = []
        async with asyncio.timeout(5):
            while len(ended) < 39:
                ended += [e.claim.lease_id for e in (await call.read()).ended]
        assert sorted(ended) == list(range(1, 40))
        call.cancel()
