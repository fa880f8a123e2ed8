"""Server-sent events as OpenAI frames them: `data: {…}`, a blank line, and `[DONE]` at the end.

A token's event differs from the one before only in its text. So an event is cut once where the text goes, and
each token costs one escape and two concatenations.
"""

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final

HOLE: Final = "\0text\0"
DONE: Final = b"data: [DONE]\n\n"


def event(data: bytes) -> bytes:
    """One event around data that holds no line break, such as JSON."""
    return b"data: " + data + b"\n\n"


def json_event(value: Mapping[str, Any]) -> bytes:
    return event(json.dumps(value, separators=(",", ":")).encode())


def cut(value: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The event of a value, cut where it says HOLE: what goes before and behind the text that is put there.

    >>> before, behind = cut({"choices": [{"delta": {"content": HOLE}}]})
    >>> before + text("“hi”") + behind
    b'data: {"choices":[{"delta":{"content":"\\\\u201chi\\\\u201d"}}]}\\n\\n'
    """
    # The last one, because a name that stands before it might hold the same characters.
    before, _, behind = json_event(value).rpartition(json.dumps(HOLE).encode())
    return before, behind


def text(piece: str) -> bytes:
    """A JSON string, in ASCII: clients that split lines as Unicode does would cut an event at U+2028."""
    return encode_basestring_ascii(piece).encode()
