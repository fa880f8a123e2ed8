"""TensorRT-LLM as an engine, against a stand-in made from its public signatures: no machine here runs it."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import Any

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.blocks import block_hashes
from diplex.wire.status import Problem
from diplex_core.words import Claim, EndReason, Pattern, salted
from diplex_workers.engines.engine import Counted, Job
from diplex_workers.engines.trtllm import TrtLlmEngine
from diplex_workers.engines.trtllm_made import TrtLlmSettings
from diplex_workers.launch.keeper import CannotStart
from diplex_workers.residency import Residency

from .trtllm_stand_in import GenerationResult

BLOCK = 4
IDS = tuple(range(100, 112))
CLAIMS = count(1000)


def settings(**more: Any) -> TrtLlmSettings:
    words = {"model": "m", "checkpoint": "ckpt", "context": 4096, "block_tokens": BLOCK, "slots": 8}
    return TrtLlmSettings(**(words | more))


def llm_of(modules: dict[str, ModuleType]) -> Any:
    return modules["tensorrt_llm.llmapi"].LLM


@dataclass
class Scene:
    """The engine on stage, ready, and the stand-in behind it."""

    stage: Any
    llm: Any

    @property
    def host(self) -> Any:
        return self.stage.host

    def begin(self, *, salt: int = 0, priority: int = 0) -> Job:
        """Submit a job as its worker would, of a tenant and a tier."""
        job = Job(
            claim=Claim(next(CLAIMS), 1),
            model="m",
            prompt=pb.Prompt(ids=pb.TokenIds(ids=IDS)),
            counted=Counted(len(IDS), ids=IDS),
            sampling=pb.Sampling(),
            max_tokens=8,
            salt=salt,
            priority=priority,
        )
        self.stage.engine.submit(job)
        return job


@pytest.fixture
def on(on_stage: Callable[..., Any], install: Callable[..., Any]) -> Callable[..., Any]:
    @asynccontextmanager
    async def on_it(*, newest: bool = True, silent: float = 60.0, **more: Any) -> Any:
        modules = install(newest=newest)
        async with on_stage(TrtLlmEngine(settings(**more), silent=silent)) as stage:
            await stage.host.until(lambda: stage.host.facts)
            yield Scene(stage, llm_of(modules).made[-1])

    return on_it


async def job_of(scene: Scene, ids: tuple[int, ...] = IDS, **more: Any) -> tuple[Any, GenerationResult]:
    before = len(scene.llm.requests)
    job = await scene.stage.job(
        pb.Prompt(ids=pb.TokenIds(ids=ids)), counted=Counted(len(ids), ids=ids), **more
    )
    await until(lambda: len(scene.llm.requests) > before)
    return job, scene.llm.requests[-1]


async def test_what_it_is_comes_from_its_first_iteration(on: Any):
    async with on() as scene:
        facts = scene.host.facts[0]
        assert (facts.kind, facts.version) == ("trtllm", "1.3.0.stand-in")
        assert (facts.capacity_blocks, facts.block_tokens, facts.guard_blocks) == (640, BLOCK, 10)
        assert (facts.context, facts.capacity_slots) == (4096, 8)
        assert facts.tells_prefixes and not facts.simulated


async def test_each_step_says_only_what_is_new(on: Any):
    async with on() as scene:
        job, request = await job_of(scene, max_tokens=5)
        assert request.ids == list(IDS) and request.sampling.max_tokens == 5
        request.say(1)
        request.say(2, 3)
        request.say(4, end="stop")
        assert await scene.host.ended(job) is EndReason.STOP
        assert [out.ids for out in scene.host.of(job) if out.count] == [(1,), (2, 3), (4,)]
        assert scene.host.text(job) == "[1][2][3][4]"


async def test_choices_keep_their_own_counts_when_only_one_of_them_moves(on: Any):
    async with on() as scene:
        job, request = await job_of(scene, choices=2)
        request.say(1, choice=0)
        request.say(2, choice=1)
        request.say(3, choice=1, end="length")
        request.say(4, choice=0, end="stop")
        await scene.host.ended(job)
        assert scene.host.ids(job, 0) == [1, 4] and scene.host.ids(job, 1) == [2, 3]
        assert scene.host.end(job, 1) is EndReason.LENGTH


async def test_text_that_may_become_a_stop_string_waits(on: Any):
    async with on() as scene:
        job, request = await job_of(scene, stop=["END"])
        request.say(1, text="so E")
        request.say(2, text="N")
        await scene.host.until(lambda: scene.host.tokens(job) == 2)
        assert scene.host.text(job) == "so "
        request.say(3, text="tropy", end="length")
        await scene.host.ended(job)
        assert scene.host.text(job) == "so ENtropy"


async def test_a_cancelled_job_is_aborted_and_ends_once_the_engine_let_go(on: Any):
    async with on() as scene:
        job, request = await job_of(scene)
        request.say(1)
        await scene.host.until(lambda: scene.host.tokens(job))
        scene.stage.engine.cancel(job.claim)
        await until(lambda: request.aborted)
        assert scene.host.end(job) is None
        request.let_go()
        assert await scene.host.ended(job) is EndReason.CANCELLED


async def test_a_resumed_job_reads_what_was_produced_and_asks_for_the_rest(on: Any):
    async with on() as scene:
        _, request = await job_of(scene, max_tokens=10, resume=pb.Resume(from_index=3, ids=[7, 8, 9]))
        assert request.ids == [*IDS, 7, 8, 9] and request.sampling.max_tokens == 7


async def test_sampling_is_said_in_its_own_words(on: Any):
    async with on() as scene:
        _, request = await job_of(
            scene,
            temperature=0.5,
            top_k=3,
            seed=9,
            min_tokens=2,
            ignore_eos=True,
            stop=["x"],
            response_format=b'{"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}',
        )
        words = request.sampling
        assert (words.temperature, words.top_k, words.seed, words.min_tokens) == (0.5, 3, 9, 2)
        assert words.ignore_eos and words.stop == ["x"]
        assert words.guided_decoding.json == {"type": "object"}


@pytest.mark.parametrize(
    ("said", "told"), [({}, (1.0, 1.0)), ({"temperature": 0.0}, (0.0, None)), ({"top_p": 0.5}, (1.0, 0.5))]
)
async def test_what_is_left_out_is_as_openai_has_it(on: Any, said: Any, told: tuple[float, float | None]):
    async with on() as scene:
        _, request = await job_of(scene, **said)
        assert (request.sampling.temperature, request.sampling.top_p) == told


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"logit_bias": {"5": 1.0}}, "logit_bias"),
        ({"top_p": 7.0}, "sampling"),
        ({"response_format": b'{"type": "poem"}'}, "response_format"),
    ],
)
async def test_sampling_that_it_has_no_word_for_is_refused_by_name(on: Any, sampling: Any, field: str):
    async with on() as scene:
        job = await scene.stage.done(
            pb.Prompt(ids=pb.TokenIds(ids=IDS)), counted=Counted(12, ids=IDS), **sampling
        )
        problem = scene.host.problem(job)
        assert problem is not None and problem.code.name == "INVALID_ARGUMENT"
        assert problem.field == field and "Mend" in problem.message


async def test_a_request_that_it_refuses_fails_alone(on: Any):
    async with on() as scene:
        job = await scene.stage.done(pb.Prompt(ids=pb.TokenIds(ids=IDS)), 5000, counted=Counted(12, ids=IDS))
        problem = scene.host.problem(job)
        assert problem is not None and "should not exceed 4096" in problem.message
        assert len(scene.host.facts) == 1 and scene.host.reasons == []


async def test_priority_retention_and_salt_go_with_the_request_where_the_version_has_them(on: Any):
    async with on() as scene:
        scene.begin(priority=100, salt=0xABC)
        scene.begin(priority=-5)
        await until(lambda: len(scene.llm.requests) == 2)
        first, second = scene.llm.requests
        assert (first.words["priority"], second.words["priority"]) == (1.0, 0.0)
        assert (first.words["salt"], second.words["salt"]) == ("0000000000000abc", None)
        assert first.words["retention"].decode_retention_priority == 100
        assert first.words["retention"].token_range_retention_configs[0].priority == 100
        assert scene.llm.args.scheduler_config.waiting_queue_policy == "priority"


async def test_an_older_version_is_told_nothing_that_it_does_not_know(on: Any):
    async with on(newest=False) as scene:
        _, request = await job_of(scene)
        assert request.words.keys() == {"retention"}
        assert scene.llm.args.scheduler_config.waiting_queue_policy == "fcfs"


async def test_an_older_version_never_mixes_the_prefixes_of_a_tenant_that_asked_for_its_own(on: Any):
    async with on(newest=False) as scene:
        job = scene.begin(salt=5)
        await scene.host.ended(job)
        problem = scene.host.problem(job)
        assert problem is not None and "isolate_prefixes: false" in problem.message
        assert scene.llm.requests == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"tensor_parallel_size": 1, "max_num_tokens": 8192, "speculative_config": None}),
        # A small prefill budget, and room for the eight that run.
        (
            {"pattern": Pattern.C},
            {"tensor_parallel_size": 2, "max_num_tokens": 264, "allreduce_strategy": "NCCL"},
        ),
        ({"pattern": Pattern.C, "gpu": "h200"}, {"tensor_parallel_size": 2, "allreduce_strategy": "AUTO"}),
        ({"tensor_parallel": 4}, {"tensor_parallel_size": 4}),
        ({"prefill_budget": 1024}, {"max_num_tokens": 1032, "enable_chunked_prefill": True}),
    ],
)
async def test_a_pattern_decides_what_it_is_made_with(on: Any, more: Any, expected: dict[str, object]):
    async with on(**more) as scene:
        assert {name: getattr(scene.llm.args, name) for name in expected} == expected


async def test_its_devices_are_there_before_the_package_is_loaded(
    on_stage: Callable[..., Any],
    install: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    modules = install()
    seen: list[str] = []

    async def place() -> dict[str, str]:
        if not seen:
            seen.append("refused")
            raise CannotStart("GPU 0 has no slice left. Mend: …")
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert not llm_of(modules).made
        return {"CUDA_VISIBLE_DEVICES": "MIG-1"}

    monkeypatch.setattr("diplex_workers.engines.trtllm._PAUSE_FIRST", 0.01)
    async with on_stage(TrtLlmEngine(settings(), place=place)) as stage:
        await stage.host.until(lambda: stage.host.facts)
        assert stage.host.reasons == ["GPU 0 has no slice left. Mend: …"]
        assert seen == ["refused", ""] and os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-1"


@pytest.mark.parametrize(
    ("pattern", "newest", "kind"),
    [
        (Pattern.D, True, "DraftTargetDecodingConfig"),
        (Pattern.A_EAGLE, True, "Eagle3DecodingConfig"),
        (Pattern.A_EAGLE, False, "EagleDecodingConfig"),
    ],
)
async def test_what_drafts_is_part_of_the_same_instance(on: Any, pattern: Pattern, newest: bool, kind: str):
    async with on(newest=newest, pattern=pattern, draft_checkpoint="small", draft_tokens=3) as scene:
        config = scene.llm.args.speculative_config
        assert type(config).__name__ == kind
        assert (config.max_draft_len, config.speculative_model) == (3, "small")
        assert scene.host.facts[0].draft_tokens == 3
        # Two models' caches would have to agree on what is reused.
        reuses = pattern is not Pattern.D
        assert scene.llm.args.kv_cache_config.enable_block_reuse is reuses
        assert scene.llm.args.disable_overlap_scheduler is not reuses
        assert scene.host.facts[0].tells_prefixes is reuses


def test_a_pattern_that_drafts_needs_something_that_does():
    with pytest.raises(ValueError, match=r"pattern D needs what drafts\. Mend: engine\.draft_checkpoint"):
        TrtLlmEngine(settings(pattern=Pattern.D))


async def test_its_gauges_are_those_of_the_last_iteration(on: Any):
    async with on() as scene:
        _, request = await job_of(scene)
        scene.llm.iterate(used=17, active=3)
        await until(lambda: scene.stage.engine.observed_blocks() == 17)
        assert scene.stage.engine.slots_now() == 3
        request.say(1, end="stop")


async def test_gauges_that_are_old_are_unknown_and_not_zero(on: Any, monkeypatch: pytest.MonkeyPatch):
    async with on() as scene:
        assert scene.stage.engine.slots_now() is not None
        monkeypatch.setattr("diplex_workers.engines.trtllm._STALE", 0.0)
        assert (scene.stage.engine.observed_blocks(), scene.stage.engine.slots_now()) == (None, None)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def stored(llm: Any, parent: int | None, *blocks: tuple[int, tuple[int, ...]], level: int = 0) -> None:
    data = [
        {
            "type": "stored_block",
            "block_hash": name,
            "tokens": [{"type": "unique_token", "token_id": one, "token_extra_id": 0} for one in ids],
            "cache_level": level,
            "priority": 35,
        }
        for name, ids in blocks
    ]
    llm.tell({"type": "stored", "parent_hash": parent, "blocks": data})


async def heard(scene: Scene) -> Residency:
    """What a worker takes its engine to keep, from all that it told."""
    residency = Residency(BLOCK)
    for event in scene.host.kept_events:
        residency.take(event)
    return residency


async def test_blocks_are_known_by_the_names_that_clients_use(on: Any):
    async with on() as scene:
        _, request = await job_of(scene)
        scene.llm.tell({"type": "created", "num_blocks_per_cache_level": [640, 0]})
        stored(scene.llm, None, (11, IDS[:4]), (12, IDS[4:8]))
        stored(scene.llm, 12, (13, IDS[8:]))
        await scene.host.until(lambda: len(scene.host.kept_events) == 3)
        residency = await heard(scene)
        assert residency.problem == ""
        assert residency.kept == set(block_hashes(IDS, BLOCK, "m"))
        scene.llm.tell({"type": "removed", "block_hashes": [13, 99]})
        await scene.host.until(lambda: len(scene.host.kept_events) == 4)
        assert (await heard(scene)).kept == set(block_hashes(IDS[:8], BLOCK, "m"))
        request.say(1, end="stop")


async def test_a_block_on_the_host_is_kept_again_only_once_it_is_back(on: Any):
    async with on() as scene:
        _, request = await job_of(scene)
        scene.llm.tell({"type": "created", "num_blocks_per_cache_level": [640, 64]})
        stored(scene.llm, None, (11, IDS[:4]))
        for level in (1, 0):
            diff = {"type": "event_diff", "new_value": level, "old_value": 1 - level}
            scene.llm.tell({"type": "updated", "block_hash": 11, "cache_level": diff, "priority": None})
        await scene.host.until(lambda: len(scene.host.kept_events) == 4)
        name = block_hashes(IDS, BLOCK, "m")[0]
        assert [(e.stored, e.removed) for e in scene.host.kept_events[1:]] == [
            ((name,), ()),
            ((), (name,)),
            ((name,), ()),
        ]
        request.say(1, end="stop")


async def test_a_tenants_own_blocks_are_known_under_its_salt_alone(on: Any):
    async with on() as scene:
        scene.begin(salt=7)
        await until(lambda: scene.llm.requests)
        scene.llm.tell({"type": "created", "num_blocks_per_cache_level": [640, 0]})
        stored(scene.llm, None, (11, IDS[:4]), (12, IDS[4:8]))
        await scene.host.until(lambda: len(scene.host.kept_events) == 2)
        names = block_hashes(IDS[:8], BLOCK, "m")
        assert (await heard(scene)).kept == {salted(name, 7) for name in names}


async def test_blocks_that_two_may_have_asked_for_have_no_name(on: Any):
    async with on() as scene:
        scene.begin(salt=7)
        scene.begin()
        await until(lambda: len(scene.llm.requests) == 2)
        scene.llm.tell({"type": "created", "num_blocks_per_cache_level": [640, 0]})
        stored(scene.llm, None, (11, IDS[:4]))
        stored(scene.llm, 11, (12, IDS[4:8]))
        await scene.host.until(lambda: len(scene.host.kept_events) == 3)
        residency = await heard(scene)
        assert (residency.kept, residency.problem) == (set(), "")


async def test_an_event_that_was_lost_is_a_hole_that_is_said(on: Any):
    async with on() as scene:
        _, request = await job_of(scene)
        scene.llm.tell({"type": "created", "num_blocks_per_cache_level": [640, 0]})
        scene.llm.tell({}, lost=True)
        stored(scene.llm, None, (11, IDS[:4]))
        await scene.host.until(lambda: len(scene.host.kept_events) == 2)
        assert "1 of its engine's events are missing" in (await heard(scene)).problem
        request.say(1, end="stop")


async def test_an_engine_that_went_away_fails_its_jobs_and_is_made_anew(
    on: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("diplex_workers.engines.trtllm._PAUSE_FIRST", 0.01)
    async with on() as scene:
        job, request = await job_of(scene)
        scene.llm.answers_probes, scene.llm.down = False, True
        request.fail(RuntimeError("the executor died"))
        assert await scene.host.ended(job) is EndReason.FAILED
        assert "the executor died" in scene.host.problem(job).message
        await scene.host.until(lambda: len(scene.host.facts) == 2)
        assert scene.host.reasons == ["TensorRT-LLM went away: LLM is shutting down"]
        assert len(type(scene.llm).made) == 2


async def test_a_full_engine_that_lets_the_question_wait_is_alive_while_others_get_tokens(
    on: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("diplex_workers.engines.trtllm._FREED_WITHIN", 0.2)
    async with on() as scene:
        running, others = await job_of(scene, max_tokens=1000)
        _, request = await job_of(scene)
        scene.llm.answers_probes = False
        request.fail(RuntimeError("this request is cursed"))
        for token in range(30):
            others.say(token)
            await asyncio.sleep(0.02)
        others.say(31, end="stop")
        assert await scene.host.ended(running) is EndReason.STOP
        assert scene.host.reasons == []


async def test_one_failed_request_is_no_dead_engine(on: Any):
    async with on() as scene:
        job, request = await job_of(scene)
        request.fail(RuntimeError("this request is cursed"))
        assert await scene.host.ended(job) is EndReason.FAILED
        other, request = await job_of(scene)
        request.say(1, end="stop")
        assert await scene.host.ended(other) is EndReason.STOP
        assert len(scene.host.facts) == 1 and scene.host.reasons == []


async def test_an_engine_that_says_nothing_while_jobs_run_hangs(on: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("diplex_workers.engines.trtllm._PAUSE_FIRST", 0.01)
    async with on(silent=0.2) as scene:
        job, _ = await job_of(scene)
        assert await scene.host.ended(job) is EndReason.FAILED
        await scene.host.until(lambda: scene.host.reasons)
        assert scene.host.reasons[0].startswith("TensorRT-LLM hangs: nothing came for 0.2 s")
        await scene.host.until(lambda: len(scene.host.facts) == 2)
        assert scene.llm.down and len(scene.host.reasons) == 1


async def test_without_the_package_the_worker_says_what_to_do(
    on_stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    async with on_stage(TrtLlmEngine(settings())) as stage:
        (reason,) = await stage.host.until(lambda: stage.host.reasons)
        assert reason.startswith("the engine trtllm: TensorRT-LLM is not installed. Mend: ")


async def test_a_pool_that_is_promised_larger_than_it_is_never_opens(
    on_stage: Callable[..., Any],
    install: Callable[..., Any],
):
    install()
    async with on_stage(TrtLlmEngine(settings(capacity_blocks=641))) as stage:
        (reason,) = await stage.host.until(lambda: stage.host.reasons)
        assert "kv_blocks says 641 and it has 640. Mend: kv_blocks: 640" in reason


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        (pb.Prompt(text="hi"), (1, 104, 105)),
        (pb.Prompt(ids=pb.TokenIds(ids=[5, 6])), (5, 6)),
        (
            pb.Prompt(chat=pb.Chat(messages=b'[{"role": "user", "content": "a"}]')),
            tuple(map(ord, "<user>a<assistant>")),
        ),
    ],
)
async def test_prompts_are_counted_by_its_own_tokenizer(on: Any, prompt: pb.Prompt, ids: tuple[int, ...]):
    async with on() as scene:
        assert await scene.stage.engine.count("m", prompt) == Counted(len(ids), ids=ids)


@pytest.mark.parametrize("messages", [b"[]", b"no json", b'[{"role": "alien", "content": ""}]'])
async def test_a_chat_that_cannot_be_rendered_is_the_clients_fault(on: Any, messages: bytes):
    async with on() as scene:
        with pytest.raises(Problem, match=r"Mend|cannot take this") as caught:
            await scene.stage.engine.count("m", pb.Prompt(chat=pb.Chat(messages=messages)))
        assert caught.value.code.name == "INVALID_ARGUMENT"
