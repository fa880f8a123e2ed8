"""The small parts under an attached server: events out of bytes, samples out of pages, codes of statuses."""

import json

import pytest

from diplex_workers.engines.dialects import DIALECTS
from diplex_workers.engines.dialects.prometheus import Samples
from diplex_workers.engines.openai_http import problem_of, words_of
from diplex_workers.engines.sse import EventReader

STREAM = 'data: {"a": "ü"}\r\n\r\n: ping\n\nevent: x\ndata:{"b": 2}\n\ndata: [DONE]\n\n'.encode()


def test_events_are_the_same_wherever_the_bytes_were_cut():
    for cut in range(len(STREAM)):
        reader = EventReader()
        events = reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:])
        assert events == [{"a": "ü"}, {"b": 2}]
        assert reader.done


@pytest.mark.parametrize("line", [b"data: nonsense\n", b"data: [1]\n", b'data: {"a": "\xff"}\n'])
def test_a_line_that_is_no_object_is_a_value_error(line):
    with pytest.raises(ValueError):
        EventReader().feed(line)


def test_samples_are_read_with_their_labels_and_others_are_passed_over():
    page = "\n".join(
        [
            "# HELP up whether it is",
            'up{engine="0",model_name="a \\"b\\" {c}"} 1.0',
            'up{engine="1"} 3e0 1700000000',
            "up_since 7",
            "up broken",
            "down 2",
        ]
    )
    samples = Samples(page, ("up", "down"))
    assert [value for _, value in samples["up"]] == [1.0, 3.0]
    assert samples["up"][0][0]["engine"] == "0"
    assert (samples.total("up"), samples.highest("up"), samples.total("down")) == (4.0, 3.0, 2.0)
    assert samples["up_since"] == []


def test_what_has_no_sample_is_unknown_and_not_zero():
    samples = Samples("", ("up",))
    assert samples.total("up") is samples.highest("up") is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "too long", "type": "BadRequestError"}}, "too long"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"detail": "too long"}, "too long"),
        ({"error": "too long"}, "too long"),
        ("too long", "too long"),
    ],
    ids=["OpenAI", "older vLLM", "FastAPI", "a bare string", "a string"],
)
def test_an_errors_own_words_are_found_in_every_shape(body, words):
    assert words_of(json.dumps(body)) == words


def test_an_error_page_is_shortened():
    assert len(words_of("<html>" + "x" * 10_000)) == 400


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_every_status_has_a_code_a_reason_and_a_message(status):
    problem = problem_of(status, "words", "http://127.0.0.1:8000/v1/completions")
    assert problem.code.name != "OK" and problem.reason and problem.message


def test_every_dialect_is_found_under_its_own_name():
    assert set(DIALECTS) == {"openai", "vllm", "sglang", "trtllm", "llamacpp", "triton"}
    assert all(dialect.api == name for name, dialect in DIALECTS.items())
