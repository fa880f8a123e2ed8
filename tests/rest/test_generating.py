"""The generating routes, as OpenAI's own client sees them: a real shim in front of a scripted fleet."""

import json
from typing import Any

import grpc
import httpx
import openai
import pytest

from diplex.wire.status import Problem

ASK: Any = [{"role": "user", "content": "Tell me a story."}]
TEXT = "Once upon a time"
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one shim and one fleet for all of these


async def test_a_chat_is_answered(client: openai.AsyncOpenAI):
    raw = await client.chat.completions.with_raw_response.create(model="sim-72b", messages=ASK)
    answer = raw.parse()
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion"
    assert (answer.model, answer.service_tier) == ("sim-72b", None)
    assert (answer.choices[0].message.role, answer.choices[0].message.content) == ("assistant", TEXT)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage and (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5, 9)
    assert raw.headers["x-diplex-worker"] == "pkg0"
    assert raw.headers["x-diplex-tier"] == "standard"
    assert raw.headers["x-diplex-simulated"] == "true"
    assert raw.headers["x-request-id"].startswith("req_")


async def test_a_chat_is_streamed_word_by_word(client: openai.AsyncOpenAI):
    stream = await client.chat.completions.create(model="sim-72b", messages=ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert [delta.content for delta in deltas[1:-1]] == ["Once", " upon", " a", " time"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1


async def test_the_usage_of_a_stream_is_told_to_those_who_ask(client: openai.AsyncOpenAI):
    stream = await client.chat.completions.create(
        model="sim-72b", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == [] and last.usage and last.usage.completion_tokens == 4


async def test_openais_own_stream_reader_understands_it(client: openai.AsyncOpenAI):
    async with client.chat.completions.stream(model="sim-72b", messages=ASK) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == TEXT


async def test_choices_are_kept_apart(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="sim-72b", messages=ASK, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == [TEXT] * 3


async def test_a_text_is_completed(client: openai.AsyncOpenAI):
    answer = await client.completions.create(model="sim-72b", prompt="Tell me")
    assert (answer.object, answer.choices[0].text) == ("text_completion", TEXT)
    stream = await client.completions.create(model="sim-72b", prompt=[1, 2, 3], stream=True)
    pieces = [chunk.choices[0] async for chunk in stream]
    assert "".join(piece.text for piece in pieces) == TEXT
    assert pieces[-1].finish_reason == "stop"


async def test_everything_that_was_said_reaches_router_and_worker(client: openai.AsyncOpenAI, fleet: Any):
    await client.chat.completions.create(
        model="sim-72b",
        messages=ASK,
        max_completion_tokens=17,
        temperature=0.5,
        top_p=0.9,
        seed=-1,
        stop=["END"],
        n=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={"7": -100},
        response_format={"type": "json_object"},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        user="somebody",
        service_tier="bulk",  # type: ignore[arg-type]
        extra_body={
            "top_k": 3,
            "min_p": 0.25,
            "repetition_penalty": 1.5,
            "min_tokens": 2,
            "ignore_eos": True,
        },
        extra_headers={"x-request-id": "my-own-1"},
    )
    (ask,), (start,) = fleet.asks, fleet.starts
    assert (ask.request_id, ask.model, ask.tier, ask.api_key) == ("my-own-1", "sim-72b", "bulk", "sk-acme")
    assert (ask.max_tokens, ask.n) == (17, 2)
    assert json.loads(start.prompt.chat.messages) == ASK
    assert json.loads(start.prompt.chat.tools)[0]["function"]["name"] == "f"
    sampling = start.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 3, 0.25)
    assert (sampling.seed, list(sampling.stop), sampling.min_tokens) == (2**64 - 1, ["END"], 2)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, 0.2)
    assert (sampling.repetition_penalty, sampling.ignore_eos) == (1.5, True)
    assert sampling.max_tokens_stated and dict(sampling.logit_bias) == {"7": -100.0}
    assert json.loads(sampling.response_format) == {"type": "json_object"}


@pytest.mark.parametrize(
    ("body", "headers", "tier", "told"),
    [
        ({}, {}, "", None),
        ({"service_tier": "auto"}, {}, "auto", "standard"),
        ({"service_tier": "bulk"}, {}, "bulk", "bulk"),
        ({}, {"X-Diplex-Tier": "bulk"}, "bulk", None),
        ({"service_tier": "auto"}, {"X-Diplex-Tier": "bulk"}, "bulk", "bulk"),
    ],
)
async def test_the_tier_is_passed_on_as_it_is_and_the_header_wins(
    http: httpx.AsyncClient, fleet: Any, body: Any, headers: Any, tier: str, told: str | None
):
    answer = await http.post("/v1/chat/completions", json={"messages": ASK, **body}, headers=headers)
    assert fleet.asks[0].tier == tier
    assert answer.json().get("service_tier") == told
    assert answer.headers["x-diplex-tier"] == (tier if tier == "bulk" else "standard")


async def test_a_trace_goes_on_through_the_shim(http: httpx.AsyncClient, fleet: Any):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tracestate": "vendor=x"}
    await http.post("/v1/chat/completions", json={"messages": ASK}, headers=headers)
    assert trace in fleet.asks[0].traceparent and trace in fleet.starts[0].traceparent
    assert fleet.asks[0].tracestate == "vendor=x"


async def test_without_a_model_the_default_one_answers_and_is_named(http: httpx.AsyncClient, fleet: Any):
    answer = await http.post("/v1/chat/completions", json={"messages": ASK})
    assert answer.json()["model"] == "sim-72b"


@pytest.mark.parametrize(
    ("problem", "error", "status"),
    [
        (
            Problem(grpc.StatusCode.INVALID_ARGUMENT, "no such tier", field="tier"),
            openai.BadRequestError,
            400,
        ),
        (Problem(grpc.StatusCode.UNAUTHENTICATED, "whose?"), openai.AuthenticationError, 401),
        (Problem(grpc.StatusCode.PERMISSION_DENIED, "no"), openai.PermissionDeniedError, 403),
        (Problem(grpc.StatusCode.NOT_FOUND, "no such model"), openai.NotFoundError, 404),
        (Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after=7.5), openai.RateLimitError, 429),
        (Problem(grpc.StatusCode.UNAVAILABLE, "none"), openai.InternalServerError, 503),
        (Problem(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), openai.InternalServerError, 504),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_the_error_that_openais_client_has_for_it(
    client: openai.AsyncOpenAI,
    fleet: Any,
    problem: Problem,
    error: type[openai.APIStatusError],
    status: int,
    stream: bool,
):
    fleet.refusal = problem
    with pytest.raises(error) as raised:
        await client.chat.completions.create(model="sim-72b", messages=ASK, stream=stream)
    assert raised.value.status_code == status
    assert raised.value.body and problem.message in raised.value.message
    assert raised.value.request_id
    expected = {429: "8", 503: "1"}.get(status)
    assert raised.value.response.headers.get("retry-after") == expected


async def test_a_stream_that_breaks_raises_in_openais_client(client: openai.AsyncOpenAI, fleet: Any):
    fleet.script = fleet.break_after_one_word
    stream = await client.chat.completions.create(model="sim-72b", messages=ASK, stream=True)
    seen = []
    with pytest.raises(openai.APIError, match="the engine broke") as raised:
        async for chunk in stream:
            seen.append(chunk.choices[0])
    assert (raised.value.code, raised.value.type) == ("engine_broke", "server_error")
    assert [choice.delta.content for choice in seen] == ["", "Once"]
    assert all(choice.finish_reason is None for choice in seen)


async def test_an_answer_that_breaks_is_an_error_when_nothing_was_sent(
    client: openai.AsyncOpenAI, fleet: Any
):
    fleet.script = fleet.break_after_one_word
    with pytest.raises(openai.InternalServerError) as raised:
        await client.chat.completions.create(model="sim-72b", messages=ASK)
    assert raised.value.status_code == 500
    assert raised.value.response.headers["x-diplex-worker"] == "pkg0"


async def test_the_head_of_a_stream_waits_for_the_first_token_and_no_longer(
    client: openai.AsyncOpenAI, fleet: Any
):
    fleet.script = fleet.hold_after_one_word
    stream = await client.chat.completions.create(model="sim-72b", messages=ASK, stream=True)
    assert [(await anext(stream)).choices[0].delta.content for _ in range(2)] == ["", "Once"]
    fleet.hold.set()
    assert [chunk.choices[0].delta.content async for chunk in stream] == [" upon", " a", " time", None]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages": [', None),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": "two"}', "n"),
        (b'{"messages": [{"role": "user", "content": "x"}], "logprobs": true}', "logprobs"),
    ],
)
async def test_a_wrong_body_is_refused_before_anybody_is_asked(
    http: httpx.AsyncClient, fleet: Any, body: bytes, param: str | None
):
    answer = await http.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.headers["x-request-id"]
    assert fleet.asks == []


async def test_curl_without_a_content_type_is_understood(http: httpx.AsyncClient):
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps({"messages": ASK}).encode()
    assert (await http.post("/v1/chat/completions", content=body, headers=form)).status_code == 200


async def test_a_body_beyond_the_limit_is_refused(http: httpx.AsyncClient, fleet: Any):
    announced = await http.post("/v1/chat/completions", content=b" " * (64 * 2**20 + 1))
    assert (announced.status_code, announced.json()["error"]["code"]) == (413, "request_too_large")
    assert fleet.asks == []
