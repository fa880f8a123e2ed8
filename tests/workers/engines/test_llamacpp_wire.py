"""What llama.cpp's events come to, token by token, and how a job is worded: no server needed."""

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex_core.words import Claim
from diplex_workers.engines.engine import Counted, Job
from diplex_workers.engines.llamacpp_wire import ChoiceReader, completion, named


def event(content: str, *tokens: int, predicted: int) -> dict[str, object]:
    return {"content": content, "tokens": list(tokens), "tokens_predicted": predicted}


def job(max_tokens: int = 9, resume: pb.Resume | None = None, **sampling: object) -> Job:
    return Job(
        Claim(1, 1),
        "m",
        pb.Prompt(text="x"),
        Counted(1),
        pb.Sampling(**sampling),
        max_tokens,
        resume=resume,
    )


def test_a_token_with_text_goes_on_at_once():
    assert ChoiceReader().take(event("The", 504, predicted=1)) == (1, [504], "The")


def test_tokens_without_text_wait_for_it():
    reader = ChoiceReader()
    assert reader.take(event("", 7, predicted=1)) == (0, [], "")
    assert reader.take(event("", 8, predicted=2)) == (0, [], "")
    assert reader.take(event("END of", 9, predicted=3)) == (3, [7, 8, 9], "END of")


def test_a_character_of_three_tokens_is_three_tokens_with_one_id_known():
    reader = ChoiceReader()
    reader.take(event("a", 1, predicted=1))
    assert reader.take(event("🦄", 222, predicted=4)) == (3, [222], "🦄")


def test_what_waited_is_released_at_the_end():
    reader = ChoiceReader()
    reader.take(event("", 2, predicted=1))
    assert reader.take(event("", predicted=1)) == (0, [], "")
    assert reader.release() == (1, [2], "")
    assert reader.release() == (0, [], "")


def test_tokens_of_an_unfinished_character_at_the_limit_are_counted():
    reader = ChoiceReader()
    reader.take(event("a", 1, predicted=1))
    reader.take(event("", predicted=3))
    assert reader.release() == (2, [], "")


@pytest.mark.parametrize(
    ("tokenised", "ids"),
    [((1, 2, 3), (1, 2, 3)), ((1, 3), ()), ((1, 2, 4), ()), ((), ())],
    ids=["as produced", "fewer", "another end", "none"],
)
def test_ids_are_taken_from_the_tokenizer_only_where_they_agree(tokenised, ids):
    assert named(3, [3], tokenised) == ids


def test_only_what_was_stated_is_asked_for():
    body = completion(job(), [1])
    assert not {"temperature", "seed", "stop", "json_schema", "logit_bias"} & body.keys()
    assert body["n_predict"] == 9


def test_a_stated_zero_is_stated():
    assert completion(job(temperature=0, top_k=0), [1]) | {"temperature": 0, "top_k": 0} == completion(
        job(temperature=0, top_k=0), [1]
    )


def test_a_resumed_job_asks_for_what_is_left():
    assert completion(job(9, pb.Resume(from_index=4, ids=[1, 2, 3, 4])), [1])["n_predict"] == 5


def test_sixty_four_bit_seeds_fit_and_never_mean_any():
    assert completion(job(seed=2**32 - 1), [1])["seed"] == 0
    assert completion(job(seed=2**64 - 1), [1])["seed"] < 2**32 - 1
