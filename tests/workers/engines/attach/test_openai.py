"""An attached server, played by a small one in this process: streams, counts, errors, ends."""

import asyncio

import pytest
from aiohttp import web

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import EndReason
from diplex_workers.engines.attach import AttachEngine, AttachSettings

Chunk = dict[str, object]
CHAT = pb.Prompt(chat=pb.Chat(messages=b'[{"role":"user","content":"hi there"}]'))


def said(text: str, index: int = 0, **more: object) -> Chunk:
    return {"choices": [{"index": index, "text": text, **more}]}


def ended(reason: str = "stop", index: int = 0, text: str = "") -> Chunk:
    return said(text, index, finish_reason=reason)


def usage(completion: int, prompt: int = 5, cached: int | None = None) -> Chunk:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details}}


class TestWhatItIs:
    async def test_the_server_says_what_was_not_configured(self, server, attached):
        config = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1001"} 1.0\n'
        server.pages = {"/metrics": config, "/version": {"version": "0.11.0"}}
        async with attached(api="vllm", capacity_blocks=None, context=None, block_tokens=None) as stage:
            facts = stage.host.facts[0]
        assert (facts.capacity_blocks, facts.block_tokens, facts.context) == (1000, 16, 4096)
        assert facts.guard_blocks == 31
        assert (facts.kind, facts.version, facts.can_resume) == ("attach", "vllm 0.11.0", False)
        assert [model.name for model in facts.models] == ["m"]

    async def test_sglang_tells_its_tokens(self, server, attached):
        state = {"memory_usage": {"token_capacity": 20480}, "effective_max_running_requests_per_dp": 12}
        server.pages = {"/server_info": {"page_size": 1, "context_length": 999, "internal_states": [state]}}
        server.models = [{"id": "served"}]
        async with attached(api="sglang", capacity_blocks=None, context=None, block_tokens=None) as stage:
            facts = stage.host.facts[0]
        assert (facts.capacity_blocks, facts.capacity_slots, facts.context) == (1280, 12, 999)

    async def test_trtllm_tells_its_blocks_only_with_its_prometheus_page(self, server, attached):
        page = "trtllm_kv_cache_max_blocks 500\ntrtllm_kv_cache_tokens_per_block 64\n"
        server.pages = {"/prometheus/metrics": page}
        async with attached(api="trtllm", capacity_blocks=None, block_tokens=None) as stage:
            facts = stage.host.facts[0]
        assert (facts.capacity_blocks, facts.block_tokens) == (500, 64)
        assert "/metrics" not in server.paths, "its readers would miss what was read"

    async def test_a_capacity_that_nobody_says_names_the_key(self, server, attached):
        async with attached(capacity_blocks=None, wait=False) as stage:
            await stage.host.until(lambda: stage.host.reasons)
        assert stage.host.reasons[0].endswith(
            "does not say how many KV blocks it has. Mend: the package's kv_blocks"
        )

    async def test_a_model_that_it_does_not_have_names_those_that_it_has(self, server, attached):
        async with attached(upstream_model="other", wait=False) as stage:
            await stage.host.until(lambda: stage.host.reasons)
        assert "has no model other, but served." in stage.host.reasons[0]

    async def test_a_key_in_the_address_is_in_no_message(self, server, on_stage):
        url = server.url.replace("http://", "http://user:hunter2@")
        await server.stop()
        async with on_stage(AttachEngine(AttachSettings(url, "m"))) as stage:
            await stage.host.until(lambda: stage.host.reasons)
        assert "cannot be reached" in stage.host.reasons[0]
        assert "hunter2" not in stage.host.reasons[0]


class TestAnswers:
    async def test_tokens_come_as_they_come_and_the_end_brings_the_usage(self, server, attached):
        server.chunks = [said("one"), said(" two"), ended(text=" three"), usage(3, cached=4)]
        async with attached() as stage:
            job = await stage.done("count", 8)
        assert [(out.count, out.text) for out in stage.host.of(job)] == [
            (1, "one"),
            (1, " two"),
            (1, " three"),
            (0, ""),
        ]
        assert stage.host.end(job) is EndReason.STOP
        assert stage.host.of(job)[-1].cached_tokens == 4

    async def test_a_chat_goes_to_the_chat_path_with_its_messages(self, server, attached):
        first = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        word = {"choices": [{"index": 0, "delta": {"content": "hey"}}]}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        server.chunks = [first, word, last, usage(2)]
        async with attached() as stage:
            job = await stage.done(CHAT)
        assert server.paths[-1] == "/v1/chat/completions"
        assert server.asked[0]["messages"] == [{"role": "user", "content": "hi there"}]
        assert server.asked[0]["model"] == "served"
        assert (stage.host.text(job), stage.host.tokens(job)) == ("hey", 2)

    async def test_token_ids_are_sent_as_they_are(self, server, attached):
        async with attached() as stage:
            await stage.done(pb.Prompt(ids=pb.TokenIds(ids=[1, 2, 3])))
        assert server.asked[0]["prompt"] == [1, 2, 3]

    @pytest.mark.parametrize(
        ("total", "counted"), [(7, 7), (3, 3), (2, 3)], ids=["more than chunks", "as many", "never fewer"]
    )
    async def test_the_usage_trues_the_count_up(self, server, attached, total, counted):
        server.chunks = [said("a"), said("b"), said("c"), ended(), usage(total)]
        async with attached() as stage:
            job = await stage.done("x", 8)
        assert stage.host.tokens(job) == counted

    async def test_ids_in_the_stream_make_the_count_exact(self, server, attached):
        server.chunks = [said("ab", token_ids=[4, 5]), ended(), usage(2)]
        async with attached(api="vllm") as stage:
            job = await stage.done("x", 8)
        assert (stage.host.ids(job), stage.host.tokens(job)) == ([4, 5], 2)
        assert server.asked[0]["return_token_ids"] is True

    async def test_text_without_a_token_of_its_own_waits_for_one(self, server, attached):
        server.chunks = [said("a", token_ids=[]), said("b", token_ids=[5]), ended(text="c"), usage(1)]
        async with attached(api="vllm") as stage:
            job = await stage.done("x", 8)
        assert [out.text for out in stage.host.of(job) if out.count] == ["ab", "c"]

    async def test_choices_share_one_request(self, server, attached):
        server.chunks = [
            said("a", 0),
            said("b", 1),
            said("b", 1),
            ended("length", 1),
            ended("stop", 0),
            usage(6),
        ]
        async with attached() as stage:
            job = await stage.done("x", 4, choices=2)
        assert server.asked[0]["n"] == 2
        assert (stage.host.text(job, 0), stage.host.text(job, 1)) == ("a", "bb")
        assert (stage.host.end(job, 0), stage.host.end(job, 1)) == (EndReason.STOP, EndReason.LENGTH)
        # What ran to the limit has the limit's tokens, and the rest is the other's.
        assert (stage.host.tokens(job, 0), stage.host.tokens(job, 1)) == (2, 4)

    async def test_a_server_that_never_says_done_or_usage_is_believed(self, server, attached):
        server.chunks, server.says_done = [said("a"), ended("length")], False
        async with attached() as stage:
            job = await stage.done("x", 1)
        assert (stage.host.end(job), stage.host.tokens(job)) == (EndReason.LENGTH, 1)

    async def test_half_a_character_becomes_a_replacement_and_not_a_crash(self, server, attached):
        server.chunks = [said("\ud83d"), ended(), usage(1)]
        async with attached() as stage:
            job = await stage.done("x")
        assert stage.host.text(job).encode() == b"?"

    async def test_sampling_goes_under_the_servers_own_names(self, server, attached):
        async with attached(api="llamacpp", capacity_blocks=9) as stage:
            wanted = {"repetition_penalty": 1.5, "top_k": 3, "seed": 7, "stop": ["a", "b"]}
            wanted |= {"logit_bias": {"5": -1.0}, "response_format": b'{"type":"json_object"}'}
            await stage.done("x", **wanted, temperature=0.0)
        body = server.asked[0]
        assert (body["repeat_penalty"], body["top_k"], body["seed"]) == (1.5, 3, 7)
        assert (body["stop"], body["temperature"]) == (["a", "b"], 0.0)
        assert (body["logit_bias"], body["response_format"]) == ({"5": -1.0}, {"type": "json_object"})

    async def test_sampling_that_it_does_not_know_is_refused_by_name(self, server, attached):
        async with attached() as stage:
            job = await stage.done("x", ignore_eos=True)
        assert stage.host.problem(job).field == "ignore_eos"
        assert not server.asked


class TestCounts:
    async def test_without_a_tokenizer_a_prompt_counts_by_the_bound(self, server, attached):
        async with attached() as stage:
            counted = await stage.engine.count("m", pb.Prompt(text="to be or not to be"))
        assert (counted.exact, counted.tokens) == (False, 6)

    async def test_the_bound_follows_the_usage_that_the_server_states(self, server, attached):
        prompt = pb.Prompt(text="ab" * 200)
        server.chunks = [said("a"), ended(), usage(1, prompt=400)]
        async with attached() as stage:
            before = (await stage.engine.count("m", prompt)).tokens
            await stage.done(prompt)
            after = (await stage.engine.count("m", prompt)).tokens
        assert before < 400 <= after

    async def test_vllms_tokenizer_counts_exactly(self, server, attached):
        server.pages["/tokenize"] = lambda body: {"count": 100 + len(body["messages"]), "tokens": []}
        async with attached(api="vllm") as stage:
            counted = await stage.engine.count("m", CHAT)
        assert (counted.exact, counted.tokens) == (True, 101)

    async def test_a_prompt_that_the_tokenizer_refuses_is_refused_in_its_words(self, server, attached):
        refusal = web.json_response({"error": {"message": "no such role"}}, status=400)
        server.pages["/tokenize"] = lambda _: refusal
        async with attached(api="vllm") as stage:
            with pytest.raises(Problem, match="no such role"):
                await stage.engine.count("m", CHAT)

    async def test_a_tokenizer_that_is_not_there_is_asked_once(self, server, attached):
        async with attached(api="vllm") as stage:
            counts = [await stage.engine.count("m", CHAT) for _ in range(3)]
        assert not any(counted.exact for counted in counts)
        assert server.paths.count("/tokenize") == 1

    async def test_a_tokenizer_that_fails_falls_back_to_the_bound(self, server, attached):
        server.pages["/tokenize"] = lambda _: web.Response(status=500)
        async with attached(api="vllm") as stage:
            assert not (await stage.engine.count("m", CHAT)).exact


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "INVALID_ARGUMENT"),
            (422, "INVALID_ARGUMENT"),
            (401, "FAILED_PRECONDITION"),
            (404, "FAILED_PRECONDITION"),
            (429, "RESOURCE_EXHAUSTED"),
            (500, "INTERNAL"),
            (503, "UNAVAILABLE"),
        ],
    )
    async def test_a_status_becomes_a_code(self, server, attached, status, code):
        server.refusal = (status, {"error": {"message": "its own words"}}, {"Retry-After": "7"})
        async with attached() as stage:
            job = await stage.done("x")
        problem = stage.host.problem(job)
        # Overloaded, it may take the same later: the client asks the router again.
        end = EndReason.REFUSED if status == 429 else EndReason.FAILED
        assert (stage.host.end(job), problem.code.name) == (end, code)
        assert status == 401 or "its own words" in problem.message
        assert problem.retry_after == (7.0 if status in (429, 503) else None)

    async def test_an_error_in_mid_stream_is_told_after_what_was_produced(self, server, attached):
        server.chunks = [said("a"), {"error": {"message": "CUDA out of memory", "code": 500}}]
        async with attached() as stage:
            job = await stage.done("x")
        assert (stage.host.text(job), stage.host.end(job)) == ("a", EndReason.FAILED)
        assert "CUDA out of memory" in stage.host.problem(job).message

    @pytest.mark.parametrize(
        ("chunks", "code"),
        [
            ([said("a")], "UNAVAILABLE"),
            ([said("a"), ended("abort")], "UNAVAILABLE"),
            ([{"choices": ["?"]}], "INTERNAL"),
            ([{"choices": [{"index": 0, "delta": {"tool_calls": [{}]}}]}], "UNIMPLEMENTED"),
        ],
        ids=["no end", "given up", "no chunk", "a tool call"],
    )
    async def test_an_answer_that_is_none_fails(self, server, attached, chunks, code):
        server.chunks = chunks
        async with attached() as stage:
            job = await stage.done("x")
        assert (stage.host.end(job), stage.host.problem(job).code.name) == (EndReason.FAILED, code)

    async def test_a_resumed_job_is_refused(self, server, attached):
        async with attached() as stage:
            job = await stage.done("x", resume=pb.Resume(from_index=2, text="ab"))
        assert stage.host.problem(job).reason == "CANNOT_RESUME"


class TestEnds:
    async def test_a_cancel_closes_the_connection_and_then_says_so(self, server, attached):
        server.chunks = [said("a"), server.forever]
        async with attached() as stage:
            job = await stage.job("x")
            await stage.host.until(lambda: stage.host.tokens(job))
            stage.engine.cancel(job.claim)
            assert await stage.host.ended(job) is EndReason.CANCELLED
            async with asyncio.timeout(1):
                await server.left.wait()

    async def test_a_cancel_is_heard_while_the_server_says_nothing_yet(self, server, attached, eventually):
        server.chunks = [server.forever]
        async with attached() as stage:
            job = await stage.job("x")
            await eventually(lambda: server.asked)
            stage.engine.cancel(job.claim)
            assert await stage.host.ended(job) is EndReason.CANCELLED
            async with asyncio.timeout(1):
                await server.left.wait()

    async def test_each_choice_of_a_cancelled_job_ends_once(self, server, attached):
        server.chunks = [said("a", 0), ended("stop", 0), said("b", 1), server.forever]
        async with attached() as stage:
            job = await stage.job("x", choices=2)
            await stage.host.until(lambda: stage.host.tokens(job, 1))
            stage.engine.cancel(job.claim)
            stage.engine.cancel(job.claim)
            await stage.host.ended(job)
        assert sum(bool(out.end) for choice in (0, 1) for out in stage.host.of(job, choice)) == 2

    async def test_a_server_that_dies_in_mid_stream_fails_its_jobs_and_is_unready(self, server, attached):
        server.chunks = [said("a"), server.die]
        async with attached() as stage:
            job = await stage.done("x")
            assert stage.host.end(job) is EndReason.FAILED
            assert stage.host.problem(job).code.name == "UNAVAILABLE"
            await stage.host.until(lambda: stage.host.reasons)
            assert "cannot be reached" in stage.host.reasons[0]

    async def test_a_server_that_comes_back_is_ready_again(self, server, attached):
        async with attached() as stage:
            await server.stop()
            await stage.host.until(lambda: stage.host.reasons)
            job = await stage.done("x")
            assert "cannot be reached" in stage.host.problem(job).message
            await server.start()
            await stage.host.until(lambda: len(stage.host.facts) == 2)
            assert await stage.host.ended(await stage.done("x")) is EndReason.STOP

    async def test_a_server_that_still_loads_is_waited_for(self, server, attached):
        server.healthy = False
        async with attached(api="vllm", wait=False) as stage:
            await stage.host.until(lambda: stage.host.reasons)
            assert "/health answered 503" in stage.host.reasons[0]
            server.healthy, server.pages["/metrics"] = True, ""
            await stage.host.until(lambda: stage.host.facts)


class TestGauges:
    @pytest.mark.parametrize(
        ("api", "path", "page", "blocks", "running"),
        [
            (
                "vllm",
                "/metrics",
                'vllm:kv_cache_usage_perc{e="0"} 0.25\nvllm:num_requests_running{e="0"} 3.0\n',
                160,
                3,
            ),
            ("vllm", "/metrics", "vllm:gpu_cache_usage_perc 0.5\n", 320, None),
            ("sglang", "/metrics", "sglang:token_usage 0.1\nsglang:num_running_reqs 2\n", 64, 2),
            ("trtllm", "/prometheus/metrics", "trtllm_kv_cache_utilization 0.75\n", 480, None),
        ],
    )
    async def test_the_servers_own_gauges_are_told(
        self, server, attached, eventually, api, path, page, blocks, running
    ):
        server.pages[path] = page
        async with attached(api=api) as stage:
            await eventually(
                lambda: (stage.engine.observed_blocks(), stage.engine.slots_now()) == (blocks, running)
            )

    async def test_what_is_not_told_is_unknown_and_not_zero(self, server, attached):
        async with attached() as stage:
            assert stage.engine.observed_blocks() is None
            assert stage.engine.slots_now() is None


TRITON = """\
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 0
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 156
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="free",model="tensorrt_llm",version="1"} 6083
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"""


class TestTriton:
    async def test_its_tensorrt_llm_backend_tells_blocks_and_requests(self, server, attached, eventually):
        server.pages = {"/metrics": TRITON, "/health/ready": ""}
        async with attached(api="triton", capacity_blocks=None, block_tokens=None) as stage:
            facts = stage.host.facts[0]
            await eventually(lambda: stage.engine.observed_blocks() == 156)
            assert (stage.engine.slots_now(), stage.engine.remarks.waiting) == (4, 1)
        assert (facts.capacity_blocks, facts.block_tokens, facts.capacity_slots) == (6239, 64, 512)

    async def test_what_its_backends_would_drop_without_a_word_is_refused(self, server, attached):
        server.pages = {"/metrics": "", "/health/ready": ""}
        async with attached(api="triton") as stage:
            job = await stage.done("x", response_format=b'{"type":"json_object"}')
        assert stage.host.problem(job).field == "response_format"
