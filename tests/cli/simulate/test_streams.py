"""A trace as it comes: once, many times round, faster, and with what its prompts share."""

from itertools import pairwise
from pathlib import Path

import pytest

from diplex_cli.failures import UsageError
from diplex_cli.simulate.streams import Recorded, Request, Stream, stream_of

ROOT = Path(__file__).parents[3]
AZURE = "arrival_s,input_tokens,output_tokens\n0.0,4808,10\n0.5,3180,8\n2.0,100,20\n"
MOONCAKE = """\
{"timestamp":0,"input_length":1600,"output_length":52,"hash_ids":[46,47,48,49]}
{"timestamp":1000,"input_length":1100,"output_length":26,"hash_ids":[46,47,50]}
{"timestamp":2000,"input_length":600,"output_length":26,"hash_ids":[7,8]}
"""


@pytest.fixture
def azure(tmp_path: Path) -> str:
    file = tmp_path / "azure.csv"
    file.write_text(AZURE)
    return str(file)


@pytest.fixture
def mooncake(tmp_path: Path) -> str:
    file = tmp_path / "mooncake.jsonl"
    file.write_text(MOONCAKE)
    return str(file)


def stream(
    text: str, *, limit: int | None = None, rounds: int | None = None, requests: int | None = None
) -> Stream:
    return stream_of(text, limit=limit, rounds=rounds, requests=requests, seed=0)


def test_a_trace_comes_once_as_it_is(azure: str):
    once = stream(azure)
    assert list(once.requests(32)) == [
        Request(0.0, 4808, 10),
        Request(0.5, 3180, 8),
        Request(2.0, 100, 20),
    ]
    assert (once.name, once.format, once.total, once.count, once.rate) == ("azure.csv", "Azure", 3, 3, 1.0)
    assert once.about == "3 requests"
    assert stream(azure, limit=2).about == "the first 2 of 3 requests"


def test_a_round_begins_a_mean_gap_after_the_one_before(azure: str):
    assert [one.at for one in stream(azure, rounds=2).requests(32)] == [0.0, 0.5, 2.0, 3.0, 3.5, 5.0]
    many = stream(azure, requests=7)
    assert [one.at for one in many.requests(32)] == [0.0, 0.5, 2.0, 3.0, 3.5, 5.0, 6.0]
    assert (many.count, many.rate) == (7, 1.0)
    assert many.about == "3 requests, 2.333 times round, 7 in all"


def test_another_rate_stretches_time_and_nothing_else(azure: str):
    assert [one.at for one in stream(azure, rounds=2).requests(32, 10.0)] == pytest.approx(
        [0.0, 0.05, 0.2, 0.3, 0.35, 0.5]
    )


def test_every_whole_block_is_said_whether_another_prompt_has_it_or_not(mooncake: str):
    requests = list(stream(mooncake).requests(32))
    hashes = [one.hashes for one in requests]
    assert [len(one.hashes) for one in requests] == [(one.prompt - 1) // 32 for one in requests]
    assert hashes[0][:32] == hashes[1][:32]
    assert not set(hashes[0][32:]) & set(hashes[1][32:])
    assert [one.hashes for one in stream(mooncake, limit=1).requests(32)] == [hashes[0]]
    assert [one.hashes for one in stream(mooncake).requests(0)] == [(), (), ()]


def test_another_round_shares_nothing_with_the_first(mooncake: str):
    rounds = [one.hashes for one in stream(mooncake, rounds=2).requests(32)]
    assert rounds[3][:32] == rounds[4][:32]
    assert not set(rounds[0]) & set(rounds[3])


def test_one_request_cannot_go_round(azure: str):
    with pytest.raises(UsageError, match=r"one request has no rate to go round at. Mend: poisson:rate="):
        stream(azure, limit=1, rounds=3)


def test_what_is_drawn_has_no_rounds():
    with pytest.raises(UsageError, match=r"--repeat: there is no end to what is drawn. Mend: --requests N"):
        stream("poisson:rate=1", rounds=2)


def test_a_file_of_a_kinds_name_is_a_file(azure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poisson:rate=1").write_text(AZURE)
    assert isinstance(stream("poisson:rate=1"), Recorded)


@pytest.mark.parametrize(
    "trace", sorted((ROOT / "benchmarks/traces").glob("*.gz")), ids=lambda path: path.name
)
def test_every_trace_of_the_repository_comes_in_order(trace: Path):
    came = list(stream(str(trace), limit=200, rounds=2).requests(32))
    assert len(came) == 400
    assert all(one.at <= other.at for one, other in pairwise(came))
    assert all(32 * len(one.hashes) < one.prompt for one in came)
    assert any(one.hashes for one in came) == ("mooncake" in trace.name)
