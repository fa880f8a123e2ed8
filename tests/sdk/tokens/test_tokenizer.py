"""Prompts read with Qwen's own tokenizer and template."""

import json
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Loaded
from tokenizers import processors

from diplex.tokens import sources
from diplex.tokens.pieces import Pieces
from diplex.tokens.template import Unrenderable
from diplex.tokens.tokenizer import Tokenizer
from diplex.v1 import generation_pb2 as pb
from diplex.wire.blocks import block_hashes

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "w",
            "description": "Wetter für <b>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLING = [
    {"role": "user", "content": "What is the weather in Paris?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Paris"}'}}
        ],
    },
    {"role": "tool", "content": "sun"},
]


def chat(messages: list[dict[str, Any]], tools: list[Any] | None = None) -> pb.Prompt:
    written = json.dumps(tools).encode() if tools else b""
    return pb.Prompt(chat=pb.Chat(messages=json.dumps(messages).encode(), tools=written))


# What transformers 5.24's AutoTokenizer says of the same files (`encode`, `apply_chat_template`).
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("To be, or not to be", [1249, 387, 11, 476, 537, 311, 387]),
        ("<|im_start|>user\n", [151644, 872, 198]),
        ("日本語", [101059, 102819]),
    ],
)
def test_a_text_has_the_ids_that_transformers_gives_it(qwen3: Tokenizer, text: str, ids: list[int]):
    assert list(qwen3.ids_of(pb.Prompt(text=text))) == ids


@pytest.mark.parametrize(
    ("messages", "tools", "tokens"),
    [
        ([{"role": "user", "content": "Hello"}], None, 9),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], None, 17),
        (CALLING, TOOLS, 178),
    ],
    ids=["a question", "a system message", "tools, a call and its answer"],
)
def test_a_chat_has_as_many_tokens_as_transformers_counts(
    qwen3: Tokenizer, messages: list[dict[str, Any]], tools: list[Any] | None, tokens: int
):
    assert len(qwen3.ids_of(chat(messages, tools))) == tokens


def test_a_chat_is_written_as_qwens_published_template_says(qwen3: Tokenizer):
    written = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert list(qwen3.ids_of(chat(messages))) == list(qwen3.ids_of(pb.Prompt(text=written)))


def test_qwen25_reads_thinking_as_the_text_that_it_is():
    source = sources.known("qwen2.5-7b")
    assert source is not None
    ids = Tokenizer(source).ids_of(pb.Prompt(text="<think>"))
    assert len(ids) == 3


def test_token_ids_are_taken_as_they_are(qwen3: Tokenizer):
    assert list(qwen3.ids_of(pb.Prompt(ids=pb.TokenIds(ids=[5, 6])))) == [5, 6]


def test_without_a_template_a_chat_cannot_be_read(folder: Callable[..., Path]):
    tokenizer = Tokenizer(sources.given("m", folder()))
    with pytest.raises(Unrenderable, match="no chat template"):
        tokenizer.ids_of(chat([{"role": "user", "content": "to be"}]))


def test_what_a_model_wants_before_a_text_is_counted_there_and_not_in_a_chat(folder: Callable[..., Path]):
    place = folder("{{ messages[0].content }}")
    loaded = Loaded.from_file(str(place / "tokenizer.json"))
    loaded.add_special_tokens(["<s>"])
    loaded.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", loaded.token_to_id("<s>"))]
    )
    loaded.save(str(place / "tokenizer.json"))
    tokenizer = Tokenizer(sources.given("m", place))
    assert len(tokenizer.ids_of(pb.Prompt(text="to be"))) == 3
    assert len(tokenizer.ids_of(chat([{"role": "user", "content": "to be"}]))) == 2


def test_a_file_that_is_no_tokenizer_is_said_to_be_none(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"Exception|missing"):
        Tokenizer(sources.given("m", tmp_path))


def test_a_name_stands_for_a_vocabulary(qwen3: Tokenizer, folder: Callable[..., Path]):
    one, same = (Tokenizer(sources.given("m", folder())) for _ in range(2))
    other = Tokenizer(sources.given("m", folder(words=("be", "to"))))
    assert one.hash() == same.hash() != other.hash()
    assert qwen3.hash() == "39cf2606c727955e"


def test_the_next_turn_of_a_chat_begins_with_the_blocks_of_the_last(qwen3: Tokenizer):
    turns = [{"role": "user", "content": "word " * 100}]
    first = block_hashes(qwen3.ids_of(chat(turns)), 16, "qwen3-8b")
    turns += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}]
    second = block_hashes(qwen3.ids_of(chat(turns)), 16, "qwen3-8b")
    assert len(first) > 5
    # What differs is where the answer begins.
    assert second[: len(first) - 1] == first[:-1]


def test_a_long_text_does_not_keep_the_interpreter_to_itself(qwen3: Tokenizer):
    """Another thread, and so the event loop, gets its turn while it is read."""
    reading, had_its_turn = threading.Event(), threading.Event()

    def take_a_turn() -> None:
        reading.wait()
        had_its_turn.set()

    other = threading.Thread(target=take_a_turn)
    other.start()
    text = "".join(random.Random(7).choices("abcdefgh \n", k=100_000))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)  # nobody is made to give way: only who lets go by itself does
    try:
        reading.set()
        qwen3.ids_of(pb.Prompt(text=text))
        assert had_its_turn.is_set()
    finally:
        sys.setswitchinterval(interval)
        other.join()


# Piece by piece.


def random_text(draw: random.Random) -> str:
    words = [
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "\n",
        " ",
        "  ",
        "user",
        "é",
        "日本",
        "'ll",
        "1234",
        "<|im",
        "\u0301",
    ]
    return "".join(draw.choices(words, k=40))


@pytest.mark.parametrize("seed", range(50))
def test_pieces_together_have_the_ids_of_the_whole(qwen3: Tokenizer, seed: int):
    text = random_text(random.Random(seed))
    whole = qwen3._loaded.encode(text, add_special_tokens=False).ids
    assert list(Pieces(qwen3._loaded).ids_of(text)) == whole
    assert list(Pieces(qwen3._loaded, most_bytes=0).ids_of(text)) == whole


class Noting:
    """A tokenizer that writes down what it was asked to read."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.read: list[str] = []

    def encode_batch_fast(self, texts: list[str], **more: Any) -> Any:
        self.read += texts
        return self._tokenizer.encode_batch_fast(texts, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_what_was_read_before_is_not_read_again(qwen3: Tokenizer):
    noting = Noting(qwen3._loaded)
    pieces = Pieces(noting)  # type: ignore[arg-type]
    pieces.ids_of("<|im_start|>one<|im_end|>\n<|im_start|>two")
    noting.read.clear()
    pieces.ids_of("<|im_start|>one<|im_end|>\n<|im_start|>two<|im_end|>three")
    assert noting.read == ["three"]


def test_memory_for_pieces_is_bounded_and_what_was_used_least_lately_goes_first(qwen3: Tokenizer):
    noting = Noting(qwen3._loaded)
    pieces = Pieces(noting, most_bytes=250)  # type: ignore[arg-type]
    for text in ("a" * 64, "b" * 64, "a" * 64, "c" * 64):
        pieces.ids_of(text)
    noting.read.clear()
    pieces.ids_of("a" * 64)
    assert noting.read == []
    pieces.ids_of("b" * 64)
    assert noting.read == ["b" * 64]
    assert pieces._size <= 250


def test_where_a_texts_start_is_read_differently_it_is_read_whole(folder: Callable[..., Path]):
    from tokenizers import pre_tokenizers

    loaded = Loaded.from_file(str(folder() / "tokenizer.json"))
    loaded.add_special_tokens(["<s>"])
    loaded.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    noting = Noting(loaded)
    Pieces(noting).ids_of("to be<s>or not")  # type: ignore[arg-type]
    assert noting.read == ["to be<s>or not"]
