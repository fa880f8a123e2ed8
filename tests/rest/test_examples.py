"""The examples that stand in docstrings run, and give what they say."""

import doctest
from types import ModuleType

import pytest

from diplex_rest import joining, sse
from diplex_rest.openai import errors


@pytest.mark.parametrize("module", [errors, joining, sse], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_run(module: ModuleType):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
