"""The configuration's JSON Schema, for editors: `python -m diplex_core.config.schema` prints it."""

import json
from typing import Any

from diplex_core.config.keys import FILE


def schema() -> dict[str, Any]:
    """The schema of one whole configuration file (draft 2020-12).

    Cross checks (a known model, a free port) are not in it: `diplex config check` has them.
    """
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "diplex configuration"}
    return head | FILE.schema()


def text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
