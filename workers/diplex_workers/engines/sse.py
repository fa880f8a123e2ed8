"""Server-sent events, as far as OpenAI-compatible servers use them: one JSON object on each `data:` line."""

import json
from typing import Any, Final

_DONE: Final = b"[DONE]"


class EventReader:
    """Turns bytes as they arrive into the objects that are whole by then.

    >>> reader = EventReader()
    >>> reader.feed(b'data: {"a": 1}\\n\\ndata: {"a"')
    [{'a': 1}]
    >>> reader.feed(b': 2}\\n\\ndata: [DONE]\\n\\n')
    [{'a': 2}]
    >>> reader.done
    True
    """

    __slots__ = ("_rest", "done")

    def __init__(self) -> None:
        self._rest = b""
        self.done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that these bytes complete, in order.

        Raises:
            ValueError: a `data:` line is no JSON object.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            # All else is blank, a comment (": ping") or an event's name.
            if not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == _DONE:
                self.done = True
                continue
            event = json.loads(payload.decode())  # told that it is UTF-8, it need not guess
            if not isinstance(event, dict):
                raise ValueError(f"an event is no JSON object: {payload[:80]!r}")
            events.append(event)
        return events
