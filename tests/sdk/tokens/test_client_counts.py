"""What the client asks for when it has a tokenizer, and what it believes when a worker counts differently.

Router and worker are scripted (tests/sdk/conftest.py); the model `m` knows a few words (conftest.py here).
"""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import diplex
from diplex.tokens import counter as counting
from diplex.tokens.tokenizer import Tokenizer
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.blocks import block_hashes
from diplex.wire.simulated import FIGURES, hash_simulated

BOUND = pb.CountBound(bytes_per_token=1)
TEMPLATE = "{% for m in messages %}user : {{ m.content }} {% endfor %}assistant :"
Open = Callable[..., Any]


@asynccontextmanager
async def counting_client(router: Any, **more: Any) -> AsyncIterator[diplex.AsyncClient]:
    """Open, with the list of models and the tokenizers that it names."""
    async with diplex.AsyncClient(router.address, **more) as client:
        await client.wait_ready(5.0)
        await client._counter.settled()
        yield client


@pytest.fixture
def model(router: Any) -> pb.Model:
    """The model that the router lists; a test may change it before it opens a client."""
    model = pb.Model(name="m", has_chat_template=True, bound=BOUND, workers=1, block_tokens=2)
    router.models = [model]
    return model


async def ask_for(router: Any, client: diplex.AsyncClient, prompt: str | None = None, **options: Any) -> Any:
    """The ask that a prompt leads to."""
    desk = await router.desk()
    async with asyncio.TaskGroup() as tasks:
        request = tasks.create_task(client.generate(prompt, **options))
        ask = await desk.hears()
        request.cancel()
    return ask


async def test_a_text_is_counted_and_its_blocks_hashed(router: Any, model: pb.Model, folder: Open) -> None:
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        ask = await ask_for(router, client, "to be or not to be")
    assert (ask.prompt_tokens, ask.exact, ask.hash_block_tokens) == (6, True, 2)
    assert tuple(ask.block_hashes) == block_hashes([1, 2, 3, 4, 1, 2], 2, "m")


async def test_a_chat_is_counted_with_its_template(router: Any, model: pb.Model, folder: Open) -> None:
    async with counting_client(router, tokenizers={"m": folder(TEMPLATE)}) as client:
        ask = await ask_for(router, client, messages=[{"role": "user", "content": "to be"}])
    assert (ask.prompt_tokens, ask.exact) == (6, True)
    assert tuple(ask.block_hashes) == block_hashes([5, 7, 1, 2, 6, 7], 2, "m")


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}"], ids=["no template", "it refuses"])
async def test_a_chat_that_cannot_be_rendered_here_is_bounded(
    router: Any, model: pb.Model, folder: Open, template: str | None
) -> None:
    messages = [{"role": "user", "content": "to be"}]
    async with counting_client(router, tokenizers={"m": folder(template)}) as client:
        ask = await ask_for(router, client, messages=messages)
    assert not ask.exact
    assert ask.prompt_tokens == len(json.dumps(messages, separators=(",", ":")))
    assert not ask.block_hashes


async def test_a_model_whose_tokenizer_nobody_has_is_bounded(router: Any, model: pb.Model) -> None:
    async with counting_client(router) as client:
        ask = await ask_for(router, client, "to be")
    assert (ask.prompt_tokens, ask.exact, ask.hash_block_tokens) == (5, False, 0)


async def test_a_known_models_tokenizer_is_found_by_itself(router: Any, model: pb.Model) -> None:
    model.name = "qwen3-8b"
    async with counting_client(router) as client:
        ask = await ask_for(router, client, "To be, or not to be", model="qwen3-8b")
    assert (ask.prompt_tokens, ask.exact) == (7, True)
    assert len(ask.block_hashes) == 3


async def test_a_simulated_model_keeps_its_own_count_whatever_tokenizer_there_is(
    router: Any, model: pb.Model, folder: Open, caplog: pytest.LogCaptureFixture
) -> None:
    model.tokenizer_hash, model.bound.bytes_per_token = "sim", 4
    model.bound.CopyFrom(FIGURES)
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        ask = await ask_for(router, client, "to be or not to be")
    assert (ask.prompt_tokens, ask.exact) == (5, True)
    assert tuple(ask.block_hashes) == hash_simulated(pb.Prompt(text="to be or not to be"), 2, "m")
    assert "m is simulated" in caplog.text


async def test_workers_tell_whose_tokenizer_it_is(router: Any, model: pb.Model, folder: Open) -> None:
    place = folder()
    model.tokenizer_hash = Tokenizer(counting.given("m", place)).hash()
    async with counting_client(router, tokenizers={"m": place}) as client:
        assert (await ask_for(router, client, "to be")).exact


async def test_another_models_tokenizer_counts_nothing_and_that_is_said_once(
    router: Any, model: pb.Model, folder: Open, caplog: pytest.LogCaptureFixture
) -> None:
    model.tokenizer_hash = "0123456789abcdef"
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        assert await client.count_tokens("to be") == diplex.TokenCount(5, True), "the router was asked"
        ask = await ask_for(router, client, "to be")
    assert (ask.prompt_tokens, ask.exact) == (5, False)
    assert caplog.text.count("is not the tokenizer of m's workers") == 1


async def test_a_tokenizer_that_a_worker_contradicts_counts_such_prompts_no_more(
    router: Any, worker: Any, model: pb.Model, folder: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with counting_client(router, tokenizers={"m": folder(TEMPLATE)}) as client:
        desk = await router.desk()
        asked = asyncio.create_task(client.generate("to be"))
        await desk.grant(await desk.hears(), worker)
        await (await worker.plays()).done(pb.END_REASON_STOP, prompt_tokens=3)
        await asked
        async with asyncio.TaskGroup() as tasks:
            text = tasks.create_task(client.generate("to be"))
            assert not (await desk.hears()).exact
            chat = tasks.create_task(client.generate(messages=[{"role": "user", "content": "to be"}]))
            assert (await desk.hears()).exact, "of its chats nobody has said anything"
            text.cancel()
            chat.cancel()
    assert caplog.text.count("do not count text prompts as the tokenizer here does") == 1


async def test_the_request_itself_is_asked_for_again_with_the_workers_count_and_without_hashes(
    router: Any, worker: Any, model: pb.Model, folder: Open
) -> None:
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        desk = await router.desk()
        asked = asyncio.create_task(client.generate("to be"))
        first = await desk.hears()
        await desk.grant(first, worker)
        await (await worker.plays()).done(pb.END_REASON_REFUSED, prompt_tokens=9, needed_blocks=5)
        again = await desk.hears()
        asked.cancel()
    assert (first.prompt_tokens, len(first.block_hashes)) == (2, 1)
    assert (again.ask_id, again.prompt_tokens, again.exact) == (first.ask_id, 9, True)
    assert (len(again.block_hashes), again.hash_block_tokens) == (0, 0)


async def test_a_worker_that_agrees_changes_nothing(
    router: Any, worker: Any, model: pb.Model, folder: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        desk = await router.desk()
        asked = asyncio.create_task(client.generate("to be"))
        await desk.grant(await desk.hears(), worker)
        await (await worker.plays()).done(pb.END_REASON_STOP, prompt_tokens=2)
        await asked
        assert await client.count_tokens("to be") == diplex.TokenCount(2, True)
    assert not caplog.text


async def test_a_tokenizer_that_cannot_be_read_is_said_once_and_the_prompt_bounded(
    router: Any, model: pb.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    async with counting_client(router, tokenizers={"m": tmp_path}) as client:
        assert not (await ask_for(router, client, "to be")).exact
        client._counter.follow([model])
        await client._counter.settled()
    assert caplog.text.count("the tokenizer of m cannot be read") == 1


async def test_tokens_are_counted_here_without_a_word_to_the_router(
    router: Any, model: pb.Model, folder: Open
) -> None:
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        # The scripted router would have said one token a character.
        assert await client.count_tokens("to be or not") == diplex.TokenCount(4, True)


def test_a_tokenizer_that_is_not_there_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Mend: the path of its tokenizer"):
        diplex.AsyncClient(tokenizers={"m": tmp_path})


def test_without_the_extra_a_tokenizer_names_it(monkeypatch: pytest.MonkeyPatch, folder: Open) -> None:
    monkeypatch.setattr(counting, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'diplex\[tokenizers\]'"):
        diplex.AsyncClient(tokenizers={"m": folder()})


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which prompts were read."""
    seen: list[threading.Thread] = []
    ids_of = Tokenizer.ids_of

    def noted(self: Tokenizer, prompt: pb.Prompt) -> Any:
        seen.append(threading.current_thread())
        return ids_of(self, prompt)

    monkeypatch.setattr(Tokenizer, "ids_of", noted)
    return seen


async def test_a_short_prompt_is_counted_where_it_stands(
    router: Any, model: pb.Model, folder: Open, threads: list[threading.Thread]
) -> None:
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        await ask_for(router, client, "to be")
    assert threads == [threading.main_thread()]


async def test_others_are_asked_for_while_a_long_prompt_is_counted(
    router: Any, model: pb.Model, folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long one is held in its thread until the short one, begun later, has reached the router."""
    short_is_through = threading.Event()
    ids_of = Tokenizer.ids_of

    def held(self: Tokenizer, prompt: pb.Prompt) -> Any:
        if len(prompt.text) > counting.AT_ONCE:
            assert short_is_through.wait(5.0), "the loop did not go on"
        return ids_of(self, prompt)

    monkeypatch.setattr(Tokenizer, "ids_of", held)
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        desk = await router.desk()
        async with asyncio.TaskGroup() as tasks:
            long = tasks.create_task(client.generate("to be " * 200_000))
            short = tasks.create_task(client.generate("to be"))
            assert (await desk.hears()).prompt_tokens == 2
            short_is_through.set()
            assert (await desk.hears()).prompt_tokens == 400_000
            long.cancel()
            short.cancel()


async def test_a_request_cancelled_while_it_is_counted_is_never_asked_for(
    router: Any, model: pb.Model, folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, go_on = threading.Event(), threading.Event()
    ids_of = Tokenizer.ids_of

    def held(self: Tokenizer, prompt: pb.Prompt) -> Any:
        if len(prompt.text) > counting.AT_ONCE:
            counted.set()
            go_on.wait(5.0)
        return ids_of(self, prompt)

    monkeypatch.setattr(Tokenizer, "ids_of", held)
    async with counting_client(router, tokenizers={"m": folder()}) as client:
        desk = await router.desk()
        long = asyncio.ensure_future(client.generate("to be " * 20_000))
        await asyncio.to_thread(counted.wait, 5.0)
        long.cancel()
        await asyncio.wait([long])
        go_on.set()
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(client.generate("to be"))
            heard = await desk.hears()
            while isinstance(heard, router_pb2.Withdraw):
                heard = await desk.hears()
            assert heard.prompt_tokens == 2
            other.cancel()


async def test_a_long_prompt_that_is_none_is_refused_like_a_short_one(router: Any, model: pb.Model) -> None:
    async with counting_client(router) as client:
        with pytest.raises(diplex.InvalidRequest, match="no JSON"):
            await client.generate(messages=b"x" * 10_000)


async def test_counting_needs_no_tokenizers_package(
    router: Any, model: pb.Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model.name = "qwen3-8b"
    monkeypatch.setattr(counting, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        async with counting_client(router) as client:
            assert not (await ask_for(router, client, "to be", model="qwen3-8b")).exact
    assert not caplog.text


async def test_the_blocking_client_takes_tokenizers_too(router: Any, model: pb.Model, folder: Open) -> None:
    def count() -> diplex.TokenCount:
        with diplex.Client(router.address, tokenizers={"m": folder()}) as client:
            client.wait_ready(5.0)
            client._wait(client._client._counter.settled())
            return client.count_tokens("to be or not")

    assert await asyncio.to_thread(count) == diplex.TokenCount(4, True)
