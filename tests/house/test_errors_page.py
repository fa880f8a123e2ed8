"""The page on errors lists every refusal that the core can give, with its code and its HTTP status."""

import re
from pathlib import Path

from diplex.wire.status import Problem
from diplex_core.events import Why
from diplex_rest.openai.errors import error_of
from diplex_router.translate import CODES

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (\d+) \|", re.MULTILINE)


def test_every_reason_stands_on_the_page_with_its_code_and_its_http_status(root: Path):
    page = (root / "docs/guide/errors.md").read_text()
    told = {reason: (code, int(status)) for reason, code, status in ROW.findall(page)}
    problems = {why.value: Problem(code, "", why.value) for why, code in CODES.items()}
    assert told == {why: (problem.code.name, error_of(problem).status) for why, problem in problems.items()}
    assert told.keys() == {why.value for why in Why}
