"""Continuous batching by events: what the batch does iteration by iteration, in one step for many.

Between two changes (a prompt is read whole, a choice ends, a request comes or goes) every iteration is like
the one before: the same choices get a token each, and the first prompt in line is read on by a whole chunk.
Such a run of iterations takes a time in closed form (`sums`), and nobody has to look at it before its end. A
request that comes, is cancelled or may hold more meanwhile cuts the run at the end of the iteration under
way, where the batch would have noticed. The iteration that ends a prompt is unlike its neighbours, and is a
run of one.

What happens when is what `Batch` does, to rounding. Where the engine speculates, each answer takes the steps
that its drafts give it in the batch too (exactly, up to `speech.MOST_DRAWN` of them), but in between it is
taken to grow evenly: contexts, and with them times, are then off by what a few tokens weigh, and KV blocks by
those that these few fill.
"""

from bisect import bisect_right
from collections import deque
from heapq import heappop, heappush
from math import ceil, sqrt
from typing import NamedTuple, TypeAlias

from diplex_core.growth import LEAD
from diplex_core.model.steps import StepTimes
from diplex_core.sim.batch import Work, check_growth, ending, higher, unlucky
from diplex_core.sim.gaps import Gaps
from diplex_core.sim.speech import odds_of, share, steps_taken
from diplex_core.sim.sums import sums_of
from diplex_core.words import Blocks, Claim, EndReason, Seconds, Slots, Tokens


class First(NamedTuple):
    """The first token of a request is out, of each of its choices."""

    claim: Claim
    at: Seconds


class Over(NamedTuple):
    """The last choice of a request has said its last word, or it was cancelled.

    Attributes:
        tokens: that this attempt produced, of all choices.
        last: when the last of them came; `None`: none did.
        longest_gap: between two moments at which it got tokens.
    """

    claim: Claim
    at: Seconds
    reason: EndReason
    tokens: Tokens
    last: Seconds | None
    longest_gap: Seconds


class Near(NamedTuple):
    """A request has come within `growth.LEAD` tokens of its limit: it should ask for more."""

    claim: Claim
    at: Seconds


Word: TypeAlias = First | Near | Over


class _Running:
    """One request in the batch.

    Attributes:
        unlucky: 0 to 1: how much of the tail its prompt's reading takes.
        read: prompt tokens that are read, or were cached; `chunk`: that an irregular iteration adds.
        limit: tokens that each choice may hold now; 0: all that it may come to. `asked_at`: the limit near
            which it was last said to come.
        since: iterations that were over before the one that gave it its first token, or the first one since
            it last went on; -1: none has.
        voices: its choices that are not over; `said`: tokens of those that are.
        speaking: choices that are not paused either; `paused`: when the last of them paused.
        gap: the longest between two moments at which it got tokens, up to its last pause.
    """

    __slots__ = (
        *("asked_at", "cancelled", "chunk", "claimed", "gap", "limit", "paused", "read", "said", "since"),
        *("speaking", "to_read", "unlucky", "voices", "work"),
    )

    def __init__(self, work: Work, claimed: Blocks, luck: float) -> None:
        self.work = work
        self.claimed = claimed
        self.limit = work.limit
        self.asked_at: Tokens = 0
        self.unlucky = unlucky(luck)
        self.to_read = work.to_read
        self.read = work.read_before
        self.chunk = 0
        self.since = -1
        self.said: Tokens = 0
        self.voices: list[_Voice] = []
        self.speaking = 0
        self.paused: Seconds = 0.0
        self.gap: Seconds = 0.0
        self.cancelled = False

    def so_far(self, over: int) -> Tokens:
        """Tokens that it has got when so many iterations are over."""
        return self.said + sum(voice.at(over) for voice in self.voices)


class _Voice:
    """One choice. It speaks in stretches, each up to its end or to its limit at that time.

    Attributes:
        last: tokens of its whole answer here, and `end` why it is no longer.
        before: tokens that it had said before this stretch, and `since` iterations that were over then.
        tokens: of this stretch; `rate` of them in each iteration, until `ends` are over.
        nears: when so many are over it is near its limit; -1: it has none.
        paused: it is at its limit; `over`: it has said its last word, or was cancelled.
    """

    __slots__ = (
        *("before", "choice", "end", "ends", "last", "nears", "over", "paused", "rate", "running", "since"),
        "tokens",
    )

    def __init__(self, running: _Running, choice: int, last: Tokens, end: EndReason) -> None:
        self.running = running
        self.choice = choice
        self.last = last
        self.end = end
        self.before: Tokens = 0
        self.since = 0
        self.tokens: Tokens = 0
        self.rate: float = 1
        self.ends = self.nears = -1
        self.paused = self.over = False

    def at(self, over: int) -> Tokens:
        """Tokens that it has said when so many iterations are over, its first included."""
        if self.paused:
            return self.before
        return self.before + min(self.tokens, round(self.rate * (over - self.since)))


class Runs:
    """One engine's batch, queue and KV cache.

    Args:
        capacity: KV blocks.
        slots: choices that run at once.
        prefill_budget: prompt tokens read in one iteration, whatever runs beside; `None`: as the model says.
        seed: which requests meet a slow prefill, and which drafts are wrong; nothing else is left to chance.
        pace: real seconds that a simulated one takes.
    Attributes:
        due: when something next happens of which somebody should hear, or which changes what happens then;
            `None`: it is idle.
    """

    def __init__(
        self,
        times: StepTimes,
        *,
        capacity: Blocks,
        slots: Slots,
        block_tokens: Tokens,
        prefill_budget: Tokens | None = None,
        seed: int = 0,
        pace: float = 1.0,
    ) -> None:
        self.capacity = capacity
        self.slots = slots
        self.used_slots: Slots = 0
        self.claimed: Blocks = 0
        self.due: Seconds | None = None
        self._sums = sums_of(times)
        self._draft = times.draft_tokens
        self._odds = odds_of(times.draft_tokens, times.acceptance)
        self._block_tokens = block_tokens
        self._prefill_budget = prefill_budget
        self._seed = seed
        self._pace = pace
        self._submitted = 0
        self._queue: deque[_Running] = deque()
        self._running: dict[Claim, _Running] = {}
        self._reading: deque[_Running] = deque()
        self._cancelled: list[_Running] = []
        self._raised: list[_Running] = []  # they have voices, and may hold more from now on
        self._woken: list[_Running] = []  # the run under way is the first since they paused
        self._beside: dict[int, tuple[Tokens, float]] = {}

        self._over = 0  # iterations
        self._speaking = 0  # choices
        self._held: float = 0  # tokens in the KV cache, for all that speak
        self._growth: float = 0  # by which an iteration adds to them
        self._ends: list[tuple[int, int, _Voice]] = []  # where a stretch ends, or its limit is near
        self._pushed = 0
        self._gaps = Gaps()

        # The run under way: its beginning, how many iterations, the first one's time without reading, by how
        # much each takes longer than the one before, and what it reads of the first prompt in line.
        self._began: Seconds = 0.0
        self._most = 0
        self._first: Seconds = 0.0
        self._increase: Seconds = 0.0
        self._head: _Running
        self._chunk: Tokens = 0
        self._behind: Tokens = 0
        self._slowed = 1.0
        self._paced = pace

    # What its owner calls.

    def submit(self, work: Work, now: Seconds) -> None:
        """Queue a request.

        Raises:
            ValueError: see `Work.check`.
        """
        needed = work.blocks(self._block_tokens, self._draft, work.limit)
        work.check(needed, self.capacity, self.slots)
        self._submitted += 1
        running = _Running(work, needed, share(self._seed, self._submitted))
        self._queue.append(running)
        if self.due is None:
            self._plan(now)
        elif not self._reading and self._queue[0] is running and self._fits(running):
            self._cut(now)
        # Else it changes nothing before the run ends: others are read, or wait, before it.

    def cancel(self, claim: Claim, now: Seconds) -> None:
        """End a request with the iteration under way. Unknown and ended ones are ignored."""
        running = self._running.get(claim)
        if running is None:
            running = next((one for one in self._queue if one.work.claim == claim), None)
            if running is None:
                return
            self._queue.remove(running)
        if running.cancelled:
            return
        running.cancelled = True
        self._cancelled.append(running)
        if self.due is None:
            self._plan(now)
        if self.due is None:  # nobody else has anything to do either: it leaves at once
            self._began, self._most, self._first, self._increase, self._chunk = now, 0, 0.0, 0.0, 0
            self.due = now
        self._cut(now)

    def set_limit(self, claim: Claim, tokens: Tokens, now: Seconds) -> None:
        """Let each choice of a request hold so many tokens; 0: all that it may come to. It goes on with the
        next iteration where it has paused. A limit that is no higher changes nothing, nor do ended claims.

        Raises:
            Overrun: the engine has no blocks left for that.
        """
        running = self._running.get(claim)
        waiting = running is None
        if running is None:
            running = next((one for one in self._queue if one.work.claim == claim), None)
        if running is None or not higher(tokens, running.limit):
            return
        needed = running.work.blocks(self._block_tokens, self._draft, tokens)
        claimed = self.claimed if waiting else self.claimed - running.claimed + needed
        check_growth(claim, max(needed, claimed), self.capacity)
        self.claimed = claimed
        running.claimed, running.limit = needed, tokens
        if not running.voices:
            return
        if running not in self._raised:
            self._raised.append(running)
        if self.due is None:
            self._go_on()
            self._plan(now)
        else:
            self._cut(now)

    def set_pace(self, pace: float, now: Seconds) -> None:
        """From the next iteration on a simulated second takes so many real ones."""
        self._pace = pace
        self._cut(now)

    def advance(self, now: Seconds) -> list[Word]:
        """Everything that happened up to now, in order."""
        words: list[Word] = []
        while self.due is not None and self.due <= now:
            self._settle(self.due, words)
        return words

    def so_far(self, claim: Claim, now: Seconds) -> tuple[Tokens, Seconds | None, Seconds]:
        """Tokens of a request that runs, when the last of them came, and its longest gap; see `Over`."""
        running = self._running.get(claim)
        if running is None or running.since < 0:
            return 0, None, 0.0
        part = self._finished(now)
        tokens, woken = running.so_far(self._over + part), running in self._woken
        if not running.speaking or (woken and not part):
            return tokens, running.paused, running.gap
        gap = max(running.gap, self._gaps.longest(running.since + 1))
        if part:
            gap = max(gap, self._duration(1), self._duration(part))
        if woken:
            gap = max(gap, self._until(1) - running.paused)
        return tokens, self._until(part), gap

    def used_blocks(self, now: Seconds) -> Blocks:
        """KV blocks that are written."""
        part = self._finished(now)
        size, draft = self._block_tokens, self._draft
        used = 0
        for running in self._running.values():
            work = running.work
            cached = work.cached // size
            if running.since < 0:
                read = running.read
                if part and self._chunk and running is self._head:
                    read += part * self._chunk
                used += max(0, -(-read // size) - cached)
                continue
            used += running.to_read // size - cached
            tail = running.to_read % size
            over = self._over + part
            for voice in running.voices:
                if draft:
                    # The last step wrote its drafts behind what was said before it.
                    said = voice.before if voice.paused else voice.before + voice.rate * (over - voice.since)
                    used += int(tail + said - voice.rate + draft) // size + 1
                else:
                    used += -(-(tail + voice.at(over)) // size)
        return used

    # A run of iterations.

    def _plan(self, at: Seconds) -> None:
        """Begin the next run; none where nothing is left to do."""
        if self._queue:
            self._admit()
        speaking = self._speaking
        self._began, self._paced = at, self._pace
        self._chunk = 0
        if self._reading:
            budget, slowness = self._reading_beside(speaking)
            head = self._reading[0]
            left = head.to_read - head.read
            if left <= budget or not self._sums.chunks_add_up:
                self._most, self._increase = 1, 0.0
                self._first = self._irregular(budget, slowness)
                self.due = at + self._first * self._paced
                return
            most = (left - 1) // budget
            self._head, self._chunk, self._behind = head, budget, head.read
            self._slowed = 1.0 + slowness * head.unlucky
        elif speaking:
            most = 1 << 62
        else:
            self.due = None  # nobody is there, or all wait for room to grow
            return
        if speaking:
            ends = self._ends
            while not _counts(ends[0]):
                heappop(ends)
            most = min(most, ends[0][0] - self._over)
            self._most, self._first, self._increase = self._sums.straight(
                speaking, self._held / speaking, self._growth / speaking, most
            )
        else:
            self._most, self._first, self._increase = most, 0.0, 0.0
        self.due = self._until(self._most)

    def _admit(self) -> None:
        while self._queue and self._fits(self._queue[0]):
            running = self._queue.popleft()
            self._running[running.work.claim] = running
            self._reading.append(running)
            self.used_slots += running.work.choices
            self.claimed += running.claimed

    def _fits(self, running: _Running) -> bool:
        return (
            self.used_slots + running.work.choices <= self.slots
            and self.claimed + running.claimed <= self.capacity
        )

    def _reading_beside(self, speaking: int) -> tuple[Tokens, float]:
        """Prompt tokens that an iteration reads beside so many choices, and the tail beyond the median."""
        found = self._beside.get(speaking)
        if found is None:
            times = self._sums.times
            budget = self._prefill_budget or times.prefill_per_step(speaking + 1)
            found = self._beside[speaking] = budget, times.tail(speaking + 1) - 1.0
        return found

    def _irregular(self, budget: Tokens, slowness: float) -> Seconds:
        """Deal out the chunks of one iteration that may end prompts, and say how long it takes."""
        batch, context, took = self._speaking, self._held, 0.0
        for running in self._reading:
            if budget <= 0:
                break
            running.chunk = chunk = min(budget, running.to_read - running.read)
            budget -= chunk
            took += self._sums.prefill(chunk, behind=running.read) * (1.0 + slowness * running.unlucky)
            if running.read + chunk == running.to_read:
                # The step that ends the prompt also makes its first tokens.
                batch += running.work.choices
                context += running.work.choices * running.to_read
        return took + (self._sums.decode_step(batch, context / batch) if batch else 0.0)

    def _until(self, steps: int) -> Seconds:
        """When so many iterations of the run are over."""
        took = steps * (self._first + self._increase * (steps - 1) * 0.5)
        if self._chunk:
            took += self._sums.prefill(steps * self._chunk, behind=self._behind) * self._slowed
        return self._began + took * self._paced

    def _duration(self, step: int) -> Seconds:
        """How long one iteration of the run takes; they count from 1."""
        took = self._first + self._increase * (step - 1)
        if self._chunk:
            behind = self._behind + (step - 1) * self._chunk
            took += self._sums.prefill(self._chunk, behind=behind) * self._slowed
        return took * self._paced

    def _finished(self, now: Seconds) -> int:
        """Iterations of the run under way that are over."""
        if self.due is None or now < self._began:
            return 0
        if self.due <= now:
            return self._most
        return bisect_right(range(1, self._most), now, key=self._until)

    def _cut(self, now: Seconds) -> None:
        """The run ends with the iteration under way."""
        most = self._most
        if most <= 1 or self.due is None:
            return
        if self._chunk or self._increase < 0.0:
            steps = self._finished(now) + 1
        else:
            # k * first + increase * k (k - 1) / 2 = the time that has passed, solved for k.
            passed, half = (now - self._began) / self._paced, 0.5 * self._increase
            slope = self._first - half
            steps = int(2.0 * passed / (slope + sqrt(slope * slope + 4.0 * half * passed))) + 1
            while steps > 1 and self._until(steps - 1) > now:
                steps -= 1
            while steps < most and self._until(steps) <= now:
                steps += 1
        if steps < most:
            self._most = steps
            self.due = self._until(steps)

    # The end of a run.

    def _settle(self, at: Seconds, words: list[Word]) -> None:
        """The run is over: who was cancelled leaves, prompts are read on, who may hold more goes on, and who
        has said all ends, or pauses."""
        steps = self._most
        self._over += steps
        self._held += steps * self._growth
        for running in self._woken:
            if steps > 1 or not running.cancelled:
                running.gap = max(running.gap, self._until(1) - running.paused)
        if self._cancelled:
            self._leave_cancelled(at, words)
        elif self._speaking:
            longest = self._duration(steps)
            self._gaps.push(self._over, longest if steps == 1 else max(longest, self._duration(1)))
        self._woken.clear()
        if self._chunk:
            self._head.read += steps * self._chunk
        elif self._reading:
            self._read_on(at, words)
        if self._raised:
            self._go_on()
        ends, over = self._ends, self._over
        while ends and ends[0][0] <= over:
            mark = heappop(ends)
            if _counts(mark):
                self._reached(mark[0], mark[2], at, words)
        self._plan(at)

    def _read_on(self, at: Seconds, words: list[Word]) -> None:
        """The chunks of an irregular iteration are read; a prompt that is read whole gets its voices."""
        reading = self._reading
        while reading and reading[0].chunk:
            running = reading[0]
            running.read += running.chunk
            running.chunk = 0
            if running.read == running.to_read:
                reading.popleft()
                self._find_voices(running)
                words.append(First(running.work.claim, at))

    def _find_voices(self, running: _Running) -> None:
        work = running.work
        self._begin_to_speak(running, self._over - 1)  # it says its first tokens at once
        for choice in range(work.choices):
            last, end, _ = ending(work, choice)
            voice = _Voice(running, choice, last - work.from_index, end)
            running.voices.append(voice)
            self._speaks(voice, running.since, self._over)

    def _go_on(self) -> None:
        """Choices that may hold more say more at a stretch; those that had paused begin a new one."""
        for running in self._raised:
            for voice in running.voices:
                since = voice.since
                if voice.paused:
                    since, voice.paused = self._over, False
                    if not running.speaking:
                        self._begin_to_speak(running, since)
                        self._woken.append(running)
                else:
                    self._falls_silent(voice)
                self._speaks(voice, since, self._over + 1)
        self._raised.clear()

    def _begin_to_speak(self, running: _Running, since: int) -> None:
        running.since = since
        if not self._speaking:
            self._growth = self._held = 0  # what rounding has left of earlier ones
            self._gaps.clear()

    def _speaks(self, voice: _Voice, since: int, soonest: int) -> None:
        """A choice speaks from here to its end, or to its limit.

        Args:
            since: iterations that were over when this stretch began.
            soonest: so many have to be over before anybody hears that it is near its limit.
        """
        running, before = voice.running, voice.before
        work, limit = running.work, running.limit
        stop = min(voice.last, limit - running.to_read) if limit else voice.last
        steps = voice.tokens = stop - before
        if self._draft:
            start = work.from_index
            digest, odds = work.digest, self._odds
            steps = steps_taken(self._seed, digest, voice.choice, start + before, start + stop, odds)
            voice.rate = voice.tokens / steps
        voice.since, voice.ends, voice.nears = since, since + steps, -1
        if limit and limit - running.to_read < work.max_tokens - work.from_index:
            near = since + ceil((limit - LEAD - running.to_read - before) / voice.rate)
            near = max(soonest, near)
            if near < voice.ends or stop < voice.last:
                voice.nears = near
                self._mark(near, voice)
        self._mark(voice.ends, voice)
        running.speaking += 1
        self._speaking += 1
        self._growth += voice.rate
        self._held += running.to_read + self._said(voice)

    def _said(self, voice: _Voice) -> float:
        """Tokens that a choice which speaks has said by now."""
        return voice.before + voice.rate * (self._over - voice.since)

    def _mark(self, over: int, voice: _Voice) -> None:
        self._pushed += 1
        heappush(self._ends, (over, self._pushed, voice))

    def _reached(self, over: int, voice: _Voice, at: Seconds, words: list[Word]) -> None:
        """A choice is near its limit, or at the end of its stretch."""
        running = voice.running
        if over == voice.nears:
            voice.nears = -1
            if running.asked_at != running.limit:
                running.asked_at = running.limit
                words.append(Near(running.work.claim, at))
            return
        self._falls_silent(voice)
        voice.before, voice.tokens = voice.before + voice.tokens, 0
        if voice.before < voice.last:
            voice.paused = True
        else:
            self._end(voice)
            running.said += voice.before
        if running.speaking:
            return
        running.gap = max(running.gap, self._gaps.longest(running.since + 1))
        running.paused = at
        if not running.voices:
            words.append(Over(running.work.claim, at, voice.end, running.said, at, running.gap))
            self._leave(running)

    def _leave_cancelled(self, at: Seconds, words: list[Word]) -> None:
        """They leave with the iteration's end, and get nothing of it any more."""
        steps = self._most
        over = self._over - (steps > 0)
        spoke, last = self._speaking, self._until(max(0, steps - 1))
        if spoke and steps > 1:
            self._gaps.push(over, max(self._duration(1), self._duration(steps - 1)))
        for running in self._cancelled:
            work = running.work
            if work.claim not in self._running:
                words.append(Over(work.claim, at, EndReason.CANCELLED, 0, None, 0.0))
                continue
            if running.since < 0:
                self._reading.remove(running)
                self.used_slots -= work.choices
                words.append(Over(work.claim, at, EndReason.CANCELLED, 0, None, 0.0))
            else:
                tokens, when, gap = running.so_far(over), running.paused, running.gap
                if running.speaking and (steps > 1 or running not in self._woken):
                    when, gap = last, max(gap, self._gaps.longest(running.since + 1))
                for voice in list(running.voices):
                    if not voice.paused:
                        self._falls_silent(voice)
                    self._end(voice)
                words.append(Over(work.claim, at, EndReason.CANCELLED, tokens, when, gap))
            self._leave(running)
        self._raised = [running for running in self._raised if not running.cancelled]
        self._cancelled.clear()
        if spoke:
            self._gaps.push(self._over, self._duration(steps))

    def _falls_silent(self, voice: _Voice) -> None:
        """It gets no step any more, for now or for ever."""
        self._speaking -= 1
        self._growth -= voice.rate
        self._held -= voice.running.to_read + self._said(voice)
        voice.running.speaking -= 1

    def _end(self, voice: _Voice) -> None:
        voice.over = True
        voice.running.voices.remove(voice)
        self.used_slots -= 1

    def _leave(self, running: _Running) -> None:
        self.claimed -= running.claimed
        del self._running[running.work.claim]


def _counts(mark: tuple[int, int, _Voice]) -> bool:
    """Whether what was foreseen of a choice still holds: it may have been cancelled, or raised."""
    over, _, voice = mark
    return not voice.over and not voice.paused and over in (voice.ends, voice.nears)
