"""The simulated engine on the real clock, scaled."""

import asyncio
from collections.abc import Sequence

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.counting import bound_tokens
from diplex_core.sim.speech import token
from diplex_core.words import EndReason, Pattern
from diplex_workers.engines.engine import Output
from diplex_workers.engines.sim import SimEngine, SimSettings, digest_of

PROMPT = pb.Prompt(text="hello")


def sim(**more: object) -> SimEngine:
    words = {"models": ("m",), "calibration": "chapter", "time_scale": 100.0, **more}
    return SimEngine(SimSettings(**words))  # type: ignore[arg-type]


def expected(prompt: pb.Prompt, count: int, choice: int = 0, start: int = 0) -> str:
    digest = digest_of(prompt)
    return "".join(token(digest, choice, index)[1] for index in range(start, count))


async def test_it_is_ready_at_once_and_labelled_simulated(on_stage):
    async with on_stage(sim()) as stage:
        facts = await stage.host.until(lambda: stage.host.facts)
        assert [(f.kind, f.simulated, f.calibration, f.time_scale) for f in facts] == [
            ("sim", True, "chapter", 100)
        ]
        assert [(f.block_tokens, f.capacity_blocks, f.capacity_slots) for f in facts] == [(32, 22_250, 32)]
        assert facts[0].can_resume


async def test_a_latency_worker_has_the_slots_of_its_largest_row(on_stage):
    async with on_stage(sim(pattern=Pattern.C)) as stage:
        (facts,) = await stage.host.until(lambda: stage.host.facts)
        assert facts.capacity_slots == 16


@pytest.mark.parametrize(
    ("pattern", "said", "budget"),
    [
        (Pattern.C, None, 256),  # a latency worker: no long prompt holds up the streams beside it
        (Pattern.C, 16384, 16384),
        (Pattern.A, None, 0),  # as the calibration says: no fixed figure
        (Pattern.A, 512, 512),
        (Pattern.B, None, 0),
        (Pattern.D, None, 0),
        (Pattern.A_EAGLE, 16384, 16384),
    ],
)
async def test_a_prefill_budget_is_obeyed_and_latency_workers_have_one_unasked(
    on_stage, pattern: Pattern, said: int | None, budget: int
):
    async with on_stage(sim(pattern=pattern, prefill_budget=said)) as stage:
        (facts,) = await stage.host.until(lambda: stage.host.facts)
        assert facts.prefill_budget_tokens == budget


async def test_one_half_of_a_package_serves_another_model_and_says_whose_figures_those_are(on_stage):
    words = {"profile": "qwen2.5-32b", "weights": "fp8", "kv_cache": "fp8"}
    async with on_stage(sim(pattern=Pattern.B, **words)) as stage:
        (facts,) = await stage.host.until(lambda: stage.host.facts)
        assert (facts.calibration, facts.capacity_slots) == ("chapter, scaled from qwen2.5-72b", 16)
        assert (facts.profile, facts.weights, facts.kv_cache) == ("qwen2.5-32b", "fp8", "fp8")
        assert facts.context == 32768


@pytest.mark.parametrize("pattern", [Pattern.D, Pattern.A_EAGLE])
async def test_what_speculates_says_so_and_several_tokens_of_a_step_come_in_one_call(
    on_stage, pattern: Pattern
):
    async with on_stage(sim(pattern=pattern, draft_tokens=4)) as stage:
        (facts,) = await stage.host.until(lambda: stage.host.facts)
        assert facts.draft_tokens == 4
        calls: list[int] = []
        hear = stage.host.deliver

        def listen(outputs: Sequence[Output]) -> None:
            calls.append(len(outputs))
            hear(outputs)

        stage.host.deliver = listen
        job = await stage.done(PROMPT, 200, ignore_eos=True)
        assert stage.host.text(job) == expected(PROMPT, 200)
        assert (sum(calls), max(calls)) == (200, 5)


async def test_an_answer_is_the_words_of_its_prompt_with_their_ids(on_stage):
    async with on_stage(sim()) as stage:
        job = await stage.done(PROMPT, 20, ignore_eos=True)
        assert stage.host.text(job) == expected(PROMPT, 20)
        assert stage.host.ids(job) == [token(digest_of(PROMPT), 0, index)[0] for index in range(20)]
        assert stage.host.end(job) is EndReason.LENGTH


async def test_an_iteration_is_one_call_with_every_sequence_in_it(on_stage):
    async with on_stage(sim()) as stage:
        calls: list[int] = []
        hear = stage.host.deliver

        def listen(outputs: Sequence[Output]) -> None:
            calls.append(len(outputs))
            hear(outputs)

        stage.host.deliver = listen
        jobs = [await stage.job(PROMPT, 20, ignore_eos=True) for _ in range(8)]
        await asyncio.gather(*(stage.host.ended(job) for job in jobs))
        assert calls == [8] * 20


async def test_a_resumed_answer_goes_on_with_the_same_words(on_stage):
    async with on_stage(sim()) as stage:
        job = await stage.done(PROMPT, 20, resume=pb.Resume(from_index=7), ignore_eos=True)
        assert stage.host.text(job) == expected(PROMPT, 20, start=7)


async def test_choices_say_words_of_their_own(on_stage):
    async with on_stage(sim()) as stage:
        job = await stage.done(PROMPT, 20, choices=2, ignore_eos=True)
        assert [stage.host.text(job, c) for c in (0, 1)] == [expected(PROMPT, 20, c) for c in (0, 1)]


@pytest.mark.parametrize(("least", "most", "said"), [(300, 1000, 300), (3, 1000, 3), (300, 200, 200)])
async def test_an_answer_that_is_to_have_so_many_tokens_at_least_ends_right_there(
    on_stage, least: int, most: int, said: int
):
    async with on_stage(sim()) as stage:
        job = await stage.done(PROMPT, most, min_tokens=least, max_tokens_stated=True)
        assert stage.host.text(job) == expected(PROMPT, said)
        assert stage.host.end(job) is (EndReason.LENGTH if said == most else EndReason.STOP)


async def test_a_cancelled_job_ends_and_its_blocks_are_free(on_stage):
    async with on_stage(sim(time_scale=1.0)) as stage:
        job = await stage.job(PROMPT, 10_000, ignore_eos=True)
        await stage.host.until(lambda: stage.host.text(job))
        assert (stage.engine.observed_blocks(), stage.engine.slots_now()) == (1, 1)
        stage.engine.cancel(job.claim)
        assert await stage.host.ended(job) is EndReason.CANCELLED
        assert (stage.engine.observed_blocks(), stage.engine.slots_now()) == (0, 0)


async def test_at_its_limit_a_job_waits_while_its_neighbour_goes_on_and_behind_a_higher_one_it_goes_on(
    on_stage,
):
    async with on_stage(sim()) as stage:
        (facts,) = await stage.host.until(lambda: stage.host.facts)
        assert (facts.can_grow, facts.can_pause) == (True, True)
        read = (await stage.engine.count("m", PROMPT)).tokens
        job = await stage.job(PROMPT, 300, limit=read + 20, ignore_eos=True)
        await stage.done(PROMPT, 500, ignore_eos=True)
        assert stage.host.tokens(job) == 20
        assert stage.engine.slots_now() == 1
        stage.engine.limit(job.claim, read + 64)
        await stage.host.until(lambda: stage.host.tokens(job) == 64)
        stage.engine.limit(job.claim, 0)
        assert await stage.host.ended(job) is EndReason.LENGTH
        assert stage.host.text(job) == expected(PROMPT, 300)


async def test_a_job_that_waits_at_its_limit_leaves_when_it_is_cancelled(on_stage):
    async with on_stage(sim()) as stage:
        job = await stage.job(PROMPT, 300, limit=(await stage.engine.count("m", PROMPT)).tokens + 9)
        await stage.host.until(lambda: stage.host.tokens(job) == 9)
        stage.engine.cancel(job.claim)
        assert await stage.host.ended(job) is EndReason.CANCELLED
        assert (stage.host.tokens(job), stage.engine.observed_blocks()) == (9, 0)


async def test_a_job_that_can_never_run_fails_with_the_numbers(on_stage):
    async with on_stage(sim(capacity_blocks=4)) as stage:
        job = await stage.done(PROMPT, 1000)
        assert stage.host.end(job) is EndReason.FAILED
        assert "needs 32 KV blocks" in stage.host.problem(job).message


async def test_a_stop_string_ends_an_answer_before_itself(on_stage):
    async with on_stage(sim()) as stage:
        third = token(digest_of(PROMPT), 0, 2)[1]
        job = await stage.done(PROMPT, 20, ignore_eos=True, stop=[third])
        assert (stage.host.text(job), stage.host.end(job)) == (expected(PROMPT, 2), EndReason.STOP)


async def test_real_time_is_simulated_time_over_the_scale(on_stage):
    async with on_stage(sim(time_scale=10.0)) as stage:
        now = asyncio.get_running_loop().time
        started = now()
        await stage.done(PROMPT, 420, ignore_eos=True)
        # 420 tokens at about 215 a second: nearly two simulated seconds, whatever single wake-ups cost.
        assert 0.17 < now() - started < 1.0


async def test_a_loop_that_was_held_up_makes_nothing_slower(on_stage):
    async with on_stage(sim(time_scale=4.0)) as stage:
        now = asyncio.get_running_loop().time
        started = now()
        job = await stage.job(PROMPT, 420, ignore_eos=True)
        await stage.host.until(lambda: stage.host.text(job))
        while now() - started < 0.45:
            pass  # somebody holds the loop for nearly all the half second that it takes
        await stage.host.ended(job)
        assert 0.45 < now() - started < 0.8


@pytest.mark.parametrize(
    "prompt",
    [
        pb.Prompt(text="to be or not to be"),
        pb.Prompt(chat=pb.Chat(messages=b'[{"role":"user","content":"hi"}]')),
        pb.Prompt(chat=pb.Chat(messages=b'[{"role":"user","content":"hi"}]', tools=b"[]")),
        pb.Prompt(ids=pb.TokenIds(ids=[1, 2, 3])),
    ],
)
async def test_its_bound_is_its_count_and_each_prompt_has_its_own_answer(prompt: pb.Prompt):
    engine = sim()
    counted = await engine.count("m", prompt)
    assert counted.exact
    assert counted.tokens == bound_tokens(prompt, engine.bounds["m"])
    assert digest_of(prompt) != digest_of(PROMPT)


@pytest.mark.parametrize(
    ("bent", "message"),
    [
        ({"calibration": "measured"}, "unknown calibration 'measured'.*Mend: calibration: chapter"),
        ({"time_scale": 0.0}, "time_scale is 0. Mend: more than 0"),
        ({"profile": "llama-3.3-70b"}, "unknown model 'llama-3.3-70b'; known: .* Mend: profile: qwen2.5-72b"),
        ({"draft_tokens": 5}, "pattern A does not speculate. Mend: pattern: D, or no draft"),
        ({"pattern": Pattern.D, "draft_model": "qwen2.5-72b"}, "drafts with qwen2.5-7b, not qwen2.5-72b"),
        ({"pattern": Pattern.B, "weights": "bf16"}, "does not fit into one die of b200's 95.8 GB: weights"),
    ],
)
def test_settings_that_no_calibration_covers_are_refused_with_the_mend(bent: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        sim(**bent)
