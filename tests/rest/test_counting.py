"""Prompts counted in the shim with the model's tokenizer: through the SDK, and off the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tokenizers import Tokenizer as Maker
from tokenizers import models, pre_tokenizers

from diplex.tokens.counter import AT_ONCE
from diplex.tokens.tokenizer import Tokenizer
from diplex.v1 import generation_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "org/real-1b"
MEGABYTE = "to be " * 170_000


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    maker = Maker(models.WordLevel({"?": 0, "to": 1, "be": 2}, unk_token="?"))
    maker.pre_tokenizer = pre_tokenizers.Whitespace()
    maker.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest_asyncio.fixture(loop_scope="module")
async def http(fleet: Any, shim: Callable[..., Any], tokenizer: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a shim that counts the model's prompts."""
    async with (
        shim(fleet.router, tokenizers={MODEL: tokenizer}) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0, verify=False) as http,
    ):
        async with asyncio.timeout(10.0):
            while not (fleet.asks and fleet.asks[-1].exact):  # it has not loaded the tokenizer yet
                await complete(http, "to be")
        fleet.asks.clear()
        yield http


async def complete(http: httpx.AsyncClient, prompt: str) -> httpx.Response:
    return await http.post("/v1/completions", json={"model": MODEL, "prompt": prompt})


async def test_the_shim_asks_with_a_count_and_the_usage_stays_the_workers(
    http: httpx.AsyncClient, fleet: Any
) -> None:
    answer = await complete(http, "to be to")
    (ask,) = fleet.asks
    assert (ask.prompt_tokens, ask.exact) == (3, True)
    assert answer.json()["usage"]["prompt_tokens"] == 5


async def test_others_are_served_while_a_megabyte_is_counted(
    http: httpx.AsyncClient, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long prompt is held in its thread until a short one, sent later, has its whole answer."""
    counting, others_were_served = threading.Event(), threading.Event()
    threads = []
    ids_of = Tokenizer.ids_of

    def held(self: Tokenizer, prompt: pb.Prompt) -> Any:
        if len(prompt.text) > AT_ONCE:
            threads.append(threading.current_thread())
            counting.set()
            assert others_were_served.wait(30.0), "nobody was served meanwhile"
        return ids_of(self, prompt)

    monkeypatch.setattr(Tokenizer, "ids_of", held)
    async with asyncio.TaskGroup() as tasks:
        long = tasks.create_task(complete(http, MEGABYTE))
        assert await asyncio.to_thread(counting.wait, 30.0)
        assert (await complete(http, "to be")).status_code == 200
        others_were_served.set()
    assert long.result().status_code == 200
    assert [ask.prompt_tokens for ask in fleet.asks] == [2, 340_000]
    assert threading.main_thread() not in threads
