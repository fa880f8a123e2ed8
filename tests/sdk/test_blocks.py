"""Block hashes: equal prefixes, equal hashes, and the same in every language."""

import hashlib
import struct

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.blocks import block_hashes, hashes_of_bytes
from diplex.wire.prompt_count import count_without_tokenizer
from diplex.wire.simulated import FIGURES, count_simulated, hash_simulated

KNOWN = ["714e6cc592ae9a87", "2ab5af2c118938b0"]
SIM = pb.Model(name="m", tokenizer_hash="sim", bound=FIGURES, block_tokens=4)
REAL = pb.Model(name="m", bound=pb.CountBound(bytes_per_token=3), block_tokens=4)


def by_the_book(ids: list[int], size: int, model: str) -> list[int]:
    """The definition, written down again from the module's first page."""
    before = hashlib.sha256(model.encode()).digest()[:8]
    hashes = []
    for at in range(0, len(ids) // size * size, size):
        block = struct.pack(f"<{size}I", *ids[at : at + size])
        before = hashlib.sha256(before + block).digest()[:8]
        hashes.append(struct.unpack("<Q", before)[0])
    return hashes


def test_the_hashes_are_those_of_the_definition():
    ids = [0, 1, 151_643, 2**32 - 1, 5, 6, 7, 8, 9]
    assert list(block_hashes(ids, 2, "qwen3-8b")) == by_the_book(ids, 2, "qwen3-8b")


def test_known_answers_for_whoever_writes_it_in_another_language():
    assert [f"{name:016x}" for name in block_hashes(range(8), 4, "m")] == KNOWN


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2)])
def test_only_whole_blocks_have_hashes(tokens: int, blocks: int):
    assert len(block_hashes(range(tokens), 4, "m")) == blocks


def test_equal_prefixes_have_equal_hashes_up_to_where_they_differ():
    one = block_hashes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 4, "m")
    two = block_hashes([1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12], 4, "m")
    assert one[0] == two[0]
    assert not {*one[1:]} & {*two[1:]}, "a block stands for all that comes before it"


def test_another_model_has_other_blocks_for_the_same_ids():
    assert not {*block_hashes(range(64), 4, "m")} & {*block_hashes(range(64), 4, "n")}


def test_without_a_block_size_nothing_is_hashed():
    assert block_hashes(range(64), 0, "m") == ()


def test_a_simulated_text_is_hashed_four_bytes_a_token():
    text = "to be or not to be"
    ids = list(struct.unpack("<4I", text.encode()[:16]))
    assert hash_simulated(pb.Prompt(text=text), 4, "m") == block_hashes(ids, 4, "m")
    assert count_simulated(pb.Prompt(text=text)) == 5


def test_two_turns_of_a_simulated_chat_share_the_first():
    first = b'[{"role":"user","content":"' + b"x" * 100 + b'"}'
    one = pb.Prompt(chat=pb.Chat(messages=first + b"]"))
    two = pb.Prompt(chat=pb.Chat(messages=first + b',{"role":"user","content":"more"}]'))
    shared = len(first) // 16
    assert hash_simulated(one, 4, "m")[:shared] == hash_simulated(two, 4, "m")[:shared]


def test_tools_come_first_in_a_simulated_chat():
    bare = pb.Prompt(chat=pb.Chat(messages=b'[{"role":"user","content":"hi"}]'))
    with_tools = pb.Prompt(chat=pb.Chat(messages=bare.chat.messages, tools=b"[" + b" " * 30 + b"]"))
    assert hash_simulated(with_tools, 4, "m")[0] == hashes_of_bytes(with_tools.chat.tools, 4, "m")[0]


def test_a_simulated_models_bound_is_its_count():
    count = count_without_tokenizer(pb.Prompt(text="x" * 64), SIM)
    assert (count.tokens, count.exact, len(count.block_hashes), count.hash_block_tokens) == (16, True, 4, 4)


def test_token_ids_are_a_count_and_have_hashes_whatever_the_model():
    count = count_without_tokenizer(pb.Prompt(ids=pb.TokenIds(ids=range(9))), REAL)
    assert (count.tokens, count.exact) == (9, True)
    assert count.block_hashes == block_hashes(range(9), 4, "m")


def test_a_text_for_a_real_model_is_bounded_and_has_no_hashes():
    count = count_without_tokenizer(pb.Prompt(text="x" * 64), REAL)
    assert (count.tokens, count.exact, count.block_hashes, count.hash_block_tokens) == (22, False, (), 0)
