"""What a user may say of a request, and how it reads on the wire."""

import json

import pytest

from diplex.options import check_names, counts_of, prompt_of, sampling_of
from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem


def test_a_prompt_is_text_ids_or_a_chat_in_compact_json():
    assert prompt_of("hi", {}).text == "hi"
    assert list(prompt_of(None, {"prompt_ids": [1, 2]}).ids.ids) == [1, 2]
    assert list(prompt_of(None, {"prompt_ids": pb.TokenIds(ids=[1, 2])}).ids.ids) == [1, 2]
    asked = prompt_of(None, {"messages": [{"role": "user", "content": "é"}], "tools": [{"type": "function"}]})
    assert asked.chat.messages == '[{"role":"user","content":"é"}]'.encode()
    assert asked.chat.tools == b'[{"type":"function"}]'


def test_json_that_is_written_already_is_passed_on_as_it_is():
    assert prompt_of(None, {"messages": b'[ {"role": "user"} ]'}).chat.messages == b'[ {"role": "user"} ]'


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (None, {}),
        ("hi", {"prompt_ids": [1]}),
        ("", {}),
        (None, {"prompt_ids": [-1]}),
        (None, {"messages": [{"role": {1, 2}}]}),
    ],
    ids=["none", "two", "empty", "no id", "no JSON"],
)
def test_a_prompt_that_cannot_be_is_an_invalid_argument(prompt, options):
    with pytest.raises(Problem) as raised:
        prompt_of(prompt, options)
    assert (raised.value.code.name, raised.value.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")


def test_sampling_says_only_what_was_said():
    sampling = sampling_of({})
    assert not sampling.ListFields()
    sampling = sampling_of(
        {
            "temperature": 0.0,
            "seed": 2**64 - 1,
            "stop": "END",
            "max_tokens": 5,
            "ignore_eos": True,
            "response_format": {"type": "json_object"},
            "logit_bias": {"42": -1.5},
        }
    )
    assert sampling.HasField("temperature") and sampling.temperature == 0.0
    assert (sampling.seed, list(sampling.stop)) == (2**64 - 1, ["END"])
    assert sampling.max_tokens_stated and sampling.ignore_eos
    assert json.loads(sampling.response_format) == {"type": "json_object"}
    assert dict(sampling.logit_bias) == {"42": -1.5}


@pytest.mark.parametrize(
    ("options", "field"),
    [({"seed": -1}, "seed"), ({"top_k": 1.5}, "top_k"), ({"temperature": "hot"}, "temperature")],
)
def test_a_value_that_the_protocol_cannot_hold_is_named(options, field):
    with pytest.raises(Problem, match=field) as raised:
        sampling_of(options)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**32}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": "two"}, "n"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_counts_that_cannot_be_are_named(options, field):
    with pytest.raises(Problem) as raised:
        counts_of(options)
    assert raised.value.field == field


def test_what_was_not_said_stays_open():
    assert counts_of({}) == (0, 1, None)


def test_a_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError, match="max_token'"):
        check_names({"max_token": 5})  # type: ignore[typeddict-unknown-key]
