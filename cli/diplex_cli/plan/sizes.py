"""Numbers of tokens as people write them: 32768, 32,768, 32k."""

import re
from typing import Final

from diplex_cli.failures import UsageError
from diplex_core.words import Tokens

_WRITTEN: Final = re.compile(r"(\d{1,12})|(\d{1,9}(?:\.\d{1,9})?)([km])", re.IGNORECASE | re.ASCII)
_THOUSANDS: Final = {"k": 1000, "m": 1000**2}
_POWERS: Final = {"k": 1024, "m": 1024**2}
_LARGEST_POWER: Final = 40


def tokens_in(text: str, option: str) -> Tokens:
    """How many tokens a word such as 32k means.

    The field writes powers of two both ways, 131,072 as 128k and as 131k. So Nk is the power of two that
    begins with N thousand where there is one, else N times 1,024.

    Args:
        option: whose word it is, for the message.
    Raises:
        UsageError: it is no number of 1 or more.

    >>> [tokens_in(text, "") for text in ("2k", "32K", "131k", "128k", "40k", "1.5k", "1m", "5,000")]
    [2048, 32768, 131072, 131072, 40960, 1536, 1048576, 5000]
    """
    written = _WRITTEN.fullmatch(text.replace(",", "").replace("_", ""))
    if written is None:
        raise UsageError(f"{option}: '{text}' is no number of tokens. Mend: {option} 32k, or {option} 32768")
    found = int(written[1]) if written[1] else _scaled(float(written[2]), written[3].lower())
    if found < 1:
        raise UsageError(f"{option}: '{text}' is not 1 or more. Mend: {option} 32k, or {option} 32768")
    return found


def _scaled(number: float, unit: str) -> Tokens:
    named: dict[int, Tokens] = {2**power // _THOUSANDS[unit]: 2**power for power in range(_LARGEST_POWER)}
    if number >= 1 and number in named:
        return named[int(number)]
    return round(number * _POWERS[unit])
