"""Numbers of tokens as people write them."""

import pytest

from diplex_cli.failures import UsageError
from diplex_cli.plan.sizes import tokens_in


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("1", 1),
        ("32768", 32768),
        ("32,768", 32768),
        ("32_768", 32768),
        ("2k", 2048),
        ("32K", 32768),
        ("64k", 65536),
        ("65k", 65536),
        ("128k", 131072),
        ("131k", 131072),
        ("1m", 1048576),
        ("100k", 102400),
        ("1.5k", 1536),
    ],
)
def test_a_size_is_understood_as_the_field_writes_it(written: str, tokens: int):
    assert tokens_in(written, "--context") == tokens


@pytest.mark.parametrize(
    "written", ["", "k", "0", "0k", "-1", "32kb", "1e3", "many", "1.2", "0.0001k", "inf", "९"]
)
def test_what_is_no_number_of_tokens_is_told_with_the_option(written: str):
    with pytest.raises(UsageError, match=r"^--prompt: .*Mend: --prompt 32k"):
        tokens_in(written, "--prompt")
