"""A prompt's tokens before anybody tokenised it: a bound from three figures."""

import json

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.counting import bound_tokens
from diplex.wire.status import Problem

BOUND = pb.CountBound(bytes_per_token=4, tokens_per_message=4, tokens_per_chat=3)


def chat(*contents: str, tools: bytes = b"") -> pb.Prompt:
    messages = [{"role": "user", "content": content} for content in contents]
    text = json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
    return pb.Prompt(chat=pb.Chat(messages=text.encode(), tools=tools))


@pytest.mark.parametrize(
    ("text", "tokens"), [("a", 1), ("abcd", 1), ("abcde", 2), ("é", 1), ("éééé", 2), ("日本", 2)]
)
def test_a_text_is_bound_by_its_bytes_rounded_up(text: str, tokens: int):
    assert bound_tokens(pb.Prompt(text=text), BOUND) == tokens


def test_token_ids_are_counted():
    assert bound_tokens(pb.Prompt(ids=pb.TokenIds(ids=[5, 6, 7])), BOUND) == 3


def test_a_chat_is_its_bytes_and_so_much_for_each_message_and_for_itself():
    one = chat("hi")
    assert bound_tokens(one, BOUND) == -(-len(one.chat.messages) // 4) + 4 + 3
    two = chat("hi", "there")
    assert bound_tokens(two, BOUND) == -(-len(two.chat.messages) // 4) + 2 * 4 + 3


def test_tools_are_read_too():
    assert bound_tokens(chat("hi", tools=b"x" * 400), BOUND) == bound_tokens(chat("hi"), BOUND) + 100


def test_fractions_round_up():
    figures = pb.CountBound(bytes_per_token=3.5, tokens_per_message=1.5, tokens_per_chat=0.2)
    prompt = chat("hi")
    assert bound_tokens(prompt, figures) == -(-len(prompt.chat.messages) * 2 // 7) + 2


def test_without_figures_each_byte_counts_as_a_token():
    assert bound_tokens(pb.Prompt(text="abcd"), pb.CountBound()) == 4


@pytest.mark.parametrize(
    "prompt",
    [
        pb.Prompt(),
        pb.Prompt(ids=pb.TokenIds()),
        pb.Prompt(chat=pb.Chat(messages=b"[]")),
        pb.Prompt(chat=pb.Chat(messages=b"{}")),
        pb.Prompt(chat=pb.Chat(messages=b"not json")),
        pb.Prompt(chat=pb.Chat(messages=b"\xff")),
    ],
    ids=["nothing", "no ids", "no messages", "an object", "no JSON", "no UTF-8"],
)
def test_a_prompt_that_is_none_is_an_invalid_argument(prompt: pb.Prompt):
    with pytest.raises(Problem) as raised:
        bound_tokens(prompt, BOUND)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    assert raised.value.field
