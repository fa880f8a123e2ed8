"""Checks 5 to 7: one stream, many, and a long prompt, through the router, against the planner's prediction.

The chapter's thresholds stand beside, two of them with how far beyond the limit they lie: one stream of
Qwen2.5-72B on a B200 cannot have 180 tok/s without speculation, since each token reads all weights once; and
no B200 reads 65,536 tokens in 1.5 s. A deployment is judged by what its own hardware can do.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

from diplex import AsyncClient
from diplex.errors import DiplexError
from diplex_cli.doctor.check import Check, Status
from diplex_cli.doctor.subject import CHAPTER, Basis, Subject
from diplex_core.plan.prediction import predictions_of
from diplex_core.words import Seconds, Tokens

PROMPT: Final[Tokens] = 2048
ANSWER: Final[Tokens] = 256
STREAMS: Final = 32
LONG: Final[Tokens] = 65536
# Ids that every vocabulary has; each prompt is drawn anew, so that no prefix helps.
_IDS: Final = range(1000, 30000)
# Of what is healthy: below it something is wrong, between the two it is slow.
_BAD: Final = 0.75
# A real engine that beats what none can exceed does not run what is configured.
_TOO_GOOD: Final = 1.05
_TIMEOUT: Final[Seconds] = 300.0
# The way to the router and the worker, beside what the engine takes for a first token.
_WAY: Final[Seconds] = 0.01
# What a short run keeps of a rate: it begins with all prompts at once and ends with few streams.
_EDGES: Final = 0.8


@dataclass(frozen=True, slots=True)
class Amounts:
    """Requests of each check."""

    single: int = 4
    many: int = 2 * STREAMS
    long: int = 1


FULL: Final = Amounts(single=16, many=256, long=4)
"""As the chapter has it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request, in its worker's time. `rate`: tokens a second from the first to the last."""

    worker: str
    ttft: Seconds
    rate: float
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Run:
    """Requests of one check: those that were answered, why others were not, and how long it all took."""

    answers: tuple[Answer, ...]
    problems: tuple[str, ...]
    seconds: Seconds


class Load:
    """Asks for answers of a fixed length to prompts of token ids."""

    def __init__(self, client: AsyncClient, found: Sequence[Subject], *, model: str, tier: str) -> None:
        self._client = client
        self._scales = {subject.name: subject.scale for subject in found}
        self._model, self._tier = model, tier
        self._draw = random.Random(7)

    async def run(self, requests: int, *, prompt: Tokens, streams: int) -> Run:
        """So many requests, so many of them at once."""
        answers: list[Answer] = []
        problems: list[str] = []
        left = iter(range(requests))
        began = perf_counter()

        async def stream() -> None:
            for _ in left:
                try:
                    answers.append(await self._ask(prompt))
                except DiplexError as error:
                    problems.append(str(error).partition("\n")[0])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(streams, requests)):
                tasks.create_task(stream())
        return Run(tuple(answers), tuple(problems), perf_counter() - began)

    async def _ask(self, prompt: Tokens) -> Answer:
        stream = self._client.stream(
            prompt_ids=self._draw.choices(_IDS, k=prompt),
            model=self._model,
            tier=self._tier,
            max_tokens=ANSWER,
            ignore_eos=True,
            timeout=_TIMEOUT,
        )
        async with stream:
            async for _ in stream:
                pass
        reply = stream.reply
        worker = reply.serving.worker if reply.serving else ""
        scale = self._scales.get(worker, 1.0)
        return Answer(
            worker,
            (reply.ttft_s or 0.0) * scale,
            (reply.tokens_per_s or 0.0) / scale,
            reply.usage.completion_tokens,
        )


def skipped(why: str, mend: str) -> Iterator[Check]:
    """All three, where there is nobody to ask."""
    for id_, title, chapter in (
        ("single_stream", "5 one stream", _chapter_stream()),
        ("throughput", "6 throughput", _chapter_throughput()),
        ("long_context", "7 long prompt", _chapter_long()),
    ):
        yield Check(id_, title, "skip", chapter, why, mend)


async def single_stream(load: Load, found: Sequence[Subject], requests: int) -> Check:
    """Check 5."""
    run = await load.run(requests, prompt=PROMPT, streams=1)
    return _one_at_a_time("single_stream", "5 one stream", run, found, PROMPT, _chapter_stream())


async def long_context(load: Load, found: Sequence[Subject], requests: int) -> Check:
    """Check 7: as long a prompt as the fleet takes, up to the chapter's."""
    longest = max(subject.info.context for subject in found) - ANSWER
    prompt = min(LONG, longest)
    run = await load.run(requests, prompt=prompt, streams=1)
    shorter = "" if prompt == LONG else f" (no worker takes more than {longest + ANSWER:,} tokens)"
    title = f"7 prompt of {prompt:,} tokens{shorter}"
    return _one_at_a_time("long_context", title, run, found, prompt, _chapter_long())


def _one_at_a_time(
    id_: str, title: str, run: Run, found: Sequence[Subject], prompt: Tokens, chapter: str
) -> Check:
    """A stream's rate and first token, at the worker that most of the requests came to."""
    if not run.answers:
        return _unanswered(id_, title, run, chapter)
    (name, _), *_ = Counter(answer.worker for answer in run.answers).most_common()
    answers = [answer for answer in run.answers if answer.worker == name]
    rate, ttft = median(one.rate for one in answers), median(one.ttft for one in answers)
    seen = f"{rate:.0f} tok/s, first token after {ttft * 1000:.0f} ms, median of {len(answers)} at {name}"
    basis = _basis(found, name, streams=1, prompt=prompt)
    if basis is None:
        return Check(id_, title, "skip", f"nothing is predicted for {name}; {chapter}", seen, _profile(name))
    said = basis.prediction
    least, most = basis.share * said.tok_s_stream, said.ttft_p50 / basis.share + _WAY
    expected = (
        f"at least {least:.0f} tok/s and at most {most * 1000:.0f} ms ({basis.share:.0%} of {basis.called}: "
        f"{said.tok_s_stream:.0f} tok/s, {said.ttft_p50 * 1000:.0f} ms); {chapter}"
    )
    shares = (rate / least, most / ttft if ttft else 1.0)
    over = max(rate / basis.limit.tok_s_stream, basis.limit.ttft_p50 / ttft if ttft else 0.0)
    return _judged(id_, title, expected, seen, min(shares), over, _subject(found, name), run)


async def throughput(load: Load, found: Sequence[Subject], requests: int) -> Check:
    """Check 6: 32 streams, wherever the router has them run."""
    run = await load.run(requests, prompt=PROMPT, streams=STREAMS)
    id_, title, chapter = "throughput", f"6 throughput, {STREAMS} streams", _chapter_throughput()
    if not run.answers:
        return _unanswered(id_, title, run, chapter)
    shares = Counter(answer.worker for answer in run.answers)
    scale = min(subject.scale for subject in found)
    rate = sum(answer.tokens for answer in run.answers) / run.seconds / scale
    where = ", ".join(f"{name} {count}" for name, count in sorted(shares.items()))
    seen = f"{rate:,.0f} tok/s over {len(run.answers)} requests ({where})"
    said = limit = 0.0
    bases: list[Basis] = []
    for name, count in shares.items():
        streams = max(1, round(STREAMS * count / len(run.answers)))
        basis = _basis(found, name, streams=streams, prompt=PROMPT)
        if basis is None:
            return Check(
                id_, title, "skip", f"nothing is predicted for {name}; {chapter}", seen, _profile(name)
            )
        bases.append(basis)
        said += _together(basis.prediction.tpot, basis.prediction.prefill, streams)
        limit += streams / basis.limit.tpot
    share = _EDGES * min(basis.share for basis in bases)
    expected = (
        f"at least {share * said:,.0f} tok/s ({share:.0%} of {bases[0].called}: {said:,.0f} tok/s with its "
        f"prompts read in between); {chapter}"
    )
    name = shares.most_common(1)[0][0]
    return _judged(
        id_, title, expected, seen, rate / (share * said), rate / limit, _subject(found, name), run
    )


def _together(tpot: Seconds, prefill: Seconds, streams: int) -> float:
    """Output tokens a second of so many streams, each of which has a prompt read first while all wait."""
    return streams * ANSWER / (ANSWER * tpot + streams * prefill)


def _judged(
    id_: str, title: str, expected: str, seen: str, share: float, over: float, subject: Subject, run: Run
) -> Check:
    """A verdict by `share` of what is healthy, and by `over`, how it stands to the limit."""
    status: Status = "pass" if share >= 1.0 else "warn" if share >= _BAD else "fail"
    mend = "" if status == "pass" else "check 4's clocks, then what else runs there: `diplex explain`"
    if subject.simulated:
        seen += ", simulated"
        mend = mend and "this machine's cores: simulated engines keep time by them"
    elif over > _TOO_GOOD:
        status = "warn" if status == "pass" else status
        mend = f"{over:.2f} times what its model, formats and GPU allow: does the configuration name them?"
    if run.problems:
        status = "warn" if status == "pass" else status
        seen += f"; {len(run.problems)} requests failed: {run.problems[0]}"
        mend = mend or "docs/guide/errors.md has each refusal and its mend"
    return Check(id_, title, status, expected, seen, mend)


def _unanswered(id_: str, title: str, run: Run, chapter: str) -> Check:
    reason = run.problems[0] if run.problems else "nothing was asked"
    return Check(id_, title, "fail", chapter, f"no request was answered: {reason}", "diplex explain says why")


def _basis(found: Sequence[Subject], name: str, *, streams: int, prompt: Tokens) -> Basis | None:
    subject = next((one for one in found if one.name == name), None)
    return subject.basis(streams=streams, context=prompt + ANSWER // 2, prompt=prompt) if subject else None


def _subject(found: Sequence[Subject], name: str) -> Subject:
    return next(one for one in found if one.name == name)


def _profile(name: str) -> str:
    return f"a model, formats and a GPU that `diplex plan` knows, for {name}"


# The chapter's thresholds, each beside what its own hardware can do at the very best.


def _chapter_stream() -> str:
    limit = predictions_of(CHAPTER, batch=1, context=PROMPT + ANSWER // 2, prompt=PROMPT).limit
    return (
        f"the chapter: 180 tok/s and 50 ms on a B200, where {limit.tok_s_stream:.0f} tok/s are the limit "
        f"without speculation: beyond physics, {180 / limit.tok_s_stream:.2f} times"
    )


def _chapter_throughput() -> str:
    return "the chapter: 3,000 tok/s on a B200"


def _chapter_long() -> str:
    limit = predictions_of(CHAPTER, batch=1, context=LONG, prompt=LONG).limit
    return (
        "the chapter: 90 tok/s and 1,500 ms at 65,536 tokens on a B200, which cannot read them in less than "
        f"{limit.prefill * 1000:,.0f} ms: beyond physics, {limit.prefill / 1.5:.2f} times"
    )
