"""Tokens and their end, as the bytes of an HTTP response."""

import json
from typing import Any

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_rest.answer import StreamedAnswer, WholeAnswer
from diplex_rest.openai.errors import Headers
from diplex_rest.openai.response import ChatShape, Head, Shape, TextShape

HEAD = Head("chatcmpl-1", 1700000000, "m")
USAGE = pb.Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=2)
USAGE_OBJECT = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}
OWN = {"diplex": {"preemptions": 0}}


class Written:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.ended = False

    def open(self, status: int, headers: Headers) -> None:
        assert not self.status, "a response has one head"
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def write(self, data: bytes) -> None:
        assert self.status and not self.ended
        self.parts.append(data)

    def end(self) -> None:
        assert not self.ended
        self.ended = True

    @property
    def events(self) -> list[Any]:
        """The data of each event, and "[DONE]" as it is."""
        events = b"".join(self.parts).decode().split("\n\n")
        assert events.pop() == "" and all(event.startswith("data: ") for event in events)
        return [data if data == "[DONE]" else json.loads(data) for data in (event[6:] for event in events)]

    @property
    def body(self) -> Any:
        body = b"".join(self.parts)
        assert self.headers["content-length"] == str(len(body))
        return json.loads(body)


def serve(answer: WholeAnswer | StreamedAnswer, *, simulated: bool = False) -> None:
    granted = router_pb2.Granted(engine="sim" if simulated else "llamacpp", simulated=simulated)
    answer.on_serving(granted, pb.Grant(worker="pkg0", tier="standard"))


def streamed(
    sink: Written,
    *,
    shape: Shape | None = None,
    n: int = 1,
    tell_tier: bool = False,
    with_usage: bool = False,
) -> StreamedAnswer:
    return StreamedAnswer(sink, shape or ChatShape(), HEAD, n, tell_tier=tell_tier, with_usage=with_usage)


def done(reason: int = pb.END_REASON_STOP, **more: Any) -> pb.Done:
    return pb.Done(reason=reason, usage=USAGE, **more)  # type: ignore[arg-type]


def chunk(delta: dict[str, Any], reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "system_fingerprint": "diplex-llamacpp",
        "choices": [choice],
        **more,
    }


def test_a_streamed_chat_is_role_pieces_end_and_done():
    answer = streamed(sink := Written())
    serve(answer)
    assert not sink.status, "the head waits for the first token"
    answer.on_tokens(pb.Tokens(text="Hello", count=1))
    answer.on_tokens(pb.Tokens(text=" “you”\n\u2028", count=2, index=1))
    answer.on_done(done())
    assert sink.events == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hello"}),
        chunk({"content": " “you”\n\u2028"}),
        chunk({}, "stop", **OWN),
        "[DONE]",
    ]
    assert sink.status == 200 and sink.ended
    assert sink.headers["content-type"].startswith("text/event-stream")
    assert (sink.headers["x-diplex-worker"], sink.headers["x-diplex-tier"]) == ("pkg0", "standard")
    assert "x-diplex-simulated" not in sink.headers


def test_a_streamed_answer_without_a_token_still_has_its_role_and_its_end():
    answer = streamed(sink := Written())
    serve(answer)
    answer.on_done(done(pb.END_REASON_LENGTH))
    assert sink.events == [chunk({"role": "assistant", "content": ""}), chunk({}, "length", **OWN), "[DONE]"]


def test_an_unfinished_character_opens_the_stream_and_writes_no_empty_piece():
    answer = streamed(sink := Written())
    serve(answer)
    answer.on_tokens(pb.Tokens(text="", count=1))
    assert sink.events == [chunk({"role": "assistant", "content": ""})]


def test_the_usage_comes_last_where_it_was_asked_for_and_is_null_before():
    answer = streamed(sink := Written(), with_usage=True)
    serve(answer)
    answer.on_tokens(pb.Tokens(text="Hi", count=1))
    answer.on_done(done())
    *chunks, usage, end = sink.events
    assert [one["usage"] for one in chunks] == [None] * 3
    assert (usage["choices"], usage["usage"], end) == ([], USAGE_OBJECT, "[DONE]")


def test_each_choice_has_its_role_its_text_and_its_own_end():
    answer = streamed(sink := Written(), n=2)
    serve(answer)
    answer.on_tokens(pb.Tokens(choice=1, text="b", count=1))
    answer.on_tokens(pb.Tokens(choice=0, text="a", count=1))
    answer.on_done(done(choice_reasons=[pb.END_REASON_STOP, pb.END_REASON_LENGTH]))
    assert sink.events == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"role": "assistant", "content": ""}, index=1),
        chunk({"content": "b"}, index=1),
        chunk({"content": "a"}),
        chunk({}, "stop"),
        chunk({}, "length", index=1, **OWN),
        "[DONE]",
    ]


def test_a_streamed_text_completion_has_no_role():
    answer = streamed(sink := Written(), shape=TextShape())
    serve(answer)
    answer.on_tokens(pb.Tokens(text="Hi", count=1))
    answer.on_done(done())
    first, last, end = sink.events
    assert first["object"] == last["object"] == "text_completion"
    assert first["choices"] == [{"index": 0, "text": "Hi", "logprobs": None, "finish_reason": None}]
    assert last["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]
    assert end == "[DONE]"


def test_a_stream_that_breaks_ends_in_an_error_and_nothing_that_looks_like_success():
    answer = streamed(sink := Written())
    serve(answer)
    answer.on_tokens(pb.Tokens(text="Hi", count=1))
    problem = Problem(grpc.StatusCode.UNAVAILABLE, "the worker is gone", "WORKER_GONE")
    answer.on_done(done(pb.END_REASON_FAILED, error=problem.to_bytes()))
    error = {"message": "the worker is gone", "type": "server_error", "param": None, "code": "worker_gone"}
    assert sink.events[-1] == {"error": error}
    assert "[DONE]" not in sink.events
    assert all(choice["finish_reason"] is None for one in sink.events[:-1] for choice in one["choices"])
    assert sink.ended


@pytest.mark.parametrize("stream", [True, False])
def test_what_fails_before_the_first_token_is_an_http_error_that_names_the_worker(stream: bool):
    sink = Written()
    answer = streamed(sink) if stream else WholeAnswer(sink, ChatShape(), HEAD, 1, tell_tier=False)
    serve(answer, simulated=True)
    problem = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", retry_after=2.1)
    answer.on_done(done(pb.END_REASON_REFUSED, error=problem.to_bytes()))
    assert (sink.status, sink.headers["retry-after"]) == (429, "3")
    assert sink.headers["x-diplex-worker"] == "pkg0"
    assert sink.headers["x-diplex-simulated"] == "true"
    assert sink.body["error"]["code"] == "queue_full"


def test_a_whole_chat_answers_in_one_piece():
    answer = WholeAnswer(sink := Written(), ChatShape(), HEAD, 2, tell_tier=False)
    serve(answer)
    for choice, text in ((0, "a"), (1, "x"), (0, "b")):
        answer.on_tokens(pb.Tokens(choice=choice, text=text, count=1))
    assert not sink.status
    answer.on_done(done(choice_reasons=[pb.END_REASON_STOP, pb.END_REASON_LENGTH]))
    body = sink.body
    assert (sink.status, body["object"], body["usage"]) == (200, "chat.completion", USAGE_OBJECT)
    assert [one["message"]["content"] for one in body["choices"]] == ["ab", "x"]
    assert [one["message"]["role"] for one in body["choices"]] == ["assistant", "assistant"]
    assert [one["finish_reason"] for one in body["choices"]] == ["stop", "length"]


def test_a_whole_text_completion_answers_in_one_piece():
    answer = WholeAnswer(sink := Written(), TextShape(), HEAD, 1, tell_tier=False)
    serve(answer)
    answer.on_tokens(pb.Tokens(text="Hi", count=1))
    answer.on_done(done())
    assert sink.body["object"] == "text_completion"
    assert sink.body["choices"] == [{"index": 0, "text": "Hi", "logprobs": None, "finish_reason": "stop"}]


def test_one_failed_choice_fails_the_response():
    answer = WholeAnswer(sink := Written(), ChatShape(), HEAD, 2, tell_tier=False)
    serve(answer)
    answer.on_done(done(choice_reasons=[pb.END_REASON_STOP, pb.END_REASON_FAILED]))
    assert sink.status == 500


def test_the_tier_is_told_in_the_body_to_those_who_asked_for_one():
    answer = streamed(sink := Written(), tell_tier=True)
    serve(answer)
    answer.on_done(done())
    assert {one["service_tier"] for one in sink.events if one != "[DONE]"} == {"standard"}


def test_a_simulated_engine_shows_in_the_fingerprint():
    answer = streamed(sink := Written())
    serve(answer, simulated=True)
    answer.on_done(done())
    assert sink.events[0]["system_fingerprint"] == "diplex-sim"


def test_a_choice_that_nobody_asked_for_fails_the_answer_and_raises_nothing():
    answer = streamed(sink := Written())
    serve(answer)
    answer.on_tokens(pb.Tokens(choice=1, text="?", count=1))
    answer.on_tokens(pb.Tokens(choice=0, text="late", count=1))
    answer.on_done(done())
    assert (sink.status, sink.ended) == (500, True)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (pb.END_REASON_CANCELLED, 503),
        (pb.END_REASON_FAILED, 500),
        (pb.END_REASON_PREEMPTED, 500),
        (pb.END_REASON_UNSPECIFIED, 500),
        (99, 500),
    ],
)
def test_an_end_without_words_is_still_an_error(reason: int, status: int):
    answer = streamed(sink := Written())
    answer.on_done(done(reason))
    assert (sink.status, sink.ended) == (status, True)
    assert "x-diplex-worker" not in sink.headers


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_streams_last_chunk_tells_how_often_it_gave_way(with_usage: bool):
    answer = streamed(sink := Written(), with_usage=with_usage)
    serve(answer)
    answer.on_tokens(pb.Tokens(text="a", count=1))
    answer.on_preempted(1)
    answer.on_preempted(2)
    serve(answer)
    answer.on_tokens(pb.Tokens(text="b", count=1, index=1))
    answer.on_done(done())
    *chunks, last, end = sink.events
    assert (last["diplex"], end) == ({"preemptions": 2}, "[DONE]")
    assert not any("diplex" in chunk for chunk in chunks)
    assert ("usage" in last) is with_usage


def test_a_whole_answer_tells_how_often_it_gave_way_beside_its_usage():
    answer = WholeAnswer(sink := Written(), ChatShape(), HEAD, 1, tell_tier=False)
    serve(answer)
    answer.on_tokens(pb.Tokens(text="a", count=1))
    answer.on_preempted(1)
    answer.on_done(done())
    assert (sink.body["diplex"], sink.body["usage"]) == ({"preemptions": 1}, USAGE_OBJECT)
