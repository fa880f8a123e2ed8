"""The client without `async`: a loop in a thread of its own. Here the scripted servers have that thread."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

import diplex
from diplex.v1 import generation_pb2 as pb


class Aside:
    """The scripted router and worker, on a loop in another thread than the test's."""

    def __init__(self, router: Any, worker: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.router, self.worker, self._loop = router, worker, loop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@pytest.fixture
def aside(new_router: Any, new_worker: Any) -> Iterator[Aside]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Aside:
        router, worker = new_router(), new_worker("w1")
        worker.echo, router.placed = True, lambda ask: worker
        await router.start()
        await worker.start()
        return Aside(router, worker, loop)

    aside = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield aside
    aside.run(aside.router.kill())
    aside.run(aside.worker.kill())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def client(aside: Aside) -> Iterator[diplex.Client]:
    with diplex.Client(aside.router.address) as client:
        client.wait_ready(5)
        yield client


def test_a_whole_answer(client: diplex.Client):
    assert client.generate("a prompt", max_tokens=3).text == " 0 1 2"
    assert client.ready


def test_a_stream_is_read_with_a_plain_for(client: diplex.Client):
    stream = client.stream("a prompt", max_tokens=5)
    assert stream.started().worker == "w1"
    assert "".join(chunk.text for chunk in stream) == " 0 1 2 3 4"
    assert stream.reply.finish_reason == "length"


def test_leaving_the_loop_early_ends_the_request(client: diplex.Client, aside: Aside):
    async def one_word_then_wait() -> Any:
        playing = await aside.worker.plays()
        await playing.say("to")
        await asyncio.wait_for(playing.cancelled.wait(), 5)
        await playing.done(pb.END_REASON_CANCELLED)

    aside.worker.echo = False
    with client.stream("a prompt") as stream:
        for chunk in play(aside, one_word_then_wait(), stream):
            assert chunk.text == "to"
            break
    assert stream.reply.finish_reason == "cancelled"


def play(aside: Aside, script: Coroutine[Any, Any, Any], stream: diplex.BlockingStream) -> Any:
    asyncio.run_coroutine_threadsafe(script, aside._loop)
    return stream


def test_threads_share_a_client(client: diplex.Client):
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(client.generate("a prompt", max_tokens=2).text))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [" 0 1"] * 8


def test_errors_and_questions_are_the_same_as_the_async_clients(client: diplex.Client):
    assert [model.name for model in client.models()] == ["m"]
    assert client.fleet().epoch == 7
    assert client.metrics() == "a 1\n"
    assert client.count_tokens("abc").tokens == 3
    with pytest.raises(diplex.UnknownModel):
        client.explain(prompt_tokens=1, model="x")
    with pytest.raises(diplex.InvalidRequest):
        client.generate()


def test_after_close_it_says_so_and_its_thread_is_gone(aside: Aside):
    client = diplex.Client(aside.router.address)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.generate("a prompt")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("diplex")]
