"""What the simulated engine says is a function of the prompt, and of nothing else."""

import pytest

from diplex_core.sim.speech import (
    LONGEST,
    SHORTEST,
    WORDS,
    cut_at_stop,
    natural_length,
    prompt_digest,
    share,
    token,
)

DIGEST = prompt_digest("text", b"hello")


def words(count: int, *, digest: int = DIGEST, choice: int = 0) -> str:
    return "".join(token(digest, choice, index)[1] for index in range(count))


def test_the_same_prompt_says_the_same_words_today_and_in_a_year():
    assert words(6) == "vedo tasa zohi pofe voso tezi"


def test_other_prompts_choices_and_kinds_say_other_words():
    others = [
        words(20, digest=prompt_digest("text", b"hallo")),
        words(20, digest=prompt_digest("chat", b"hello")),
        words(20, choice=1),
    ]
    assert len({words(20), *others}) == 4


def test_neighbouring_tokens_differ_so_that_a_lost_or_repeated_one_shows():
    ids = [token(DIGEST, 0, index)[0] for index in range(200)]
    assert len(set(ids)) > 180


def test_a_tokens_id_is_the_number_of_its_word():
    number, text = token(DIGEST, 0, 5)
    assert text == " " + WORDS[number]


def test_only_the_first_word_has_no_space_before_it():
    assert not token(DIGEST, 0, 0)[1].startswith(" ")
    assert all(token(DIGEST, 0, index)[1].startswith(" ") for index in range(1, 50))


def test_no_two_words_are_the_same():
    assert len(set(WORDS)) == len(WORDS) == 4096


def test_an_answers_natural_length_lies_within_its_bounds_and_varies():
    lengths = {natural_length(prompt_digest("text", b"%d" % n), 0) for n in range(500)}
    assert min(lengths) >= SHORTEST
    assert max(lengths) <= LONGEST
    assert len(lengths) > 100


def test_shares_lie_between_none_and_all_and_spread():
    shares = [share(7, number) for number in range(1000)]
    assert 0 <= min(shares) < 0.01
    assert 0.99 < max(shares) < 1
    assert sum(shares) / 1000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("stop", "tokens", "before"),
    [
        ((" zohi",), 3, "vedo tasa"),
        (("o",), 1, "ved"),
        (("hi po",), 4, "vedo tasa zo"),  # across two tokens: the one that completes it still counts
        (("pofe", "tasa"), 2, "vedo "),
        (("", "tasa"), 2, "vedo "),
    ],
)
def test_a_stop_string_ends_the_text_before_itself(stop: tuple[str, ...], tokens: int, before: str):
    assert cut_at_stop(DIGEST, 0, 10, stop) == (tokens, len(before))


def test_a_stop_string_that_never_comes_ends_nothing():
    assert cut_at_stop(DIGEST, 0, 10, ("xylophone",)) is None
