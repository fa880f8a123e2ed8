"""Checks 5 to 7 are judged by what the planner predicts for the worker that served."""

import asyncio
from collections.abc import Sequence

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_cli.doctor import speed
from diplex_cli.doctor.check import Check
from diplex_cli.doctor.speed import ANSWER, LONG, PROMPT, STREAMS, Answer, Run
from diplex_cli.doctor.subject import Subject


def worker(name: str = "w0", **more: object) -> Subject:
    words = {
        "name": name,
        "pattern": "A",
        "gpu": "b200",
        "engine": "trtllm",
        "profile": "qwen2.5-72b",
        "weights": "mxfp4-mixed",
        "kv_cache": "mxfp8",
        "context": 131072,
    }
    return Subject(router_pb2.FleetWorker(info=pb.WorkerInfo(**(words | more)), state="up"))  # type: ignore[arg-type]


class Done:
    """A load that is over: whatever is asked of it, this came of it."""

    def __init__(self, *answers: Answer, problems: Sequence[str] = (), seconds: float = 1.0) -> None:
        self._run = Run(answers, tuple(problems), seconds)
        self.prompts: list[int] = []

    async def run(self, requests: int, *, prompt: int, streams: int) -> Run:
        self.prompts.append(prompt)
        return self._run


def one_stream(rate: float, ttft: float = 0.05, **more: object) -> Check:
    load = Done(Answer("w0", ttft, rate, ANSWER))
    return asyncio.run(speed.single_stream(load, [worker(**more)], 1))  # type: ignore[arg-type]


# Of a limit of 171 tok/s, half is healthy.
@pytest.mark.parametrize(
    ("rate", "status"), [(130.0, "pass"), (86.0, "pass"), (70.0, "warn"), (50.0, "fail"), (200.0, "warn")]
)
def test_a_real_engine_is_judged_by_what_none_can_exceed(rate: float, status: str):
    check = one_stream(rate)
    assert check.status == status
    assert "50% of what no engine can exceed: 171 tok/s" in check.expected


def test_one_that_beats_physics_is_asked_what_it_really_serves():
    assert one_stream(200.0).mend.startswith("1.17 times what its model, formats and GPU allow")


def test_a_late_first_token_counts_as_much_as_slow_ones():
    assert one_stream(130.0, ttft=0.5).status == "fail"


def test_the_two_thresholds_that_lie_beyond_physics_are_called_so():
    first, _, last = speed.skipped("nobody", "mend")
    assert "180 tok/s and 50 ms on a B200, where 171 tok/s are the limit" in first.expected
    assert "beyond physics, 1.05 times" in first.expected
    assert "1,500 ms at 65,536 tokens" in last.expected and "beyond physics, 1.52 times" in last.expected


def test_a_simulated_engine_is_judged_by_the_column_that_it_runs_on():
    check = one_stream(205.0, ttft=0.03, simulated=True, calibration="chapter")
    assert check.status == "pass" and check.seen.endswith(", simulated")
    assert "80% of the chapter's column, on which it is simulated: 210 tok/s" in check.expected


def test_of_hardware_without_figures_only_what_was_seen_is_told():
    check = one_stream(12.0, gpu="cpu", profile="smollm2-135m")
    assert check.status == "skip" and check.seen.startswith("12 tok/s")


def test_throughput_is_expected_of_the_workers_that_the_requests_came_to():
    answers = [Answer(f"w{number % 2}", 0.1, 50.0, ANSWER) for number in range(64)]
    found = [worker("w0"), worker("w1")]

    async def seen_in(seconds: float) -> Check:
        return await speed.throughput(Done(*answers, seconds=seconds), found, 64)  # type: ignore[arg-type]

    slow, fast = asyncio.run(seen_in(30.0)), asyncio.run(seen_in(6.0))
    assert (slow.status, fast.status) == ("fail", "pass")
    assert "(w0 32, w1 32)" in fast.seen and "the chapter: 3,000 tok/s" in fast.expected


def test_a_fleet_with_less_context_reads_as_long_a_prompt_as_it_can():
    load = Done(Answer("w0", 0.5, 90.0, ANSWER))
    check = asyncio.run(speed.long_context(load, [worker(context=8192)], 1))  # type: ignore[arg-type]
    assert load.prompts == [8192 - ANSWER]
    assert check.title == "7 prompt of 7,936 tokens (no worker takes more than 8,192 tokens)"
    load = Done(Answer("w0", 3.0, 90.0, ANSWER))
    asyncio.run(speed.long_context(load, [worker()], 1))  # type: ignore[arg-type]
    assert load.prompts == [LONG]


def test_refusals_are_told_beside_what_was_answered():
    load = Done(Answer("w0", 0.05, 130.0, ANSWER), problems=["the queue of standard is full"])
    check = asyncio.run(speed.single_stream(load, [worker()], 2))  # type: ignore[arg-type]
    assert check.status == "warn" and check.seen.endswith("1 requests failed: the queue of standard is full")


def test_no_answer_at_all_fails_with_the_reason():
    load = Done(problems=["no worker is up"])
    check = asyncio.run(speed.throughput(load, [worker()], STREAMS))  # type: ignore[arg-type]
    assert check.status == "fail" and check.seen == "no request was answered: no worker is up"


def test_prompts_are_as_long_as_the_chapters():
    assert (PROMPT, ANSWER, STREAMS, LONG) == (2048, 256, 32, 65536)
    assert (speed.FULL.single, speed.FULL.many) == (16, 256)
