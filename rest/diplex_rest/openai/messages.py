"""A chat's messages and tools: checked as far as every model needs them, and handed on as they came."""

from collections.abc import Mapping
from typing import Any

from diplex_rest.openai.errors import bad_request
from diplex_rest.openai.fields import mapping, out_of_range, string, wrong_type


def messages(value: Any, param: str) -> list[Mapping[str, Any]]:
    """A conversation of at least one message, in text.

    Which roles there are is the chat template's business, which the worker renders.

    Raises:
        ApiError: 400 with the path of the message or part at fault.
    """
    if not isinstance(value, list):
        raise wrong_type(value, param, "an array of messages")
    if not value:
        raise out_of_range(value, param, "at least one message")
    for place, message in enumerate(value):
        path = f"{param}[{place}]"
        if not string(mapping(message, path).get("role"), f"{path}.role"):
            raise out_of_range("", f"{path}.role", "a role")
        _check_content(message, path)
    return value


def tools(value: Any, param: str) -> list[Mapping[str, Any]]:
    """The functions that a model is told of.

    Raises:
        ApiError: 400 with the path of the tool at fault.
    """
    if not isinstance(value, list):
        raise wrong_type(value, param, "an array of tools")
    for place, tool in enumerate(value):
        path = f"{param}[{place}]"
        if mapping(tool, path).get("type") != "function":
            raise out_of_range(tool.get("type"), f"{path}.type", "'function'")
        function = mapping(tool.get("function"), f"{path}.function")
        string(function.get("name"), f"{path}.function.name")
    return value


def _check_content(message: Mapping[str, Any], path: str) -> None:
    content = message.get("content")
    if content is None:
        # Only an assistant's message may be all tool calls.
        if message["role"] != "assistant":
            raise wrong_type(content, f"{path}.content", "a string or an array of text parts")
    elif isinstance(content, str):
        string(content, f"{path}.content")
    elif isinstance(content, list):
        for place, part in enumerate(content):
            _check_part(part, f"{path}.content[{place}]")
    else:
        raise wrong_type(content, f"{path}.content", "a string or an array of text parts")


def _check_part(part: Any, path: str) -> None:
    kind = mapping(part, path).get("type")
    if kind not in ("text", "refusal"):
        message = f"{path}.type: {kind!r:.80} cannot be read by text models. Mend: text parts only"
        raise bad_request(message, f"{path}.type", code="unsupported_content")
    string(part.get(kind), f"{path}.{kind}")
