"""What is drawn has the rate, the lengths and the prefixes that were asked for, alike for one seed."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from diplex_cli.failures import UsageError
from diplex_cli.simulate.streams import Request, Stream, stream_of
from diplex_cli.simulate.synthetic import LogNormal, read


def stream(text: str, *, requests: int | None = None, seed: int = 0) -> Stream:
    return stream_of(text, limit=None, rounds=None, requests=requests, seed=seed)


def gaps(came: list[Request]) -> list[float]:
    return [later.at - one.at for one, later in pairwise(came)]


def test_what_is_not_said_has_a_default():
    drawn = stream("poisson:rate=10")
    assert (drawn.count, drawn.rate) == (10_000, 10.0)
    assert next(iter(drawn.requests(32))) == Request(0.0, 1500, 200)
    assert stream("poisson").rate is None


def test_a_steady_stream_has_one_gap():
    came = list(stream("steady:rate=4,requests=5").requests(32))
    assert [one.at for one in came] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("text", "variation"), [("poisson", 1.0), ("bursty:burst=3", 3.0)])
def test_gaps_have_the_mean_and_the_variation_that_were_asked_for(text: str, variation: float):
    drawn = gaps(list(stream(text, requests=40_000).requests(32, 200.0)))
    assert fmean(drawn) == pytest.approx(1 / 200, rel=0.05)
    assert pstdev(drawn) / fmean(drawn) == pytest.approx(variation, rel=0.05)


@pytest.mark.parametrize(("mean", "p95"), [(1500, 5000), (200, 700), (100, 100), (100, 386)])
def test_a_log_normal_length_has_the_mean_and_the_percentile_that_were_asked_for(mean: int, p95: int):
    text = f"poisson:rate=1,output={mean},output_p95={p95}"
    drawn = sorted(one.output for one in stream(text, requests=40_000).requests(32))
    assert fmean(drawn) == pytest.approx(mean, rel=0.05)
    assert drawn[int(0.95 * len(drawn))] == pytest.approx(p95, rel=0.05)
    assert LogNormal(mean, p95).sigma >= 0


def test_lengths_of_a_trace_are_drawn_in_pairs(tmp_path: Path):
    file = tmp_path / "trace.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,30,3\n3,40,0\n")
    drawn = Counter((one.prompt, one.output) for one in stream(f"steady:rate=1,lengths={file}").requests(32))
    assert set(drawn) == {(10, 1), (20, 2), (30, 3), (40, 1)}
    assert all(count == pytest.approx(2500, rel=0.1) for count in drawn.values())


def test_prefixes_are_whole_blocks_and_the_first_the_most_frequent():
    drawn = Counter(one.hashes for one in stream("poisson:rate=1,prefixes=4x100").requests(32))
    assert [len(hashes) for hashes in drawn] == [3] * 4
    assert len({block for hashes in drawn for block in hashes}) == 12
    shares = [count / 10_000 for _, count in drawn.most_common()]
    assert shares == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25], rel=0.1)  # 1, 1/2, 1/3, 1/4


def test_a_prompt_that_is_shorter_than_its_prefix_has_the_beginning_of_it():
    (short,) = stream("steady:rate=1,prompt=96,prefixes=1x512", requests=1).requests(32)
    (long,) = stream("steady:rate=1,prompt=1000,prefixes=1x512", requests=1).requests(32)
    assert short.hashes == long.hashes[:2]


def test_another_rate_brings_the_same_requests_and_another_seed_others():
    text = "bursty:prompt_p95=4000,output_p95=500,prefixes=10x512"
    one, faster = (list(stream(text, requests=100).requests(32, rate)) for rate in (1.0, 10.0))
    assert [request[1:] for request in one] == [request[1:] for request in faster]
    assert [request.at for request in one] == pytest.approx([10 * request.at for request in faster])
    assert [request[1:] for request in stream(text, requests=100, seed=1).requests(32)] != [
        request[1:] for request in one
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("poisson:rate=1", "10,000 requests drawn, prompts of 1,500 tokens, answers of 200 tokens"),
        (
            "bursty:output_p95=500,prefixes=100x512",
            "10,000 requests drawn, gaps vary by 4 times their mean, prompts of 1,500 tokens, answers of 200 "
            "tokens in the mean (p95 500), one of 100 prefixes of 512 tokens (Zipf 1)",
        ),
    ],
)
def test_it_is_told_in_a_few_words(text: str, said: str):
    assert read(text, requests=None, seed=0).about == said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("poisson:rate=0", "poisson: rate=0 is no number above 0. Mend: rate=100"),
        ("poisson:rate=many", "poisson: rate=many is no number above 0. Mend: rate=100"),
        ("poisson:rat=1", "poisson: 'rat' is no word of it. Mend: rate=…"),
        ("poisson:burst=4", "poisson: 'burst' is no word of it. Mend: one of rate, requests"),
        ("poisson:zzz", "poisson: 'zzz' is no word of it. Mend: one of rate, requests"),
        ("poisson:rate", "poisson: rate has no value. Mend: rate=…"),
        ("poisson:rate=1,rate=2", "poisson: rate is said twice. Mend: once"),
        ("poisson:requests=1.5", "poisson: requests=1.5 is no whole number. Mend: requests=100"),
        ("poisson:prefixes=100", "poisson: prefixes=100 is not COUNTxTOKENS. Mend: prefixes=100x512"),
        ("poisson:prefixes=0x512", "poisson: prefixes=0x512 is not COUNTxTOKENS."),
        (
            "poisson:prompt=100,prompt_p95=400",
            "poisson: prompt_p95=400 is not within 1 and 3.87 times the mean of 100. Mend: prompt_p95=200",
        ),
        ("poisson:prompt_p95=100", "is not within 1 and 3.87 times the mean of 1,500. Mend: prompt_p95=3000"),
        ("poisson:lengths=x.csv,prompt=1", "poisson: prompt and lengths are both said. Mend: one of them"),
        ("poisson:lengths=nothing.csv", "nothing.csv: No such file or directory."),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_mend(text: str, told: str):
    with pytest.raises(UsageError) as raised:
        stream(text)
    assert told in str(raised.value)
