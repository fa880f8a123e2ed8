"""Engines over gRPC: smg-grpc-proto's services, answered by small servicers over the simulated engine.

The messages are the package's own (0.4.28); what the servicers do with them follows its .proto files.
"""

import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from tokenizers import Tokenizer as Maker
from tokenizers import decoders, models, pre_tokenizers

from diplex.tokens.sources import given
from diplex.tokens.tokenizer import Tokenizer
from diplex.v1 import generation_pb2 as pb
from diplex_core.words import Claim, EndReason
from diplex_workers.engines.attach import AttachEngine, AttachSettings
from diplex_workers.engines.engine import Counted, Job, Output
from diplex_workers.engines.grpc_dialects import GRPC_DIALECTS
from diplex_workers.engines.sim import SimEngine, SimSettings

APIS = tuple(GRPC_DIALECTS)
IDS = pb.Prompt(ids=pb.TokenIds(ids=[7, 8, 9]))
ENDS = {EndReason.STOP: "stop", EndReason.LENGTH: "length", EndReason.CANCELLED: "abort"}


class Servicer:
    """One of the services over a simulated engine on stage. Ids are below 5, for a small vocabulary."""

    def __init__(self, api: str, sim: Any) -> None:
        self.api, self.dialect, self.sim = api, GRPC_DIALECTS[api](), sim
        self.pb = self.dialect.pb
        self.asked: list[Any] = []
        self.aborted: list[str] = []
        self.tokenizer: bytes | None = None
        self.refusal: grpc.StatusCode | None = None
        self.healthy = True
        self._claims = count(1)

    async def HealthCheck(self, request: Any, context: Any) -> Any:
        if self.api == "trtllm-grpc":
            return self.pb.HealthCheckResponse(status="OK" if self.healthy else "dead executor")
        return self.pb.HealthCheckResponse(
            healthy=self.healthy, message="" if self.healthy else "dead executor"
        )

    async def GetModelInfo(self, request: Any, context: Any) -> Any:
        if self.api == "trtllm-grpc":
            return self.pb.GetModelInfoResponse(model_id="org/M", max_seq_len=4096, max_batch_size=8)
        return self.pb.GetModelInfoResponse(served_model_name="org/M", max_context_length=4096)

    async def GetServerInfo(self, request: Any, context: Any) -> Any:
        more: dict[str, dict[str, Any]] = {
            "trtllm-grpc": {"version": "1.3.0"},
            "vllm-grpc": {"block_size": 16, "max_num_seqs": 8},
            "sglang-grpc": {"max_total_num_tokens": 16_000, "sglang_version": "0.5"},
        }
        return self.pb.GetServerInfoResponse(**more[self.api])

    async def GetLoads(self, request: Any, context: Any) -> Any:
        load = self.pb.SchedulerLoad(
            num_running_reqs=3,
            num_waiting_reqs=2,
            token_usage=0.25,
            max_total_num_tokens=16_000,
            max_running_requests=8,
        )
        return self.pb.GetLoadsResponse(loads=[load])

    async def GetTokenizer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if self.tokenizer is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no tokenizer")
            return
        half = len(self.tokenizer) // 2
        chunk = self.dialect.common.GetTokenizerChunk
        yield chunk(data=self.tokenizer[:half])
        yield chunk(data=self.tokenizer[half:], sha256=sha256(self.tokenizer).hexdigest())

    async def Abort(self, request: Any, context: Any) -> Any:
        names = list(request.request_ids) if self.api == "vllm-grpc" else [request.request_id]
        self.aborted += names
        return self.pb.AbortResponse()

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        if self.refusal is not None:
            await context.abort(self.refusal, "no room")
        trt = self.api == "trtllm-grpc"
        ids = list(request.tokenized.input_token_ids if trt else request.tokenized.input_ids)
        sampling = request.sampling_config if trt else request.sampling_params
        most = request.max_tokens if trt else getattr(sampling, "max_tokens", 0) or sampling.max_new_tokens
        choices = sampling.num_return_sequences if trt else sampling.n
        job = Job(
            Claim(next(self._claims), 1),
            "m",
            pb.Prompt(ids=pb.TokenIds(ids=ids)),
            Counted(len(ids), ids=tuple(ids)),
            pb.Sampling(ignore_eos=True),
            most,
            choices,
        )
        host, sent = self.sim.host, 0
        self.sim.engine.submit(job)
        made: dict[int, list[int]] = {choice: [] for choice in range(choices)}
        try:
            while not all(host.end(job, choice) for choice in range(choices)) or sent < len(self._of(job)):
                await host.until(lambda known=sent: len(self._of(job)) > known)
                for out in self._of(job)[sent:]:
                    sent += 1
                    new = [number % 5 for number in out.ids]
                    made[out.choice] += new
                    where = {"sequence_index" if trt else "index": out.choice}
                    if new:
                        chunk = self.pb.GenerateStreamChunk(token_ids=new, **where)
                        yield self.pb.GenerateResponse(chunk=chunk)
                    if out.end is not None:
                        whole = {"output_token_ids" if trt else "output_ids": made[out.choice]}
                        complete = self.pb.GenerateComplete(
                            finish_reason=ENDS[out.end],
                            prompt_tokens=len(ids),
                            cached_tokens=2,
                            **where,
                            **whole,
                        )
                        yield self.pb.GenerateResponse(complete=complete)
        finally:
            self.sim.engine.cancel(job.claim)

    def _of(self, job: Job) -> list[Output]:
        return [out for out in self.sim.host.said if isinstance(out, Output) and out.claim == job.claim]


def words(folder: Path) -> bytes:
    """A tokenizer of five words, as a server sends it."""
    maker = Maker(
        models.WordLevel({word: at for at, word in enumerate(("a", "b", "c", "d", "e"))}, unk_token="e")
    )
    maker.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    maker.decoder = decoders.Fuse()
    maker.save(str(folder / "tokenizer.json"))
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as files:
        files.write(folder / "tokenizer.json", "model/tokenizer.json")
    return data.getvalue()


class Loaded:
    def __init__(self, at: Any) -> None:
        self._tokenizer = Tokenizer(given("m", at))

    def ids_of(self, prompt: pb.Prompt) -> Any:
        return self._tokenizer.ids_of(prompt)

    def writer(self) -> Any:
        return self._tokenizer.writer()


@pytest.fixture
def speaking(on_stage):
    """`async with speaking(api) as (stage, servicer)`: an engine attached to a servicer, ready."""

    @asynccontextmanager
    async def speak(
        api: str, *, tokenizer: bytes | None = None, wait: bool = True, healthy: bool = True, **more: Any
    ):
        sim = SimEngine(SimSettings(models=("m",), calibration="chapter", time_scale=100.0))
        async with on_stage(sim) as simulated:
            await simulated.host.until(lambda: simulated.host.facts)
            servicer, server = Servicer(api, simulated), grpc.aio.server()
            servicer.tokenizer, servicer.healthy = tokenizer, healthy
            dialect = servicer.dialect
            getattr(dialect._rpc, f"add_{dialect.service}Servicer_to_server")(_Whole(servicer), server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            known = {
                "capacity_blocks": 500,
                "block_tokens": 16,
                "url": f"grpc://127.0.0.1:{port}",
                "model": "m",
            }
            engine = AttachEngine(AttachSettings(**{**known, "api": api, **more}), every=0.05, load=Loaded)
            async with on_stage(engine) as stage:
                if wait:
                    await stage.host.until(lambda: stage.host.facts)
                servicer.server = server
                yield stage, servicer
            await server.stop(0)

    return speak


class _Whole:
    """The servicer, with every call that it has not answered by UNIMPLEMENTED."""

    def __init__(self, servicer: Servicer) -> None:
        self._servicer = servicer

    def __getattr__(self, name: str) -> Any:
        async def missing(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, name)

        return getattr(self._servicer, name, missing)


@pytest.mark.parametrize("api", APIS)
class TestEach:
    async def test_ids_go_in_and_ids_come_out_with_the_usage(self, speaking, api):
        async with speaking(api) as (stage, servicer):
            job = await stage.done(IDS, 20)
        assert (len(stage.host.ids(job)), stage.host.tokens(job)) == (20, 20)
        assert stage.host.end(job) is EndReason.LENGTH
        assert stage.host.of(job)[-1].cached_tokens == 2
        assert stage.host.text(job) == "", "nobody has a tokenizer"
        assert servicer.asked[0].request_id.startswith("diplex-")

    async def test_its_own_tokenizer_reads_prompts_and_writes_answers(self, speaking, api, tmp_path):
        async with speaking(api, tokenizer=words(tmp_path)) as (stage, _):
            counted = await stage.engine.count("m", pb.Prompt(text="a b c"))
            job = await stage.done("a b c", 6)
        assert (counted.tokens, counted.exact, counted.ids) == (3, True, (0, 1, 2))
        assert stage.host.text(job) == "".join("abcde"[i] for i in stage.host.ids(job))

    async def test_choices_share_one_request(self, speaking, api):
        async with speaking(api) as (stage, _):
            job = await stage.done(IDS, 5, choices=2)
        assert [stage.host.tokens(job, choice) for choice in (0, 1)] == [5, 5]

    async def test_it_goes_on_behind_given_output(self, speaking, api):
        async with speaking(api) as (stage, servicer):
            assert stage.host.facts[0].can_resume
            job = await stage.done(IDS, 10, resume=pb.Resume(from_index=4, ids=[1, 2, 3, 4]))
        tokenized = servicer.asked[0].tokenized
        assert list(getattr(tokenized, "input_ids", None) or tokenized.input_token_ids) == [
            7,
            8,
            9,
            1,
            2,
            3,
            4,
        ]
        assert stage.host.tokens(job) == 6

    async def test_a_cancel_is_said_aloud(self, speaking, api):
        async with speaking(api) as (stage, servicer):
            job = await stage.job(IDS, 4000)
            await stage.host.until(lambda: stage.host.tokens(job))
            stage.engine.cancel(job.claim)
            assert await stage.host.ended(job) is EndReason.CANCELLED
        assert servicer.aborted == [servicer.asked[0].request_id]

    async def test_overloaded_it_refuses_and_the_client_may_ask_again(self, speaking, api):
        async with speaking(api) as (stage, servicer):
            servicer.refusal = grpc.StatusCode.RESOURCE_EXHAUSTED
            job = await stage.done(IDS)
        assert stage.host.end(job) is EndReason.REFUSED

    async def test_one_that_is_not_well_says_why(self, speaking, api):
        async with speaking(api, wait=False, healthy=False) as (stage, _):
            await stage.host.until(lambda: stage.host.reasons)
        assert stage.host.reasons[0].endswith("is not well: dead executor")

    async def test_one_that_dies_fails_what_it_has(self, speaking, api):
        async with speaking(api) as (stage, servicer):
            job = await stage.job(IDS, 4000)
            await stage.host.until(lambda: stage.host.tokens(job))
            await servicer.server.stop(0)
            assert await stage.host.ended(job) is EndReason.FAILED
            await stage.host.until(lambda: stage.host.reasons)

    async def test_sampling_goes_under_its_own_names(self, speaking, api):
        async with speaking(api) as (stage, servicer):
            await stage.done(IDS, temperature=0.5, top_k=3, min_tokens=2, stop=["x"], ignore_eos=True)
        request = servicer.asked[0]
        if api == "trtllm-grpc":
            config, where, least = request.sampling_config, request, request.sampling_config.min_tokens
        else:
            config = where = request.sampling_params
            least = getattr(config, "min_tokens", 0) or getattr(config, "min_new_tokens", 0)
        assert (config.temperature, config.top_k, least) == (0.5, 3, 2)
        assert (list(where.stop), where.ignore_eos) == (["x"], True)

    async def test_what_it_has_no_word_for_is_refused_by_name(self, speaking, api):
        async with speaking(api) as (stage, _):
            job = await stage.done(IDS, response_format=b"{}")
        assert stage.host.problem(job).field == "response_format"


class TestWhatTheySay:
    async def test_vllm_tells_its_pool_and_its_load(self, speaking, eventually):
        async with speaking("vllm-grpc", capacity_blocks=None, block_tokens=None) as (stage, _):
            facts = stage.host.facts[0]
            await eventually(lambda: stage.engine.observed_blocks() == 250)
            assert (stage.engine.slots_now(), stage.engine.remarks.waiting) == (3, 2)
        assert (facts.capacity_blocks, facts.block_tokens, facts.capacity_slots, facts.context) == (
            1000,
            16,
            8,
            4096,
        )

    async def test_tensorrt_llm_tells_nothing_of_its_cache_so_it_must_be_configured(self, speaking):
        async with speaking("trtllm-grpc", capacity_blocks=None, wait=False) as (stage, _):
            await stage.host.until(lambda: stage.host.reasons)
        assert stage.host.reasons[0].endswith("how many KV blocks it has. Mend: the package's kv_blocks")

    async def test_sglang_has_no_seed_over_grpc(self, speaking):
        async with speaking("sglang-grpc") as (stage, _):
            job = await stage.done(IDS, seed=7)
        assert stage.host.problem(job).field == "seed"
