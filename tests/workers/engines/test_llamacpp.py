"""llama.cpp for real, with SmolLM2: exact counts and ids, freed slots, the same words again, its falls."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tokenizers import Tokenizer as Maker
from tokenizers import models, pre_tokenizers

from diplex.tokens.sources import given
from diplex.tokens.tokenizer import Tokenizer
from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_core.words import EndReason
from diplex_workers.engines.engine import Counted
from diplex_workers.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from diplex_workers.engines.llamacpp_questions import Questions
from diplex_workers.launch import weights
from diplex_workers.launch.gguf import metadata

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = LlamaCppSettings(model="m", context=256, slots=3)
STORY = "Once upon a time there was a fox who"


def chat(*messages: Any, **more) -> pb.Prompt:
    turns = [{"role": "user", "content": text, **more} for text in messages]
    return pb.Prompt(chat=pb.Chat(messages=json.dumps(turns).encode()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(on_stage) -> AsyncIterator:
    async with on_stage(LlamaCppEngine(SETTINGS)) as stage:
        await stage.host.until(lambda: stage.host.facts, within=60)
        yield stage


async def idle(stage) -> bool:
    return not await questions(stage).busy_slots()


def questions(stage) -> Questions:
    return Questions(stage.engine._upstream)


async def test_it_says_what_it_is(stage):
    facts = stage.host.facts[0]
    assert (facts.kind, facts.context, facts.capacity_slots) == ("llamacpp", 256, 3)
    assert facts.capacity_blocks * facts.block_tokens == 3 * 256
    assert facts.can_resume and not facts.simulated and facts.version
    assert [(model.name, model.has_chat_template) for model in facts.models] == [("m", True)]


async def test_a_count_is_exact_and_brings_the_ids(stage):
    text = await stage.engine.count("m", pb.Prompt(text="Hello world"))
    ids = await stage.engine.count("m", pb.Prompt(ids=pb.TokenIds(ids=[19556, 905])))
    assert text == ids == Counted(2, ids=(19556, 905))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """SmolLM2's tokenizer.json and template, made of what its .gguf says; its rules are smollm's."""
    words = metadata(weights.find("smollm2"))
    tokens = words["tokenizer.ggml.tokens"]
    made = Maker(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in words["tokenizer.ggml.merges"]],
        )
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    kinds = words["tokenizer.ggml.token_type"]
    made.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == 3])
    folder = tmp_path_factory.mktemp("smollm2")
    made.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(words["tokenizer.chat_template"])
    return Tokenizer(given("m", folder))


async def test_it_tells_its_tokenizers_name_as_a_client_finds_it(stage, tokenizer):
    (model,) = stage.host.facts[0].models
    assert model.tokenizer_hash == tokenizer.hash() == "e89a161540ab4c25"


@pytest.mark.parametrize(
    "prompt",
    [
        pb.Prompt(text="It's 1234 o'clock,\n\n\tand  naïve 日本語 \u0301 <|im_end|>."),
        chat("Hi", "What is 3.14159?", "\n \n"),
        chat([{"type": "text", "text": "One part,"}, {"type": "text", "text": "and another."}]),
    ],
    ids=["a text", "a chat", "text parts"],
)
async def test_a_client_with_its_tokenizer_reads_a_prompt_exactly_as_it_does(stage, tokenizer, prompt):
    counted = await stage.engine.count("m", prompt)
    assert counted.ids == tuple(tokenizer.ids_of(prompt))


async def test_a_chat_is_counted_with_its_template(stage):
    counted = await stage.engine.count("m", chat("Hi"))
    rendered = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert counted == await stage.engine.count("m", pb.Prompt(text=rendered))


@pytest.mark.parametrize(
    "prompt",
    [
        pb.Prompt(),
        pb.Prompt(text=""),
        pb.Prompt(chat=pb.Chat(messages=b"[]")),
        pb.Prompt(chat=pb.Chat(messages=b"{")),
        pb.Prompt(chat=pb.Chat(messages=b'[{"role": "user"}]')),
        pb.Prompt(
            chat=pb.Chat(
                messages=b'[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]'
            )
        ),
    ],
    ids=["none", "empty", "no messages", "no JSON", "no content", "an image"],
)
async def test_a_prompt_that_it_cannot_read_is_an_invalid_argument(stage, prompt):
    with pytest.raises(Problem) as caught:
        await stage.engine.count("m", prompt)
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.message


async def test_every_token_has_its_id_and_together_they_are_the_text(stage):
    job = await stage.done(STORY, 12, temperature=0)
    assert stage.host.end(job) is EndReason.LENGTH
    assert stage.host.tokens(job) == len(stage.host.ids(job)) == 12
    assert await questions(stage).text_of(stage.host.ids(job)) == stage.host.text(job)
    assert job.claim in stage.host.reading


async def test_the_same_prompt_gets_the_same_words_when_greedy(stage):
    one, two = [await stage.done(STORY, 12, temperature=0) for _ in range(2)]
    assert stage.host.ids(one) == stage.host.ids(two)


async def test_a_seed_settles_the_sampling(stage):
    one, two, three = [await stage.done(STORY, 12, temperature=1.5, seed=seed) for seed in (7, 7, 2**63 + 1)]
    assert stage.host.ids(one) == stage.host.ids(two) != stage.host.ids(three)


async def test_an_answer_that_the_model_ends_stops_and_its_last_token_counts(stage):
    job = await stage.done(chat("Say hi."), 80, temperature=0)
    assert stage.host.end(job) is EndReason.STOP
    assert stage.host.tokens(job) == len(stage.host.ids(job)) < 80
    assert stage.host.ids(job)[-1] == 2  # <|im_end|>
    assert "<|" not in stage.host.text(job)


async def test_ignore_eos_goes_on_to_the_limit(stage):
    job = await stage.done(chat("Say hi."), 48, temperature=0, ignore_eos=True)
    assert (stage.host.end(job), stage.host.tokens(job)) == (EndReason.LENGTH, 48)


async def test_a_stop_string_ends_the_text_before_it(stage):
    free = await stage.done(STORY, 12, temperature=0)
    words = stage.host.text(free).split()
    job = await stage.done(STORY, 12, temperature=0, stop=[f"{words[4]} {words[5]}"])
    assert stage.host.end(job) is EndReason.STOP
    assert stage.host.text(job).split() == words[:4]


async def test_text_held_back_for_a_stop_string_is_not_lost_at_the_limit(stage):
    free = await stage.done(STORY, 12, temperature=0)
    text = stage.host.text(free)
    job = await stage.done(STORY, 12, temperature=0, stop=[text[-4:] + "never said"])
    assert stage.host.problem(job) is None
    assert (stage.host.end(job), stage.host.text(job)) == (EndReason.LENGTH, text)
    assert stage.host.tokens(job) == len(stage.host.ids(job)) == 12


async def test_characters_of_several_tokens_come_whole_and_with_all_their_ids(stage):
    ask = "<|im_start|>user\nRepeat: 😀🤖漢字🦄<|im_end|>\n<|im_start|>assistant\n😀🤖漢字🦄 😀🤖漢"
    job = await stage.done(ask, 14, temperature=0)
    outputs = stage.host.of(job)
    assert any(out.count > 1 for out in outputs), "no long character was produced"
    assert all(len(out.ids) == out.count for out in outputs if out.text)
    assert "�" not in stage.host.text(job)


@pytest.mark.parametrize("from_index", [1, 5, 11])
@pytest.mark.parametrize("by", ["ids", "text"])
async def test_a_resumed_sequence_goes_on_with_the_same_greedy_text(stage, from_index, by):
    whole = await stage.done(STORY, 12, temperature=0)
    ids, outputs = stage.host.ids(whole), stage.host.of(whole)[:from_index]
    assert all(out.count == 1 for out in outputs)
    text = "".join(out.text for out in outputs)
    resume = pb.Resume(from_index=from_index, text=text, ids=ids[:from_index] if by == "ids" else ())
    rest = await stage.done(STORY, 12, temperature=0, resume=resume)
    assert stage.host.ids(rest) == ids[from_index:]
    assert text + stage.host.text(rest) == stage.host.text(whole)


async def test_a_job_that_had_produced_everything_ends_at_once(stage):
    job = await stage.done(STORY, 3, resume=pb.Resume(from_index=3, ids=[1, 2, 3]))
    assert (stage.host.end(job), stage.host.tokens(job)) == (EndReason.LENGTH, 0)


async def test_choices_share_a_prompt_and_count_each_for_itself(stage):
    job = await stage.done(STORY, 6, choices=3, temperature=1.5, seed=3)
    assert [stage.host.tokens(job, choice) for choice in range(3)] == [6, 6, 6]
    assert [stage.host.end(job, choice) for choice in range(3)] == [EndReason.LENGTH] * 3
    assert len({stage.host.text(job, choice) for choice in range(3)}) > 1


async def test_an_answer_keeps_to_a_json_schema(stage):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    job = await stage.done(
        chat("Give me a number as JSON."), 60, temperature=0, response_format=json.dumps(wanted).encode()
    )
    assert isinstance(json.loads(stage.host.text(job))["n"], int)


async def test_a_logit_bias_moves_the_choice(stage):
    job = await stage.done(STORY, 3, temperature=0, logit_bias={"504": 100.0})
    assert stage.host.ids(job) == [504, 504, 504]


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"min_tokens": 4}, "min_tokens"),
        ({"logit_bias": {"the": 1.0}}, "logit_bias"),
        ({"response_format": b'{"type": "xml"}'}, "response_format"),
        ({"response_format": b"{"}, "response_format"),
    ],
)
async def test_sampling_that_it_has_no_word_for_fails_naming_the_field(stage, sampling, field):
    job = await stage.done(STORY, 3, **sampling)
    problem = stage.host.problem(job)
    assert stage.host.end(job) is EndReason.FAILED
    assert (problem.code.name, problem.field) == ("INVALID_ARGUMENT", field)


async def test_what_is_longer_than_a_slot_fails_in_llama_cpps_own_words(stage):
    job = await stage.done(STORY * 80, 3)
    assert stage.host.end(job) is EndReason.FAILED
    assert "exceeds the available context size" in stage.host.problem(job).message


async def test_a_prompt_may_fill_the_slot_to_the_last_token(stage):
    ids = [504] * 252
    job = await stage.done(pb.Prompt(ids=pb.TokenIds(ids=ids)), 4, temperature=0, ignore_eos=True)
    assert (stage.host.end(job), stage.host.tokens(job)) == (EndReason.LENGTH, 4)


async def test_a_cancelled_stream_frees_its_slot_within_a_second(stage):
    job = await stage.job(STORY, 200, ignore_eos=True)
    await stage.host.until(lambda: stage.host.tokens(job) > 3)
    stage.engine.cancel(job.claim)
    async with asyncio.timeout(1):
        assert await stage.host.ended(job) is EndReason.CANCELLED
    assert await idle(stage)


async def test_a_cancel_while_the_prompt_is_read_frees_its_slot_too(stage):
    job = await stage.job(STORY * 20, 40)
    await stage.host.until(lambda: job.claim in stage.host.reading)
    stage.engine.cancel(job.claim)
    assert await stage.host.ended(job) is EndReason.CANCELLED
    assert stage.host.tokens(job) == 0
    assert await idle(stage)


async def test_a_cancel_before_anything_was_sent_ends_the_job_once(stage):
    job = await stage.job(STORY, 40)
    stage.engine.cancel(job.claim)
    stage.engine.cancel(job.claim)
    assert await stage.host.ended(job) is EndReason.CANCELLED
    assert len(stage.host.of(job)) == 1


async def test_neighbours_of_a_cancelled_job_go_on(stage):
    leaver = await stage.job(STORY, 200, ignore_eos=True)
    stayer = await stage.job(STORY, 30, ignore_eos=True, temperature=0)
    await stage.host.until(lambda: stage.host.tokens(leaver) and stage.host.tokens(stayer))
    stage.engine.cancel(leaver.claim)
    assert await stage.host.ended(stayer) is EndReason.LENGTH
    assert stage.host.tokens(stayer) == 30


async def test_gauges_tell_the_slots_and_blocks_at_work(stage, eventually):
    job = await stage.job(STORY, 220, ignore_eos=True)

    await eventually(lambda: stage.engine.slots_now() == 1 and stage.engine.observed_blocks(), within=5)
    stage.engine.cancel(job.claim)
    await stage.host.ended(job)


async def test_a_child_that_is_killed_fails_its_jobs_and_comes_back(on_stage):
    async with on_stage(LlamaCppEngine(SETTINGS)) as stage:
        host = stage.host
        await host.until(lambda: host.facts, within=60)
        job = await stage.job(STORY, 200, ignore_eos=True)
        await host.until(lambda: host.tokens(job))
        os.kill(stage.engine.child_pid, signal.SIGKILL)
        await host.until(lambda: host.reasons)
        assert host.reasons == ["llama.cpp was killed by signal 9"]
        assert host.end(job) is EndReason.FAILED, "its jobs are told before it is unready"
        assert host.problem(job).code.name == "UNAVAILABLE"
        await host.until(lambda: len(host.facts) == 2, within=60)
        again = await stage.done(STORY, 3)
        assert host.tokens(again) == 3
