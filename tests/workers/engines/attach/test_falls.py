"""An attached engine that dies, hangs, refuses, or is wrong about its KV cache: what follows."""

import asyncio
from collections.abc import Callable

import pytest

from diplex_core.words import EndReason

OFTEN = 0.02  # seconds between two looks, so that a row of them is soon over


def tokens(count: int) -> list[dict[str, object]]:
    return [{"choices": [{"index": 0, "text": "a", "token_ids": [i]}]} for i in range(count)]


class Launcher:
    """Whoever launched the server: started anew it is well again."""

    def __init__(self, mend: Callable[[], None]) -> None:
        self.asked: list[str] = []
        self._mend = mend

    async def __call__(self, reason: str) -> None:
        self.asked.append(reason)
        self._mend()


class TestItHangs:
    async def test_it_answers_its_health_page_and_computes_nothing(self, server, attached):
        server.chunks = [server.forever]
        async with attached(stall=0.2, every=OFTEN) as stage:
            job = await stage.done("x")
            assert stage.host.problem(job).code.name == "UNAVAILABLE"
            await stage.host.until(lambda: stage.host.reasons)
        assert "hangs: no token in 0.2 s, though it has 1 requests" in stage.host.reasons[0]

    async def test_it_is_ready_again_only_once_it_has_computed_a_token(self, server, attached, eventually):
        server.chunks = [server.forever]
        async with attached(stall=0.2, every=OFTEN) as stage:
            server.refusal = None
            await stage.done("x")
            server.refusal = (500, {"error": "EngineCore died"}, {})
            await stage.host.until(lambda: len(stage.host.reasons) == 2)
            assert len(stage.host.facts) == 1
            server.refusal = None
            await stage.host.until(lambda: len(stage.host.facts) == 2)
        assert server.asked[-1] == {"model": "served", "prompt": "1", "max_tokens": 1}

    async def test_where_it_was_launched_it_is_started_anew_and_serves(self, server, attached):
        server.chunks = [server.forever]
        launcher = Launcher(lambda: setattr(server, "chunks", [*tokens(1), {"choices": [_stop()]}]))
        async with attached(stall=0.2, every=OFTEN, restart=launcher) as stage:
            await stage.done("x")
            await stage.host.until(lambda: len(stage.host.facts) == 2)
            assert await stage.host.ended(await stage.done("x")) is EndReason.STOP
        assert len(launcher.asked) == 1 and "hangs" in launcher.asked[0]

    async def test_its_health_page_does_not_answer(self, server, attached, monkeypatch):
        monkeypatch.setattr("diplex_workers.engines.openai_server.HEALTH", 0.1)
        async with attached(api="vllm", every=OFTEN) as stage:
            server.hangs.add("/health")
            await stage.host.until(lambda: stage.host.reasons)
        assert "/health did not answer within 0.1 s" in stage.host.reasons[0]

    async def test_one_stream_stalls_while_others_go_on(self, server, attached):
        server.chunks = [*tokens(1), server.forever]

        async def drip() -> None:
            await asyncio.sleep(OFTEN)

        async with attached(stall=0.3, every=OFTEN) as stage:
            lost = await stage.job("x")
            await stage.host.until(lambda: stage.host.tokens(lost))
            server.chunks = [part for token in tokens(60) for part in (drip, token)] + [
                {"choices": [_stop()]}
            ]
            lively = await stage.job("y", 60)
            assert await stage.host.ended(lost) is EndReason.FAILED
            assert "no token of this request for 0.3 s" in stage.host.problem(lost).message
            assert await stage.host.ended(lively) is EndReason.STOP
            assert not stage.host.reasons, "the others' engine is well"

    async def test_a_stream_that_its_engine_put_back_into_its_queue_is_waited_for(self, server, attached):
        server.pages["/metrics"] = "vllm:num_requests_waiting 1\nvllm:num_requests_running 0\n"
        server.chunks = [*tokens(1), server.forever]
        async with attached(api="vllm", stall=0.2, every=OFTEN) as stage:
            put_back = await stage.job("x")
            await stage.host.until(lambda: stage.host.tokens(put_back))
            server.chunks = [*tokens(1), {"choices": [_stop()]}]
            for _ in range(12):
                await stage.done("y")
                await asyncio.sleep(0.03)
            assert stage.host.end(put_back) is None


class TestItRefuses:
    async def test_five_refusals_in_a_row_without_a_token_between_and_it_is_gone(self, server, attached):
        server.refusal = (503, {"error": "no"}, {})
        async with attached(every=OFTEN) as stage:
            for _ in range(5):
                await stage.done("x")
            await stage.host.until(lambda: stage.host.reasons)
            assert "refused 5 requests in a row" in stage.host.reasons[0]
            server.refusal = None
            await stage.host.until(lambda: len(stage.host.facts) == 2)

    async def test_a_token_of_any_job_says_that_it_still_takes_some(self, server, attached):
        refusal = (429, {"error": "full"}, {})
        async with attached(every=OFTEN) as stage:
            for round_ in range(8):
                server.refusal = refusal if round_ % 4 else None
                await stage.done("x")
            assert not stage.host.reasons

    async def test_bad_requests_are_the_clients_own(self, server, attached):
        server.refusal = (400, {"error": "too long"}, {})
        async with attached(every=OFTEN) as stage:
            for _ in range(8):
                await stage.done("x")
            assert not stage.host.reasons


class TestItIsWrongAboutItsCache:
    @pytest.fixture
    def wrong(self, server):
        """It says that nothing is in use, while a stream fills its third block."""
        server.pages["/metrics"] = "vllm:kv_cache_usage_perc 0\nvllm:num_requests_running 1\n"
        self.go_on = asyncio.Event()

        async def drip() -> None:
            await asyncio.sleep(OFTEN / 4)

        drops = [part for token in tokens(400) for part in (drip, token)]
        server.chunks = [*tokens(48), *drops, {"choices": [_stop()]}]
        return server

    async def test_it_is_drained_and_what_runs_may_end(self, wrong, attached):
        async with attached(api="vllm", every=OFTEN) as stage:
            job = await stage.job("x", 448)
            await stage.host.until(lambda: stage.host.ails)
            assert "is wrong about its KV cache: it says that 0 KV blocks are in use" in stage.host.ails[0]
            assert await stage.host.ended(job) is EndReason.STOP
            assert not stage.host.reasons, "nobody launched it: it stays, and takes nothing"

    async def test_where_it_was_launched_it_is_then_started_anew(self, wrong, attached):
        launcher = Launcher(lambda: wrong.pages.pop("/metrics"))
        async with attached(api="vllm", every=OFTEN, restart=launcher) as stage:
            job = await stage.job("x", 448)
            await stage.host.until(lambda: len(stage.host.facts) == 2)
            assert stage.host.end(job) is EndReason.STOP, "first what ran came to its end"
        assert len(launcher.asked) == 1

    async def test_it_may_be_told_not_to_mind(self, wrong, attached):
        async with attached(api="vllm", every=OFTEN, check_kv=False) as stage:
            await stage.done("x", 448)
            assert not stage.host.ails

    async def test_a_right_gauge_is_never_minded(self, wrong, attached):
        wrong.pages["/metrics"] = "vllm:kv_cache_usage_perc 0.05\nvllm:num_requests_running 1\n"
        async with attached(api="vllm", every=OFTEN) as stage:
            await stage.done("x", 448)
            assert not stage.host.ails


class TestItStartedAnew:
    async def test_other_sizes_than_before_are_noticed(self, server, attached):
        config = 'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{}"}} 1.0\n'
        server.pages["/metrics"] = config.format(101)
        async with attached(api="vllm", capacity_blocks=None, every=OFTEN) as stage:
            server.pages["/metrics"] = config.format(51)
            await stage.host.until(lambda: len(stage.host.facts) == 2)
        assert [facts.capacity_blocks for facts in stage.host.facts] == [100, 50]
        assert "other sizes" in stage.host.reasons[0]


class TestItHasAQueueOfItsOwn:
    async def test_what_waits_and_what_it_stopped_is_told(self, server, attached, eventually):
        page = "vllm:num_requests_running 2\nvllm:num_requests_waiting 3\nvllm:num_preemptions_total {}\n"
        server.pages["/metrics"] = page.format(10)
        async with attached(api="vllm", every=OFTEN) as stage:
            await eventually(lambda: stage.engine.remarks.alarms)
            server.pages["/metrics"] = page.format(14)
            await eventually(lambda: stage.engine.remarks.preempted == 4)
            remarks = stage.engine.remarks
        assert remarks.waiting == 3
        assert "it keeps 3 requests waiting by itself" in remarks.alarm
        assert "it stopped 4 running requests by itself" in remarks.alarm
        assert remarks.foreign_slots == 2, "and none of those that it runs came through here"


class TestItsOwnPriority:
    async def test_vllm_serves_lower_numbers_first_if_it_was_told_to(self, server, attached):
        async with attached(api="vllm", priorities=True) as stage:
            await stage.done("x", priority=100)
        assert server.asked[0]["priority"] == -100

    async def test_without_that_word_vllm_would_refuse_any_but_zero_so_none_is_sent(self, server, attached):
        async with attached(api="vllm") as stage:
            await stage.done("x", priority=100)
        assert "priority" not in server.asked[0]

    @pytest.mark.parametrize(("low_first", "sent"), [(False, 100), (True, -100)])
    async def test_sglang_says_whether_it_goes_by_priorities_and_which_way(
        self, server, attached, low_first, sent
    ):
        info = {"enable_priority_scheduling": True, "schedule_low_priority_values_first": low_first}
        server.pages["/server_info"] = info
        async with attached(api="sglang") as stage:
            await stage.done("x", priority=100)
        assert server.asked[0]["priority"] == sent

    async def test_sglang_that_was_not_told_to_names_the_flag(self, server, attached):
        server.pages["/server_info"] = {"enable_priority_scheduling": False}
        async with attached(api="sglang", priorities=True, wait=False) as stage:
            await stage.host.until(lambda: stage.host.reasons)
        assert stage.host.reasons[0].endswith("Mend: start it with --enable-priority-scheduling")

    @pytest.mark.parametrize("api", ["trtllm", "llamacpp", "triton", "openai"])
    async def test_one_that_has_none_says_so(self, server, attached, api):
        server.pages["/health/ready"] = ""
        async with attached(api=api, priorities=True, wait=False) as stage:
            await stage.host.until(lambda: stage.host.reasons)
        assert "takes no priorities over this API" in stage.host.reasons[0]


def _stop() -> dict[str, object]:
    return {"index": 0, "text": "", "finish_reason": "stop"}
