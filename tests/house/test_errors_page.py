"""The page on errors lists every refusal that the core can give, with the code that the router maps it to."""

import re
from pathlib import Path

from diplex_core.events import Why
from diplex_router.translate import CODES

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (\d+) \|", re.MULTILINE)


def test_every_reason_stands_on_the_page_with_its_code(root: Path):
    page = (root / "docs/guide/errors.md").read_text()
    assert {reason: code for reason, code, _ in ROW.findall(page)} == {
        why.value: CODES[why].name for why in Why
    }
