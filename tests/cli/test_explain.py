"""What `diplex explain` prints, from what a router answers."""

import json
from typing import Any

import pytest

from diplex.v1 import router_pb2
from diplex_cli.explanation import MOST_ROWS, WIDTH, Explanation

WEIGHTS = {"ttft": 16.0, "preferred_pattern": 2.0, "room": 0.5}
PATTERNS = {"pkg0": "C", "pkg1": "A", "cpu0": "A"}


WAIT = router_pb2.ExplainedWait(
    waited_s=2.5, ahead=1, queued=2, needed_blocks=14, free_blocks=12, worker="pkg0"
)


def worker(
    predicted_ttft: float | None = None, predicted_tpot: float | None = None, **scores: float
) -> router_pb2.ExplainedWorker:
    total = sum(WEIGHTS[name] * score for name, score in scores.items())
    said = router_pb2.ExplainedWorker(scores=scores, total=total)
    if predicted_ttft is not None:
        said.predicted_ttft_ms = predicted_ttft
    if predicted_tpot is not None:
        said.predicted_tpot_ms = predicted_tpot
    return said


def unable(**filters: str) -> router_pb2.ExplainedWorker:
    return router_pb2.ExplainedWorker(filters=filters)


def answer(**fields: Any) -> router_pb2.RouterExplainResponse:
    about = {
        "model": "big",
        "tier": "interactive",
        "tenant": "acme",
        "prompt_tokens": 2048,
        "weights": WEIGHTS,
    }
    return router_pb2.RouterExplainResponse(**{**about, **fields})


def granted() -> router_pb2.RouterExplainResponse:
    return answer(
        outcome="granted",
        picked="pkg0",
        workers={
            "pkg1": worker(1292.4, 7.2, ttft=0.22, preferred_pattern=0.5, room=0.98),
            "pkg0": worker(92.4, 5.584, ttft=1, preferred_pattern=1, room=0.98),
            "cpu0": unable(model="serves small", kv_fits="needs 272 KV blocks, 128 are free"),
        },
    )


def test_the_picked_worker_comes_first_and_an_objection_stands_where_figures_would():
    assert Explanation(granted(), PATTERNS, 132.16, 8.0, max_tokens=512).text().splitlines() == [
        "big · tier interactive · tenant acme · 2048 prompt tokens · max_tokens 512",
        "would be granted on pkg0",
        "",
        "worker  pattern  total  ttft  preferred_   room    predicted  predicted",
        "                                 pattern                TTFT       TPOT",
        "                        x 16         x 2  x 0.5  of 132.2 ms    of 8 ms",
        "pkg0    C        18.49  1.00        1.00   0.98      92.4 ms    5.58 ms",
        "pkg1    A         5.01  0.22        0.50   0.98      1292 ms    7.20 ms",
        "cpu0    A        model: serves small",
    ]


def test_where_a_line_is_too_long_only_those_scorers_have_a_column_that_tell_workers_apart():
    weights = {f"scorer_number_{number}": 2.0 for number in range(8)}
    same = dict.fromkeys(list(weights)[1:], 1.0)
    workers = {
        "pkg0": worker(9.0, 5.0, room=1.0),
        "pkg1": worker(9.0, 5.0, room=0.5),
        "pkg2": unable(kv_fits="needs 9 KV blocks, 8 are free"),
    }
    for name in ("pkg0", "pkg1"):
        workers[name].scores.update(same)
    said = answer(outcome="granted", picked="pkg0", workers=workers, weights={**WEIGHTS, **weights})
    lines = Explanation(said, {}, None, None).text().splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert lines[3].split() == ["worker", "pattern", "total", "room", "predicted", "predicted"]
    assert [line.split()[2] for line in lines[6:8]] == ["1.00", "0.50"]
    assert lines[8].startswith("pkg2")
    assert lines[9].startswith(
        "the same for each that was scored: scorer_number_1 1.00 x 2, scorer_number_2 1.00"
    )


def test_a_scorer_that_failed_is_told_below_the_table():
    failing = worker(1.0, 1.0, room=0.0)
    failing.failed = "scorer home failed: KeyError: 'x'"
    text = Explanation(answer(outcome="granted", picked="pkg0", workers={"pkg0": failing}), {}, None, None)
    assert text.text().splitlines()[-1] == "pkg0: scorer home failed: KeyError: 'x'; so 0"
    assert text.fields()["workers"]["pkg0"]["failed"] == failing.failed


def test_long_objections_are_wrapped_beside_their_worker():
    many = {f"filter{number}": "needs 272 KV blocks, 128 are free" for number in range(4)}
    lines = Explanation(
        answer(outcome="queued", reason="full", workers={"pkg0": unable(**many)}), PATTERNS, None, None
    )
    text = lines.text().splitlines()
    assert len(text) == 7
    assert all(len(line) <= WIDTH for line in text)
    assert text[-1].startswith(" " * len("worker  pattern  "))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"outcome": "granted", "picked": "pkg0"}, "would be granted on pkg0"),
        (
            {"outcome": "granted", "picked": "pkg0", "picker": "two_choices"},
            "would be granted on pkg0, picked by two_choices",
        ),
        ({"outcome": "granted", "picked": "pkg0", "picker": "best"}, "would be granted on pkg0"),
        ({"outcome": "queued", "reason": "no worker has room"}, "would wait because no worker has room"),
        ({"outcome": "refused", "reason": "unknown tier 'x'"}, "would be refused because unknown tier 'x'"),
        ({"outcome": "granted", "picked": "pkg0", "age_s": 3.25}, "3.2 s ago it was granted on pkg0"),
        (
            {"outcome": "queued", "reason": "no room", "age_s": 0.0},
            "0.0 s ago it had to wait because no room",
        ),
        ({"outcome": "refused", "reason": "late", "age_s": 60.0}, "60.0 s ago it was refused because late"),
        (
            {"outcome": "queued", "reason": "it is next", "age_s": 0.0, "wait": WAIT},
            "has waited 2.5 s: it is next",
        ),
        (
            {
                "outcome": "granted",
                "picked": "pkg0",
                "age_s": 9.0,
                "ended": "it ended STOP",
                "ended_age_s": 4.0,
            },
            "9.0 s ago it was granted on pkg0; it ended STOP, 4.0 s ago",
        ),
    ],
)
def test_the_outcome_is_one_sentence(fields: dict[str, Any], told: str):
    assert Explanation(answer(**fields), {}, None, None).text().splitlines()[1] == told


def test_json_has_what_a_request_waits_for():
    fields = Explanation(answer(outcome="queued", wait=WAIT), {}, None, None).fields()
    assert fields["wait"] == {
        "waited_s": 2.5,
        "ahead": 1,
        "queued": 2,
        "needed_blocks": 14,
        "free_blocks": 12,
        "worker": "pkg0",
    }


def test_a_large_fleets_table_ends_and_says_so():
    workers = {f"pkg{number}": worker(room=0.5) for number in range(MOST_ROWS + 5)}
    text = Explanation(answer(outcome="granted", picked="pkg44", workers=workers), {}, None, None).text()
    assert text.splitlines()[-1] == "and 5 workers more: --json has them all"
    assert text.splitlines()[6].startswith("pkg44 "), "the one that was picked is among them"


def test_the_targets_are_those_of_the_tier_for_the_model_and_the_prompt():
    promise, slow = router_pb2.TierPromise(), router_pb2.TierPromise(tpot_p95_ms=150)
    promise.ttft_p95.base_ms, promise.ttft_p95.per_1k_prompt_tokens_ms = 40, 45
    tier = router_pb2.FleetTier(name="interactive", promise=promise, promises_by_model={"small": slow})
    fleet = router_pb2.Fleet(tiers=[tier])
    big, small = (Explanation.of(answer(model=name), fleet, 0, 1) for name in ("big", "small"))
    assert (big.ttft_ms, big.tpot_ms) == (pytest.approx(132.16), None)
    assert (small.ttft_ms, small.tpot_ms) == (None, 150)


def test_json_has_the_same_and_more():
    fields = json.loads(json.dumps(Explanation(granted(), PATTERNS, 132.0, None, n=2).fields()))
    assert fields["request"] == {
        "request_id": None,
        "model": "big",
        "tier": "interactive",
        "tenant": "acme",
        "prompt_tokens": 2048,
        "max_tokens": None,
        "n": 2,
    }
    assert (fields["outcome"], fields["picked"], fields["reason"], fields["age_s"]) == (
        "granted",
        "pkg0",
        "",
        None,
    )
    assert (fields["wait"], fields["ended"]) == (None, None)
    assert fields["target"] == {"ttft_ms": 132.0, "tpot_ms": None}
    assert fields["weights"] == WEIGHTS
    assert fields["workers"]["cpu0"] == {
        "pattern": "A",
        "filters": {"model": "serves small", "kv_fits": "needs 272 KV blocks, 128 are free"},
        "scores": {},
        "total": 0.0,
        "failed": None,
        "predicted_ttft_ms": None,
        "predicted_tpot_ms": None,
    }
    assert fields["workers"]["pkg0"]["scores"] == {"ttft": 1.0, "preferred_pattern": 1.0, "room": 0.98}
    assert fields["workers"]["pkg0"]["predicted_ttft_ms"] == 92.4
