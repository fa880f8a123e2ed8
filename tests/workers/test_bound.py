"""The bound that clients without a tokenizer are charged: never long below a prompt's true count."""

import json
from math import ceil

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.counting import bound_tokens
from diplex_workers.bound import LearnedBound


def text(size: int) -> pb.Prompt:
    return pb.Prompt(text="x" * size)


def chat(size: int, messages: int = 1) -> pb.Prompt:
    words = [{"role": "user", "content": "x" * size} for _ in range(messages)]
    return pb.Prompt(chat=pb.Chat(messages=json.dumps(words).encode()))


def test_it_starts_with_three_bytes_a_token_and_what_a_template_may_add():
    bound = LearnedBound()
    assert bound_tokens(text(300), bound.figures) == 100
    prompt = chat(300)
    assert bound_tokens(prompt, bound.figures) == ceil(len(prompt.chat.messages) / 3) + 8 + 16


def test_it_follows_its_engine_until_it_has_counted_itself():
    bound = LearnedBound()
    for bytes_per_token in (4, 2):
        bound.follow(pb.CountBound(bytes_per_token=bytes_per_token))
        assert bound_tokens(text(400), bound.figures) == 400 / bytes_per_token
    bound.learn(text(400), 200)
    bound.follow(pb.CountBound(bytes_per_token=4))
    assert bound_tokens(text(400), bound.figures) == 200


@pytest.mark.parametrize("prompt", [text(3000), chat(3000), chat(600, messages=5), chat(3)])
@pytest.mark.parametrize("excess", [1, 50, 2000])
def test_a_prompt_above_the_bound_is_never_above_it_again(prompt: pb.Prompt, excess: int):
    bound = LearnedBound()
    tokens = min(bound_tokens(prompt, bound.figures) + excess, 3 * prompt.ByteSize())
    bound.learn(prompt, tokens)
    assert bound_tokens(prompt, bound.figures) >= tokens


def test_a_short_chats_excess_is_its_templates_and_leaves_long_prompts_cheap():
    bound = LearnedBound()
    bound.learn(chat(10), 60)
    assert bound.figures.bytes_per_token == 3.0
    assert bound.figures.tokens_per_chat > 16


def test_a_short_text_makes_no_long_one_dearer():
    bound = LearnedBound()
    bound.learn(text(4), 4)
    assert bound_tokens(text(3000), bound.figures) == 1000


def test_cheap_prompts_lower_the_charge_slowly_and_never_below_themselves():
    bound = LearnedBound()
    for _ in range(500):
        bound.learn(text(4500), 1000)
    assert 1000 < bound_tokens(text(4500), bound.figures) < 1200


def test_one_dear_prompt_counts_at_once():
    bound = LearnedBound()
    for _ in range(100):
        bound.learn(text(4500), 1000)
    bound.learn(text(1000), 900)
    assert bound_tokens(text(1000), bound.figures) >= 900


def test_token_ids_teach_nothing():
    bound = LearnedBound()
    before = bound.figures.SerializeToString()
    bound.learn(pb.Prompt(ids=pb.TokenIds(ids=[1, 2])), 2)
    assert bound.figures.SerializeToString() == before
