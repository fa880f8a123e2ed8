"""How figures are written on the page."""

from typing import Final

from diplex_cli.plan.lines import level
from diplex_core.plan.prediction import Prediction

BEYOND: Final = "▲"
GB: Final = 10**9
GIB: Final = 2**30
_CELLS: Final = 10


def milliseconds(seconds: float) -> str:
    """Three digits that count; from ten seconds on in seconds.

    >>> milliseconds(0.005584), milliseconds(0.4804), milliseconds(6.61), milliseconds(12.34)
    ('5.58 ms', '480 ms', '6,610 ms', '12.3 s')
    """
    if seconds >= 9.9995:
        return f"{seconds:,.1f} s"
    value = seconds * 1000
    return f"{value:,.{max(0, 3 - len(f'{value:.0f}'))}f} ms"


def rate(per_second: float) -> str:
    """Tokens a second, of which three digits count.

    >>> rate(78.64), rate(4618.2), rate(171.9)
    ('78.6', '4,618', '172')
    """
    return f"{per_second:,.{1 if per_second < 99.95 else 0}f}"


def watts(power: float) -> str:
    return f"{power:,.0f} W"


def gauge(share: float) -> str:
    """A share as a bar and in percent.

    >>> gauge(0.784)
    '████████··  78%'
    """
    return f"{level(share, _CELLS)} {share:4.0%}"


def beyond(prediction: Prediction | None, figure: str) -> str:
    """The mark of a figure that no engine can reach, with how far beyond the limit it lies; else nothing."""
    ratio = prediction.beyond.get(figure) if prediction else None
    return mark(ratio) if ratio else ""


def mark(ratio: float) -> str:
    """
    >>> mark(1.6399), mark(12.345)
    ('▲ 1.64×', '▲ 12.3×')
    """
    return f"{BEYOND} {ratio:.{2 if ratio < 9.995 else 1}f}×"


def gigabytes(size: float) -> str:
    """Both units, as in a sentence.

    >>> gigabytes(88583700480)
    '88.58 GB (82.50 GiB)'
    """
    return f"{size / GB:,.2f} GB ({size / GIB:,.2f} GiB)"


def counted(number: int, what: str) -> str:
    """
    >>> counted(1, "sequence"), counted(1200, "sequence")
    ('1 sequence', '1,200 sequences')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short(tokens: int) -> str:
    """A context as the field writes it.

    >>> short(32768), short(131072), short(5000)
    ('32k', '128k', '5,000')
    """
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else f"{tokens:,}"
