"""What a simulated engine says: each token is a function of the prompt, the choice and the token's place.

The same prompt gives the same words on every path, worker and attempt, so a lost, repeated or foreign token
shows in the text itself. Words are two short syllables: 4,096 of them, and a token's id is its word's number.
"""

from bisect import bisect_right
from hashlib import blake2b
from math import ceil
from typing import Final

from diplex_core.words import Tokens

SHORTEST: Final[Tokens] = 64
LONGEST: Final[Tokens] = 256
"""An answer that nobody asked to be of a certain length ends by itself within these."""

MOST_DRAWN: Final = 256
"""Steps of one answer whose drafts are drawn one by one where an answer's end is foreseen."""

_SYLLABLES: Final = tuple(start + end for start in "bdfghjklmnprstvz" for end in ("a", "e", "i", "o"))
WORDS: Final = tuple(first + second for first in _SYLLABLES for second in _SYLLABLES)
_SPACED: Final = tuple(" " + word for word in WORDS)
_MASK: Final = (1 << 64) - 1
_CHOICE, _INDEX = 0xD1342543DE82EF95, 0x9E3779B97F4A7C15  # odd, so that no two places fall together


def prompt_digest(kind: str, payload: bytes) -> int:
    """64 bits that stand for a prompt.

    Args:
        kind: text, chat or ids.
        payload: the text as UTF-8; the messages' JSON, and tools behind a zero byte where there are any; the
            ids as decimal numbers with commas between.
    """
    return int.from_bytes(blake2b(payload, digest_size=8, key=kind.encode()).digest(), "big")


def token(digest: int, choice: int, index: int) -> tuple[int, str]:
    """Id and text of one token; the first of an answer has no space before it."""
    number = _mixed(digest + choice * _CHOICE + index * _INDEX) >> 52
    return number, _SPACED[number] if index else WORDS[number]


def natural_length(digest: int, choice: int) -> Tokens:
    """Tokens after which the answer ends by itself."""
    return SHORTEST + _mixed(~digest + choice) % (LONGEST - SHORTEST + 1)


def share(seed: int, number: int) -> float:
    """A number between 0 and 1 that seems random and is the same for the same arguments."""
    return _mixed(seed * 0xBF58476D1CE4E5B9 + number) / 2**64


def drawn(seed: int, digest: int, choice: int, index: int) -> float:
    """Chance at one place of one answer: a number between 0 and 1, the same for the same arguments."""
    return share(seed, _mixed(digest + choice * _CHOICE + index * _INDEX))


def odds_of(draft: Tokens, acceptance: float) -> tuple[float, ...]:
    """How often so many drafts of a chain are right, from all of them down to the first alone."""
    return tuple(acceptance**ahead for ahead in range(draft, 0, -1))


def drafts_right(seed: int, digest: int, choice: int, index: int, odds: tuple[float, ...]) -> Tokens:
    """Drafted tokens before the first wrong one, of a step that begins at this place: one draw decides."""
    return len(odds) - bisect_right(odds, drawn(seed, digest, choice, index))


def steps_taken(
    seed: int, digest: int, choice: int, start: Tokens, end: Tokens, odds: tuple[float, ...]
) -> int:
    """Steps in which an engine that drafts ahead says the tokens from one place to another.

    Args:
        end: the place behind the last token.
        odds: as `odds_of` gives them.
    Returns:
        Exactly what `drafts_right` comes to, step by step, for the first `MOST_DRAWN` steps; from there on
        what is left of the answer at the mean.
    """
    index, steps = start, 0
    while index < end and steps < MOST_DRAWN:
        index += 1 + drafts_right(seed, digest, choice, index, odds)
        steps += 1
    return steps + ceil(max(0, end - index) / (1.0 + sum(odds)))


def cut_at_stop(digest: int, choice: int, most: Tokens, stop: tuple[str, ...]) -> tuple[Tokens, int] | None:
    """Where the first stop string ends an answer of at most `most` tokens.

    Returns:
        The tokens that are produced, the one that completes the stop string included, and the characters
        that stand before it; `None` where none of the strings occurs.
    """
    ends: list[int] = []
    text = ""
    for index in range(most):
        text += token(digest, choice, index)[1]
        ends.append(len(text))
    found = [(at, at + len(string)) for string in stop if string and (at := text.find(string)) >= 0]
    if not found:
        return None
    # Of two that overlap the one completed first ends the answer, as it would token by token.
    first, last = min(found, key=lambda place: (place[1], place[0]))
    return next(number for number, end in enumerate(ends, 1) if end >= last), first


def _mixed(value: int) -> int:
    """The finaliser of splitmix64: neighbouring numbers come out far apart. Source: Steele et al., 2014."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
