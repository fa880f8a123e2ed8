"""Chat templates, rendered as transformers does it."""

from pathlib import Path
from typing import Any

import pytest

from diplex.tokens.template import ChatTemplate, Unrenderable

USER = {"role": "user", "content": "hi"}


def rendered(template: str, *messages: dict[str, Any], tools: tuple[Any, ...] = ()) -> str:
    return ChatTemplate({"default": template}, {"bos_token": "<s>"}).render(messages or (USER,), tools)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>hi"),
        ("{% if add_generation_prompt %}assistant:{% endif %}", "assistant:"),
        ("  {% if true %}\na\n  {% endif %}\n", "a\n"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]'),
        ("{% if tools %}tools{% else %}none{% endif %}", "none"),
        ("{% for m in messages %}{% break %}{% endfor %}x", "x"),
        ("{% generation %}y{% endgeneration %}", "y"),
        ("{{ eos_token is defined }}", "False"),
    ],
    ids=[
        "tokens",
        "the answer begins",
        "blocks are trimmed",
        "tojson",
        "no tools",
        "break",
        "generation",
        "absent",
    ],
)
def test_a_template_finds_what_transformers_gives_it(template: str, text: str):
    assert rendered(template) == text


def test_json_in_a_prompt_is_not_escaped_for_html():
    assert rendered("{{ messages[0].content | tojson }}", {"role": "user", "content": "<é>"}) == '"<é>"'


def test_text_parts_become_one_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert rendered("{{ messages[0].content }}", {"role": "user", "content": parts}) == "a\nb"


def test_a_message_that_is_all_calls_has_an_empty_text():
    assert rendered("[{{ messages[0].content }}]", {"role": "assistant", "content": None}) == "[]"


@pytest.mark.parametrize(
    ("arguments", "text"), [('{"city":"Paris"}', '{"city": "Paris"}'), ("", "{}"), ("not json", '"not json"')]
)
def test_a_calls_arguments_are_values_where_they_are_json(arguments: str, text: str):
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "tool_calls": [call]}
    assert rendered("{{ messages[0].tool_calls[0].function.arguments | tojson }}", message) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[7].content + 1 }}",
        "{{ messages[0].content.__class__.mro() }}",
    ],
    ids=["it says so", "it stumbles", "the sandbox holds"],
)
def test_a_chat_that_a_template_does_not_take_is_unrenderable(template: str):
    with pytest.raises(Unrenderable):
        rendered(template)


def test_what_is_no_jinja_is_said_when_it_is_read():
    with pytest.raises(Unrenderable, match="no Jinja"):
        ChatTemplate({"default": "{% if"}, {})


def test_tools_have_a_template_of_their_own_where_there_is_one():
    template = ChatTemplate({"default": "d", "tool_use": "t"}, {})
    assert (template.render([USER], []), template.render([USER], [{"type": "function"}])) == ("d", "t")


def test_a_template_of_its_own_file_comes_before_the_configurations(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old", "bos_token": "<s>"}')
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}new")
    template = ChatTemplate.beside(tmp_path / "tokenizer.json")
    assert template is not None
    assert template.render([USER], []) == "<s>new"


def test_a_tokenizer_may_lie_there_without_a_template(tmp_path: Path):
    assert ChatTemplate.beside(tmp_path / "tokenizer.json") is None
