"""OpenAI's request bodies, read and checked: what to ask of the SDK, and how the answer is to look."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn, cast

from diplex.options import Options
from diplex_rest.openai import fields, unsupported
from diplex_rest.openai.errors import ApiError, bad_request
from diplex_rest.openai.messages import messages, tools

MOST_CHOICES: Final = 128  # OpenAI's own limit
_MOST: Final = 2**32 - 1  # what the wire's uint32 holds
_DEEPEST: Final = 128  # arrays and objects within each other; everybody who reads them further recurses
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Call:
    """One generation request.

    `prompt` and `options` are the SDK's, but for model and tier; `service_tier` is what the body says, "" for
    nothing; `with_usage` asks for the usage at a stream's end.
    """

    prompt: str | None
    options: Options
    model: str
    choices: int
    service_tier: str
    stream: bool
    with_usage: bool


_TOO_DEEP: Final = f"the body is nested too deeply. Mend: at most {_DEEPEST} levels"

# Fields that mean the same to OpenAI, vLLM and the SDK, under the same name.
_SAMPLING: Final[Mapping[str, fields.Reader]] = MappingProxyType(
    {
        "temperature": fields.number(0, 2),
        "top_p": fields.number(0, 1),
        "top_k": fields.top_k,
        "min_p": fields.number(0, 1),
        "seed": fields.seed,
        "stop": fields.stop,
        "presence_penalty": fields.number(-2, 2),
        "frequency_penalty": fields.number(-2, 2),
        "repetition_penalty": fields.number(0, 100),
        "min_tokens": fields.integer(0, _MOST),
        "ignore_eos": fields.flag,
        "response_format": fields.response_format,
        "logit_bias": fields.logit_bias,
    }
)
_READ_COUNT: Final = fields.integer(1, _MOST)
_READ_CHOICES: Final = fields.integer(1, MOST_CHOICES)
_READ_ID: Final = fields.integer(0, _MOST)


def parse(data: bytes) -> Mapping[str, Any]:
    """A request body as JSON object; fields that are null are left out, as OpenAI reads them.

    Raises:
        ApiError: 400; the message says at which line and column the JSON goes wrong.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_no_such_number)
        _check_writable(value, data)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise bad_request(f"the body is no JSON: {error.msg} at {place}", code="invalid_json") from error
    except UnicodeDecodeError as error:
        message = f"the body is no JSON: byte {error.start} is not UTF-8"
        raise bad_request(message, code="invalid_json") from error
    except UnicodeEncodeError as error:
        message = "the body has half of a surrogate pair (\\ud800 to \\udfff) in a string. Mend: both halves"
        raise bad_request(message, code="invalid_json") from error
    except RecursionError as error:
        raise bad_request(_TOO_DEEP, code="invalid_json") from error
    except ValueError as error:
        raise bad_request(f"the body cannot be read: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise bad_request("the body is no JSON object. Mend: {…}", code="invalid_json")
    return {name: field for name, field in value.items() if field is not None}


def read_chat(data: bytes) -> Call:
    """The body of `/v1/chat/completions`.

    Raises:
        ApiError: 400 with the field at fault as `param`.
    """
    body = parse(data)
    unsupported.refuse_unsupported(body, unsupported.CHAT)
    options: Options = {"messages": messages(_required(body, "messages"), "messages")}
    # Told that it may call nothing, a model is best not told of tools at all.
    if body.get("tool_choice") != "none" and "tools" in body and (told := tools(body["tools"], "tools")):
        options["tools"] = told
    return _call(body, None, options, _most_tokens(body, "max_completion_tokens", "max_tokens"))


def read_text(data: bytes) -> Call:
    """The body of `/v1/completions`.

    Raises:
        ApiError: 400 with the field at fault as `param`.
    """
    body = parse(data)
    unsupported.refuse_unsupported(body, unsupported.TEXT)
    prompt = _prompt(_required(body, "prompt"), "prompt")
    if isinstance(prompt, str):
        return _call(body, prompt, {}, _most_tokens(body, "max_tokens"))
    return _call(body, None, {"prompt_ids": prompt}, _most_tokens(body, "max_tokens"))


def _call(body: Mapping[str, Any], prompt: str | None, options: Options, max_tokens: int | None) -> Call:
    sampling = {name: read(body[name], name) for name, read in _SAMPLING.items() if name in body}
    choices = _READ_CHOICES(body.get("n", 1), "n")
    stream = fields.flag(body.get("stream", False), "stream")
    stream_options = fields.mapping(body.get("stream_options", {}), "stream_options")
    if stream_options and not stream:
        raise bad_request("stream_options goes with stream: true only. Mend: leave it out", "stream_options")
    with_usage = stream_options.get("include_usage")
    return Call(
        prompt=prompt,
        # Each reader gives what the SDK takes under that name; a table cannot tell a type checker so.
        options=cast(Options, {**options, **sampling, "n": choices, "max_tokens": max_tokens}),
        model=fields.string(body.get("model", ""), "model"),
        choices=choices,
        service_tier=fields.string(body.get("service_tier", ""), "service_tier"),
        stream=stream,
        with_usage=with_usage is not None and fields.flag(with_usage, "stream_options.include_usage"),
    )


def _most_tokens(body: Mapping[str, Any], *names: str) -> int | None:
    """The output limit under any of its names; two that differ are a contradiction."""
    given = {name: _READ_COUNT(body[name], name) for name in names if name in body}
    if len(set(given.values())) > 1:
        said = " and ".join(f"{name}: {value}" for name, value in given.items())
        raise bad_request(f"{said} contradict each other. Mend: one of them", names[0])
    return next(iter(given.values()), None)


def _prompt(value: Any, param: str) -> str | list[int]:
    """A text, or token ids; OpenAI also lets one of either stand in an array."""
    match value:
        case str():
            return value
        case [str() | list()]:
            return _prompt(value[0], f"{param}[0]")
        case [str() | list(), *_]:
            message = f"{param}: {len(value)} prompts in one request. Mend: a request for each prompt"
            raise bad_request(message, param, code="unsupported_value")
        case [_, *_]:
            return [_READ_ID(item, f"{param}[{place}]") for place, item in enumerate(value)]
        case []:
            raise fields.out_of_range(value, param, "a prompt that is not empty")
    raise fields.wrong_type(value, param, "a string or an array of token ids")


def _required(body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise ApiError(400, f"{name} is missing. Mend: add it", param=name, code="missing_required_parameter")
    return body[name]


def _check_writable(value: Any, data: bytes) -> None:
    """What was read can be written again, for the worker: JSON allows more than UTF-8 and recursion do.

    Raises:
        RecursionError, UnicodeEncodeError: it cannot.
    """
    # Looked for twice: most texts have no such escape at all, and that is seen ten times as fast.
    if (b"\\ud" in data or b"\\uD" in data) and _SURROGATE.search(data):
        json.dumps(value, ensure_ascii=False).encode()
    if data.count(b"[") + data.count(b"{") > _DEEPEST:
        level = [value]
        for _ in range(_DEEPEST):
            level = [
                inner
                for outer in level
                if isinstance(outer, list | dict)
                for inner in (outer.values() if isinstance(outer, dict) else outer)
            ]
        if level:
            raise RecursionError


def _no_such_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")
