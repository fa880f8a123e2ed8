"""What the open loop sends, when, and what it makes of the answers; the client here is played by the test."""

import asyncio
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import grpc
import pytest

from diplex.errors import InvalidRequest
from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex.wire.status import Problem
from diplex_cli.replay import progress
from diplex_cli.replay.load import Load, Tally
from diplex_cli.replay.ticket import Planned, Ticket
from diplex_core.report import Ending, Outcome
from diplex_core.words import Pattern, Promise, Target, Tier

TIERS = {"bulk": Tier("bulk", (Pattern.A,)), "fast": Tier("fast", (Pattern.A,), Promise(Target(0.0)))}
NO_ROOM = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", "QUEUE_FULL", retry_after=0.02)
COMPLETED = pb.Done(reason=pb.END_REASON_LENGTH, usage=pb.Usage(prompt_tokens=3, completion_tokens=2))


def planned(number: int, due: float = 0.0, tier: str = "bulk", tokens: int = 3) -> Planned:
    return Planned(f"r{number}", due, tier, partial(pb.TokenIds, ids=[1] * tokens), tokens, 2)


class Life:
    """A request that this test's client has begun."""

    def __init__(self, ticket: Ticket, options: dict[str, Any]) -> None:
        self.ticket = ticket
        self.options = options
        self.at = perf_counter()

    def cancel(self) -> None:
        self.ticket.on_done(pb.Done(reason=pb.END_REASON_CANCELLED))

    def serve(self) -> None:
        grant = pb.Grant(worker="pkg0", tier=self.ticket.planned.tier, tenant="acme")
        self.ticket.on_serving(router_pb2.Granted(queue_ms=1.5), grant)
        for index in range(2):
            self.ticket.on_tokens(pb.Tokens(index=index, count=1))
        self.ticket.on_done(COMPLETED)

    def refuse(self, problem: Problem = NO_ROOM) -> None:
        self.ticket.on_done(pb.Done(reason=pb.END_REASON_REFUSED, error=problem.to_bytes()))


class Client:
    """Keeps what is started, and answers as `answer` says."""

    def __init__(self, answer: Callable[[Life], None] = Life.serve) -> None:
        self.answer = answer
        self.lives: list[Life] = []
        self.started = asyncio.Event()

    def start(self, ticket: Ticket, **options: Any) -> Life:
        life = Life(ticket, options)
        self.lives.append(life)
        self.started.set()
        asyncio.get_running_loop().call_soon(self.answer, life)
        return life


def load(client: Any, *requests: Planned, **more: Any) -> Load:
    return Load(client, requests, TIERS, model="m", timeout=60.0, **more)


async def test_requests_are_sent_in_their_order_and_none_before_it_is_due():
    client = Client()
    run = load(client, *(planned(number, number * 0.01) for number in range(5)))
    await run.run()
    assert [life.options["request_id"] for life in client.lives] == ["r0", "r1", "r2", "r3", "r4"]
    assert all(life.at >= run.began + number * 0.01 for number, life in enumerate(client.lives))
    assert len(run.lags) == 5 and min(run.lags) >= 0
    assert run.ended >= max(life.at for life in client.lives)


async def test_a_request_says_exactly_what_the_trace_says():
    client = Client()
    await load(client, planned(0)).run()
    options = client.lives[0].options
    assert list(options.pop("prompt_ids").ids) == [1, 1, 1]
    assert options == {
        "model": "m",
        "tier": "bulk",
        "max_tokens": 2,
        "min_tokens": None,
        "ignore_eos": True,
        "timeout": 60.0,
        "request_id": "r0",
        "api_key": None,
    }


async def test_one_that_asks_for_more_than_it_comes_to_says_how_many_tokens_it_has_at_least():
    client = Client()
    await load(client, replace(planned(0), max_tokens=900, least=2)).run()
    options = client.lives[0].options
    assert (options["max_tokens"], options["min_tokens"], options["ignore_eos"]) == (900, 2, False)


async def test_the_next_request_does_not_wait_for_the_one_before():
    client = Client(answer=lambda life: None)
    run = load(client, planned(0), planned(1))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.run())
        while len(client.lives) < 2:
            client.started.clear()
            await client.started.wait()
        for life in client.lives:
            life.serve()
    assert len(run.outcomes) == 2


async def test_what_became_of_each_is_counted_by_tier():
    answers = iter([Life.serve, Life.refuse, Life.serve])
    client = Client(lambda life: next(answers)(life))
    run = load(client, planned(0), planned(1), planned(2, tier="fast"))
    await run.run()
    assert run.tally.by_ending == {Ending.COMPLETED: 2, Ending.REJECTED: 1}
    assert (run.tally.ended, run.tally.met) == (Counter(bulk=2, fast=1), Counter(bulk=1, fast=0))
    assert (run.tally.sent, run.tally.running) == (3, 0)


async def test_a_refused_request_is_not_sent_again_unless_that_was_asked_for():
    client = Client(Life.refuse)
    run = load(client, planned(0))
    await run.run()
    (outcome,) = run.outcomes
    assert (outcome.ended, outcome.retry_given, outcome.retry_obeyed) == (Ending.REJECTED, 1, 0)
    assert len(client.lives) == 1


async def test_with_retry_it_is_sent_once_more_when_its_refusal_said():
    answers = iter([Life.refuse, Life.serve])
    client = Client(lambda life: next(answers)(life))
    run = load(client, planned(0), retry=True)
    await run.run()
    first, second = client.lives
    assert second.at - first.at >= 0.019  # uvloop and asyncio keep timers in milliseconds
    (outcome,) = run.outcomes
    assert (outcome.ended, outcome.retry_given, outcome.retry_obeyed) == (Ending.COMPLETED, 1, 1)
    assert outcome.ttft is not None and outcome.ttft >= second.at - first.at
    assert (run.tally.sent, len(run.lags)) == (1, 1)


async def test_a_request_that_is_refused_again_is_rejected_and_not_sent_a_third_time():
    client = Client(Life.refuse)
    run = load(client, planned(0), retry=True)
    await run.run()
    (outcome,) = run.outcomes
    assert (len(client.lives), outcome.ended, outcome.retry_given, outcome.retry_obeyed) == (
        2,
        Ending.REJECTED,
        2,
        1,
    )


async def test_a_refusal_for_another_reason_than_room_is_a_failure():
    too_large = Problem(grpc.StatusCode.INVALID_ARGUMENT, "too large", "REQUEST_TOO_LARGE")
    run = load(Client(lambda life: life.refuse(too_large)), planned(0), retry=True)
    await run.run()
    (outcome,) = run.outcomes
    assert (outcome.ended, outcome.problem, outcome.retry_given) == (Ending.FAILED, "REQUEST_TOO_LARGE", 0)


async def test_a_request_that_cannot_be_one_is_a_failure_and_the_others_go_on():
    class Refusing(Client):
        def start(self, ticket: Ticket, **options: Any) -> Life:
            if ticket.planned.request_id == "r0":
                raise InvalidRequest(Problem(grpc.StatusCode.INVALID_ARGUMENT, "no", "REQUEST_INVALID"))
            return super().start(ticket, **options)

    run = load(Refusing(), planned(0), planned(1))
    await run.run()
    assert [one.ended for one in run.outcomes] == [Ending.FAILED, Ending.COMPLETED]


async def test_stopped_it_sends_nothing_more_and_waits_for_what_runs():
    client = Client(answer=lambda life: None)
    run = load(client, planned(0), planned(1, due=3600.0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.run())
        await client.started.wait()
        run.stop()
        client.lives[0].serve()
    assert ([one.request_id for one in run.outcomes], run.stopped, run.cut) == (["r0"], True, 0)


async def test_abandoned_it_cancels_what_runs_and_leaves_it_out():
    client = Client(answer=lambda life: None)
    run = load(client, planned(0), planned(1, due=3600.0))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.run())
        await client.started.wait()
        run.stop()
        run.abandon()
    assert (run.outcomes, run.cut) == ([], 1)


async def test_stopped_it_does_not_wait_for_times_to_retry():
    patient = Problem(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", "QUEUE_FULL", retry_after=3600.0)
    client = Client(lambda life: (life.refuse(patient), run.stop())[0])
    run = load(client, planned(0), planned(1, due=3600.0), retry=True)
    await run.run()
    assert [(one.ended, one.retry_obeyed) for one in run.outcomes] == [(Ending.REJECTED, 0)]


async def test_prompts_are_made_ahead_only_as_far_as_their_tokens_and_time_allow():
    made: list[int] = []

    def making(number: int) -> Callable[[], pb.TokenIds]:
        def make() -> pb.TokenIds:
            made.append(number)
            return pb.TokenIds(ids=[1])

        return make

    # The third would be more than may lie ready, the fourth is due in an hour.
    sizes = [(0.0, 1), (0.2, 3_000_000), (0.4, 3_000_000), (3600.0, 1)]
    requests = [
        Planned(f"r{number}", due, "bulk", making(number), tokens, 1)
        for number, (due, tokens) in enumerate(sizes)
    ]
    client = Client(answer=lambda life: None)
    run = load(client, *requests)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.run())
        await client.started.wait()
        assert made == [0, 1]
        while len(client.lives) < 3:
            client.started.clear()
            await client.started.wait()
        assert made == [0, 1, 2]
        run.abandon()


def ended(ticket: Ticket, done: pb.Done = COMPLETED) -> Outcome:
    ticket.on_done(done)
    return ticket.outcome("m")


@pytest.fixture
def ticket() -> Ticket:
    return Ticket(planned(0), pb.TokenIds(ids=[1]), perf_counter() - 100.0, lambda ticket: None)


def test_durations_count_from_when_a_request_was_due_and_not_from_when_it_was_sent(ticket: Ticket):
    ticket.sent = perf_counter()
    ticket.on_tokens(pb.Tokens(count=1))
    outcome = ended(ticket)
    assert outcome.ttft is not None and outcome.ttft >= 100.0
    assert outcome.e2e is not None and outcome.e2e >= outcome.ttft
    assert ticket.lag >= 100.0


def test_time_per_token_needs_two_tokens(ticket: Ticket):
    ticket.on_tokens(pb.Tokens(count=1))
    assert ended(ticket).tpot is None
    ticket.on_tokens(pb.Tokens(index=1, count=2))
    assert ticket.first is not None
    assert ended(ticket).tpot == (ticket.last - ticket.first) / 2


def test_a_request_without_output_has_no_ttft(ticket: Ticket):
    outcome = ended(ticket)
    assert (outcome.ttft, outcome.tpot, outcome.output_tokens) == (None, None, 0)


def test_time_in_the_queue_is_that_before_the_first_token(ticket: Ticket):
    ticket.on_serving(router_pb2.Granted(queue_ms=5.0), pb.Grant(worker="a", tier="bulk"))
    ticket.on_serving(router_pb2.Granted(queue_ms=9.0), pb.Grant(worker="b", tier="bulk"))
    ticket.on_tokens(pb.Tokens(count=1))
    ticket.on_serving(router_pb2.Granted(queue_ms=700.0), pb.Grant(worker="c", tier="bulk"))
    outcome = ended(ticket)
    assert (outcome.queued, outcome.worker) == (0.009, "c")


@pytest.mark.parametrize(
    ("done", "said", "ending", "problem"),
    [
        (pb.Done(reason=pb.END_REASON_STOP), 1, Ending.COMPLETED, ""),
        (pb.Done(reason=pb.END_REASON_REFUSED, error=NO_ROOM.to_bytes()), 0, Ending.REJECTED, "QUEUE_FULL"),
        (pb.Done(reason=pb.END_REASON_FAILED, error=NO_ROOM.to_bytes()), 1, Ending.FAILED, "QUEUE_FULL"),
        (pb.Done(reason=pb.END_REASON_CANCELLED), 1, Ending.FAILED, "CANCELLED"),
    ],
)
def test_rejected_is_what_was_refused_for_want_of_room_before_anything_was_said(
    ticket: Ticket, done: pb.Done, said: int, ending: Ending, problem: str
):
    for index in range(said):
        ticket.on_tokens(pb.Tokens(index=index, count=1))
    outcome = ended(ticket, done)
    assert (outcome.ended, outcome.problem) == (ending, problem)


def test_a_request_that_was_granted_another_tier_is_degraded(ticket: Ticket):
    ticket.on_serving(router_pb2.Granted(), pb.Grant(worker="a", tier="fast"))
    ticket.on_tokens(pb.Tokens(count=1))
    assert ended(ticket).degraded


def test_progress_is_one_line_of_at_most_a_hundred_columns():
    tally = Tally(10_000, sent=9_999, running=1234)
    assert progress.line(tally, 12.3) == "   12 s ████████████████ 9999/10000 sent · 1234 open · 0 done"
    tally.by_ending.update({Ending.COMPLETED: 8000, Ending.REJECTED: 700, Ending.FAILED: 12})
    for tier in ("interactive", "standard", "longform", "bulk"):
        tally.ended[tier], tally.met[tier] = 100, 93
    assert len(progress.line(tally, 99_999.0)) <= 100


async def test_on_a_terminal_the_line_is_written_over_and_wiped_in_the_end():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def flush(self) -> None:
            if self.getvalue().endswith("done"):
                shown.set()

    shown, stream = asyncio.Event(), Terminal()
    task = asyncio.create_task(progress.show(Tally(4, sent=1), stream))
    await shown.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().startswith("\r\x1b[K") and stream.getvalue().endswith("\r\x1b[K")


def test_the_longest_gap_is_the_longest_time_between_two_pieces_of_output(ticket: Ticket):
    for since_last in (100.0, 5.0, 0.0):  # before the first token is no gap
        ticket.last -= since_last
        ticket.on_tokens(pb.Tokens(count=1))
    outcome = ended(ticket)
    assert outcome.longest_gap is not None and 5.0 <= outcome.longest_gap < 50.0
