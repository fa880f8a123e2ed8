"""The proxied `Generate`, and what the router tells of itself, over real gRPC."""

import asyncio
from typing import Any

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_core.admission import Admission
from diplex_core.events import Asked, Event


def request(**more: Any) -> router_pb2.RouterGenerateRequest:
    fields = {"prompt": pb.Prompt(text="to be or not to be"), "max_tokens": 4, **more}
    return router_pb2.RouterGenerateRequest(**fields)


async def test_a_proxied_request_is_served_whole(worker: Any, new_router: Any) -> None:
    async with new_router(worker) as stub:
        messages = [message async for message in stub.Generate(request())]
        assert messages[0].serving.worker == "w1"
        assert messages[0].serving.simulated
        tokens = [tokens for message in messages for tokens in message.tokens]
        assert "".join(t.text for t in tokens) == " 0 1 2 3"
        assert messages[-1].done.reason == pb.END_REASON_LENGTH
        assert messages[-1].done.usage.completion_tokens == 4


async def test_a_worker_is_reached_where_the_router_links_to_it_whatever_it_advertises(
    worker: Any, new_router: Any
) -> None:
    worker.advertised = "127.0.0.1:1"
    async with new_router(worker) as stub:
        messages = [message async for message in stub.Generate(request())]
        assert messages[-1].done.reason == pb.END_REASON_LENGTH


async def test_a_refusing_worker_is_asked_again_behind_the_clients_back(worker: Any, new_router: Any) -> None:
    worker.refuse_next = 2
    async with new_router(worker) as stub:
        messages = [message async for message in stub.Generate(request())]
        assert messages[-1].done.reason == pb.END_REASON_LENGTH
        fleet = (await stub.GetFleet(router_pb2.RouterGetFleetRequest())).fleet
        assert fleet.leases.refused_by_worker == 2
        assert fleet.leases.opened == 1


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"model": "gpt-9"}, grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL"),
        ({"tier": "gold"}, grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_TIER"),
        ({"prompt": pb.Prompt(text="x" * 40_000)}, grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE"),
        ({"prompt": pb.Prompt()}, grpc.StatusCode.INVALID_ARGUMENT, "BAD_PROMPT"),
    ],
)
async def test_a_refused_request_ends_with_a_grpc_status_that_says_why(
    worker: Any, new_router: Any, fields: dict[str, Any], code: grpc.StatusCode, reason: str
) -> None:
    async with new_router(worker) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Generate(request(**fields)):
                pass
        assert caught.value.code() is code
        assert Problem.from_rpc(caught.value).reason == reason


async def test_a_client_that_goes_away_while_it_waits_leaves_no_lease(
    worker: Any, new_router: Any, wait_for_fleet: Any
) -> None:
    worker.slots, worker.answer = 1, False
    async with new_router(worker) as stub:
        running = stub.Generate(request())
        assert (await running.read()).serving.worker == "w1"
        waiting = stub.Generate(request())
        message = await waiting.read()
        assert message.HasField("queued")
        waiting.cancel()
        await wait_for_fleet(stub, lambda f: f.leases.closed == 1 and not f.queues)
        running.cancel()


async def test_models_carry_their_bound_and_are_labelled_simulated(worker: Any, new_router: Any) -> None:
    async with new_router(worker) as stub:
        response = await stub.ListModels(router_pb2.RouterListModelsRequest())
        (model,) = response.models
        assert (model.name, model.context, model.simulated, model.workers) == ("m", 2048, True, 1)
        assert model.bound.bytes_per_token == 4
        assert (response.default_model, response.default_tier) == ("m", "standard")


async def test_a_prompt_is_bounded_with_the_models_figures(worker: Any, new_router: Any) -> None:
    async with new_router(worker) as stub:
        bounded = await stub.CountTokens(router_pb2.RouterCountTokensRequest(prompt=pb.Prompt(text="x" * 40)))
        assert (bounded.tokens, bounded.exact) == (10, False)


async def test_explain_scores_every_worker(worker: Any, new_router: Any) -> None:
    async with new_router(worker) as stub:
        said = await stub.Explain(router_pb2.RouterExplainRequest(prompt_tokens=100_000, max_tokens=1))
        assert said.outcome == "refused"
        assert "100001 tokens" in said.workers["w1"].filters["context_fits"]


async def test_metrics_tell_the_pools_and_the_decisions(worker: Any, new_router: Any) -> None:
    async with new_router(worker) as stub:
        async for _ in stub.Generate(request()):
            pass
        text = (await stub.GetMetrics(router_pb2.RouterGetMetricsRequest())).text
        assert 'diplex_kv_blocks{state="capacity",worker="w1"} 100.0' in text
        assert 'diplex_admission_total{decision="granted",reason=""} 1.0' in text


async def test_a_request_waits_while_the_router_has_no_worker_yet_and_then_fails_by_name(
    new_router: Any,
) -> None:
    async with asyncio.timeout(10):
        async with new_router() as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Generate(request()):
                    pass
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no worker serves m" in (caught.value.details() or "")


async def test_what_a_client_hashed_itself_reaches_admission(
    worker: Any, new_router: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    step = Admission.step

    def noted(admission: Admission, event: Event, now: float) -> Any:
        events.append(event)
        return step(admission, event, now)

    monkeypatch.setattr(Admission, "step", noted)
    async with new_router(worker) as stub:
        async for _ in stub.Generate(request(prompt_tokens=64, block_hashes=[7, 8], hash_block_tokens=32)):
            pass
    (ask,) = [event.ask for event in events if isinstance(event, Asked)]
    assert (ask.prompt_tokens, ask.exact) == (64, True)
    assert (list(ask.block_hashes), ask.hash_block_tokens) == ([7, 8], 32)
