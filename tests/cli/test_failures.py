"""Expected failures have a text and a code; the others are bugs."""

import pytest

from diplex.wire.serving import PortTaken
from diplex_cli.failures import NotFine, UsageError, told
from diplex_core.config import ConfigErrors, Fault


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("so"), 2),
        (NotFine("so"), 1),
        (PortTaken("so"), 2),
        (ConfigErrors([Fault((), "so")]), 2),
    ],
)
def test_an_expected_failure_has_its_words_and_its_code(error: Exception, code: int):
    failure = told(error, "up")
    assert failure is not None
    assert (failure.text, failure.code) == ("so", code)


@pytest.mark.parametrize(
    ("module", "command", "text"),
    [
        ("starlette", "rest", "diplex rest needs starlette. Mend: pip install 'diplex[rest]'"),
        ("uvloop", "router", "diplex router needs uvloop. Mend: pip install 'diplex[server]'"),
        ("uvloop", "rest", "diplex rest needs uvloop. Mend: pip install 'diplex[rest]'"),
        ("tokenizers", "rest", "diplex rest needs tokenizers. Mend: pip install 'diplex[tokenizers]'"),
        ("grpc_health.v1", "worker", "diplex worker needs grpc_health. Mend: pip install 'diplex[server]'"),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(module: str, command: str, text: str):
    failure = told(ModuleNotFoundError("no", name=module), command)
    assert failure is not None
    assert (failure.text, failure.code) == (text, 2)


@pytest.mark.parametrize(
    "error", [ValueError("bug"), ModuleNotFoundError("bug", name="diplex_corr"), OSError(5, "x")]
)
def test_what_nobody_expected_is_a_bug(error: Exception):
    assert told(error, "up") is None
