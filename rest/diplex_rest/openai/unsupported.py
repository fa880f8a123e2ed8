"""Fields that would change the answer and cannot be honoured: a clear 400 instead of a silently wrong answer.

Fields that are not named here and that nobody reads are ignored, as OpenAI-compatible servers do: `user`,
`metadata`, `store`, `parallel_tool_calls`, and whatever OpenAI adds tomorrow.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from diplex_rest.openai.errors import bad_request

_OFF: Final[tuple[Any, ...]] = (None, False)
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})

# Field → the values that ask for nothing, and so are accepted.
_EVERYWHERE: Final[Mapping[str, tuple[Any, ...]]] = {
    "allowed_token_ids": _EMPTY,
    "bad_words": _EMPTY,
    "guided_choice": _EMPTY,
    "guided_grammar": _EMPTY,
    "guided_json": _EMPTY,
    "guided_regex": _EMPTY,
    "include_stop_str_in_output": _OFF,
    "logits_processors": _EMPTY,
    "prompt_logprobs": (None,),
    "skip_special_tokens": (None, True),
    "stop_token_ids": _EMPTY,
    "structured_outputs": _EMPTY,
    "truncate_prompt_tokens": (None,),
    "use_beam_search": _OFF,
}
CHAT: Final[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        **_EVERYWHERE,
        "add_generation_prompt": (None, True),
        "audio": (None,),
        "chat_template": (None,),
        "chat_template_kwargs": _EMPTY,
        "continue_final_message": _OFF,
        "documents": _EMPTY,
        "echo": _OFF,
        "function_call": (None, "none"),
        "functions": _EMPTY,
        "logprobs": _OFF,
        "modalities": (None, ["text"]),
        "moderation": (None,),
        "tool_choice": (None, "auto", "none"),
        "top_logprobs": (None, 0),
        "web_search_options": (None,),
    }
)
TEXT: Final[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        **_EVERYWHERE,
        "best_of": (None, 1),
        "echo": _OFF,
        "logprobs": _OFF,
        "suffix": (None, ""),
    }
)
_MENDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "functions": "use tools",
        "function_call": "use tools",
        "tool_choice": "auto or none; a call comes as text",
        "guided_json": "use response_format",
        "structured_outputs": "use response_format",
        "best_of": "use n, and choose among the answers",
    }
)


def refuse_unsupported(body: Mapping[str, Any], fields: Mapping[str, tuple[Any, ...]]) -> None:
    """Return if the body asks for nothing that cannot be honoured.

    Raises:
        ApiError: 400, code `unsupported_parameter`, naming the first such field.
    """
    for name in body.keys() & fields.keys():
        value, harmless = body[name], fields[name]
        # By type too: 0 asks for log probabilities, and equals False.
        if not any(type(value) is type(good) and value == good for good in harmless):
            mend = _MENDS.get(name, "leave it out")
            message = f"{name}: {value!r:.80} cannot be honoured here. Mend: {mend}"
            raise bad_request(message, name, code="unsupported_parameter")
