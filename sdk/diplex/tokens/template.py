"""A model's chat template, rendered as transformers, vLLM and llama.cpp render it.

What they have in common is as in transformers (`utils/chat_template_utils.py`): the sandbox, the trimming of
blocks, `tojson`, `raise_exception`, `strftime_now`, and the names that a template may use. What OpenAI's
messages hold beyond it is brought into the form that templates are written for, as both servers do.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "pad_token")


class Unrenderable(Exception):
    """The template does not take such a chat; the message says why, if it does."""


class ChatTemplate:
    """One model's template.

    Args:
        sources: Jinja texts by name; `tool_use` is taken where there are tools, else `default`.
        tokens: what it may write by name, such as `bos_token`.
    Raises:
        Unrenderable: it is no Jinja.
    """

    def __init__(self, sources: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        environment = _environment()
        try:
            self._templates = {name: environment.from_string(text) for name, text in sources.items()}
        except jinja2.TemplateError as error:
            raise Unrenderable(f"the chat template is no Jinja: {error}") from error
        self._tokens = dict(tokens)

    @classmethod
    def beside(cls, tokenizer: Path) -> "ChatTemplate | None":
        """The template that lies beside a tokenizer.json; `None`: there is none.

        Raises:
            Unrenderable: it cannot be read.
        """
        try:
            config = json.loads(_text(tokenizer.with_name("tokenizer_config.json")) or "{}")
        except ValueError as error:
            raise Unrenderable(f"tokenizer_config.json is no JSON: {error}") from error
        own = _text(tokenizer.with_name("chat_template.jinja"))
        template = own if own is not None else config.get("chat_template")
        if not template:
            return None
        sources = (
            {"default": template}
            if isinstance(template, str)
            else {entry["name"]: entry["template"] for entry in template}
        )
        tokens = {name: _written(config[name]) for name in _SPECIAL if config.get(name)}
        return cls(sources, tokens)

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        """The prompt that a chat becomes, up to where the answer begins.

        Raises:
            Unrenderable: the template does not take such a chat.
        """
        template = self._templates.get("tool_use" if tools else "default") or self._templates.get("default")
        if template is None:
            raise Unrenderable(f"no chat template for this chat among {', '.join(self._templates)}")
        try:
            return template.render(
                messages=[_plain(message) for message in messages],
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=True,
                **self._tokens,
            )
        # A template is a program of somebody else's: it may stumble over any message in any way.
        except Exception as error:
            raise Unrenderable(f"{type(error).__name__}: {error}") from error


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its text in one piece, and its calls' arguments as JSON values."""
    plain = dict(message)
    content = plain.get("content")
    if isinstance(content, list):
        plain["content"] = "\n".join(part.get("text") or part.get("refusal") or "" for part in content)
    elif content is None:
        plain["content"] = ""
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_plain_call(call) for call in plain["tool_calls"]]
    return plain


def _plain_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what training looks at. Here it is just what stands in it."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _written(token: Any) -> str:
    return str(token["content"] if isinstance(token, Mapping) else token)
