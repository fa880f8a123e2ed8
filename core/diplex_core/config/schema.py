"""The configuration's JSON Schema, for editors: `python -m diplex_core.config.schema` prints it."""

import json
from typing import Any

from diplex_core.config.keys import file
from diplex_core.placement.book import OWN, Book


def schema(book: Book = OWN) -> dict[str, Any]:
    """The schema of one whole configuration file (draft 2020-12) that may name these rules.

    Cross checks (a known model, a free port) are not in it: `diplex config check` has them.
    """
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "diplex configuration"}
    return head | file(book).schema()


def text(book: Book = OWN) -> str:
    return json.dumps(schema(book), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
