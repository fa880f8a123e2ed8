"""OpenAI's request bodies: what is taken, what is ignored, and what is refused with which words."""

import json
from typing import Any

import pytest

from diplex_rest.openai.errors import ApiError
from diplex_rest.openai.request import Call, parse, read_chat, read_text

ASK = [{"role": "user", "content": "hi"}]


def chat(**body: Any) -> Call:
    return read_chat(json.dumps({"model": "m", "messages": ASK, **body}).encode())


def asked(call: Call) -> dict[str, Any]:
    """What the SDK is asked with."""
    return {"prompt": call.prompt, **call.options}


def text(**body: Any) -> Call:
    return read_text(json.dumps({"model": "m", "prompt": "hi", **body}).encode())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 7, "max_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": None}, {"max_tokens": None}),
        ({"n": 3}, {"n": 3}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5, "top_k": 40, "min_p": 0.1}, {"top_p": 0.5, "top_k": 40, "min_p": 0.1}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"seed": 42}, {"seed": 42}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": []}, {"stop": ()}),
        ({"presence_penalty": -2, "frequency_penalty": 2}, {"presence_penalty": -2, "frequency_penalty": 2}),
        ({"repetition_penalty": 1.1, "min_tokens": 3}, {"repetition_penalty": 1.1, "min_tokens": 3}),
        ({"ignore_eos": True}, {"ignore_eos": True}),
        ({"logit_bias": {"50256": -100}}, {"logit_bias": {"50256": -100.0}}),
        ({"response_format": {"type": "text"}}, {"response_format": None}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    ],
)
def test_a_field_reaches_the_sdk_under_its_name_there(body: dict[str, Any], expected: dict[str, Any]):
    assert expected.items() <= asked(chat(**body)).items()


@pytest.mark.parametrize(
    "body",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True, "parallel_tool_calls": False},
        {"logprobs": False, "top_logprobs": 0, "modalities": ["text"], "tool_choice": "auto"},
        {"a_field_of_tomorrow": [1, 2]},
        {"audio": None, "functions": None, "temperature": None, "n": None, "stream": None, "stop": None},
    ],
)
def test_fields_that_change_nothing_are_accepted(body: dict[str, Any]):
    assert chat(**body) == chat()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
    ],
)
def test_what_would_change_the_answer_and_cannot_be_honoured_is_refused(body: dict[str, Any], param: str):
    with pytest.raises(ApiError) as refused:
        chat(**body)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert refused.value.code == "unsupported_parameter"
    assert "Mend: " in refused.value.message


@pytest.mark.parametrize(
    ("body", "param"), [({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of")]
)
def test_a_text_completion_refuses_what_it_cannot_honour_too(body: dict[str, Any], param: str):
    with pytest.raises(ApiError) as refused:
        text(**body)
    assert refused.value.param == param


def test_log_probabilities_of_zero_alternatives_are_still_log_probabilities():
    with pytest.raises(ApiError, match="logprobs: 0 cannot be honoured"):
        text(logprobs=0)


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"temperature": "hot"}, "temperature", "expected a number from 0 to 2, found a string"),
        ({"temperature": 2.5}, "temperature", "expected a number from 0 to 2, found 2.5"),
        ({"temperature": True}, "temperature", "found true or false"),
        ({"top_p": 10**400}, "top_p", "expected a number from 0 to 1"),
        ({"max_tokens": 0}, "max_tokens", "expected a whole number from 1"),
        ({"max_tokens": 1.5}, "max_tokens", "found 1.5"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "contradict each other"),
        ({"n": 0}, "n", "from 1 to 128"),
        ({"n": 129}, "n", "from 1 to 128"),
        ({"stop": 5}, "stop", "a string or an array of strings, found a number"),
        ({"stop": ["a", 5]}, "stop[1]", "expected a string, found a number"),
        ({"stop": ""}, "stop", "not empty"),
        ({"stream": "yes"}, "stream", "expected true or false, found a string"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true only"),
        ({"stream": True, "stream_options": []}, "stream_options", "expected an object, found an array"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
            "expected true or false",
        ),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids as keys"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "from -100 to 100"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema, found 'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "found null"),
        ({"model": 5}, "model", "expected a string, found a number"),
        ({"service_tier": 5}, "service_tier", "expected a string"),
        ({"messages": None}, "messages", "missing"),
        ({"messages": "hi"}, "messages", "expected an array of messages, found a string"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": ["hi"]}, "messages[0]", "expected an object, found a string"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "expected a string, found null"),
        ({"messages": [*ASK, {"role": "user"}]}, "messages[1].content", "found null"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "found a number"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
            "cannot be read by text models",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "expected 'function'"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "expected an object, found null"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected_and_found(body: dict[str, Any], param: str, says: str):
    with pytest.raises(ApiError) as refused:
        chat(**body)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert says in refused.value.message
    assert len(refused.value.message.splitlines()) <= 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", {"prompt": "hi"}),
        (["hi"], {"prompt": "hi"}),
        ([1, 2, 3], {"prompt_ids": [1, 2, 3]}),
        ([[1, 2, 3]], {"prompt_ids": [1, 2, 3]}),
    ],
)
def test_a_prompt_is_a_text_or_token_ids_or_one_of_either_in_an_array(prompt: Any, expected: dict[str, Any]):
    assert expected.items() <= asked(text(prompt=prompt)).items()


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (["a", "b"], "2 prompts in one request"),
        ([], "not empty"),
        ([1, "a"], "expected a whole number"),
        ([-1], "from 0 to"),
        ({}, "found an object"),
    ],
)
def test_other_prompts_are_refused(prompt: Any, says: str):
    with pytest.raises(ApiError, match=says):
        text(prompt=prompt)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"model": }', "Expecting value at line 1 column 11"),
        (b'{\n "a": 1,,}', "line 2 column 9"),
        (b"", "line 1 column 1"),
        (b"[]", "no JSON object"),
        (b"{'a': 1}", "line 1 column 2"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place(body: bytes, says: str):
    with pytest.raises(ApiError) as refused:
        parse(body)
    assert (refused.value.status, refused.value.param) == (400, None)
    assert says in refused.value.message


def test_escaped_characters_outside_the_basic_plane_are_read():
    assert chat(messages=[{"role": "user", "content": "🙂"}]).options["messages"] == [
        {"role": "user", "content": "🙂"}
    ]


def test_messages_are_handed_on_as_they_came():
    conversation = [
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}], "name": "d"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
    ]
    assert chat(messages=conversation).options["messages"] == conversation


def test_tools_travel_unless_the_model_may_not_use_them():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert chat(tools=tools).options["tools"] == tools
    assert "tools" not in chat(tools=tools, tool_choice="none").options


def test_a_call_says_how_its_answer_is_to_look():
    call = chat(stream=True, stream_options={"include_usage": True}, service_tier="bulk", n=2)
    assert (call.model, call.choices, call.service_tier) == ("m", 2, "bulk")
    assert (call.stream, call.with_usage) == (True, True)
