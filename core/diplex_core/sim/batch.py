"""Continuous batching, iteration by iteration, on the caller's time.

An iteration gives each running choice a token and reads a chunk of the prompts that wait to be read; the
chunk makes it longer for everybody, as on a real engine. `plan` begins one and says how long it takes,
`finish` ends it: only then do tokens exist, and only then do KV blocks change hands. Requests are taken into
the batch first come, first served, when slots and blocks for all that they may hold are free.

A request may come with a limit: tokens of prompt and output that a sequence of it may hold for now. There it
pauses: it keeps its blocks and its slot and gets no step, while its neighbours go on, until it may hold more.

Where the engine speculates, an iteration drafts some tokens ahead for each choice: those before the first
wrong one are said with it, and the rest leave no trace but the room that they were written into.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from diplex_core.model.steps import StepTimes
from diplex_core.sim.paged import Overrun, PagedCache
from diplex_core.sim.speech import cut_at_stop, drafts_right, natural_length, odds_of, share, token
from diplex_core.words import Blocks, Claim, EndReason, Seconds, Slots, Tokens, blocks_needed


class Say(Protocol):
    """Who hears of tokens: the id and text of one token (`None` and "": none), and how the choice ended."""

    def __call__(
        self, claim: Claim, choice: int, token_id: int | None, text: str, end: EndReason | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Work:
    """A request as the engine takes it.

    `max_tokens` bounds each choice's whole output, of which earlier attempts produced `from_index` tokens;
    those are read as prompt. `to_the_limit`: do not end before `max_tokens`, whatever the model says.
    `cached`: leading prompt tokens whose KV blocks are resident and held by others: read by nobody again.
    `limit`: tokens of prompt and output that each choice may hold at first; 0: all that it may come to.
    `length`: its answer ends by itself there and not before; 0: where the model's would.
    """

    claim: Claim
    digest: int
    prompt_tokens: Tokens
    max_tokens: Tokens
    choices: int = 1
    from_index: Tokens = 0
    to_the_limit: bool = False
    stop: tuple[str, ...] = ()
    cached: Tokens = 0
    limit: Tokens = 0
    length: Tokens = 0

    @property
    def to_read(self) -> Tokens:
        return self.prompt_tokens + self.from_index

    @property
    def read_before(self) -> Tokens:
        """Tokens that need not be read: the cached ones, but never the last, which gives the first output."""
        return min(self.cached, self.to_read - 1)

    def blocks(self, block_tokens: Tokens, draft: Tokens = 0, limit: Tokens = 0) -> Blocks:
        """KV blocks that it may come to hold within a limit, with room for what is drafted ahead."""
        left = self.max_tokens - self.from_index
        if limit:
            left = min(left, limit - self.to_read)
        return blocks_needed(
            self.to_read, left, block_tokens, choices=self.choices, cached=self.cached, draft=draft
        )

    def check(self, needed: Blocks, capacity: Blocks, slots: Slots) -> None:
        """Turn it away where it can never run.

        Args:
            needed: KV blocks that it may come to hold; the engine has `capacity` of them, and `slots`.
        Raises:
            ValueError: it can never fit, nothing is left to produce, or its limit leaves no room for that.
        """
        if needed > capacity or not 1 <= self.choices <= slots:
            raise ValueError(
                f"needs {needed} KV blocks and {self.choices} slots; the engine has {capacity} and {slots}"
            )
        if self.max_tokens <= self.from_index:
            raise ValueError(f"all {self.max_tokens} tokens were produced by earlier attempts")
        if 0 < self.limit <= self.to_read:
            raise ValueError(f"may hold {self.limit} tokens, and reads {self.to_read} before its first")


@dataclass(slots=True, eq=False)
class Voice:
    """One choice that speaks: where it is, where it ends, and the KV blocks that only it uses."""

    running: "Running"
    choice: int
    index: Tokens
    last: Tokens  # index behind its last token
    end: EndReason
    room: Tokens  # tokens that its blocks still have room for
    blocks: list[int]
    spoken: int = 0  # characters so far; counted only where a stop string cuts the text
    cut: int | None = None  # characters that may be said before the stop string
    paused: bool = False

    @property
    def held(self) -> Tokens:
        """Tokens that it has in the KV cache."""
        return self.running.work.prompt_tokens + self.index


@dataclass(slots=True, eq=False)
class Running:
    """One request in the batch."""

    work: Work
    claimed: Blocks
    limit: Tokens
    luck: float  # 0 to 1: how slowly its prompt is read, among others like it
    read: Tokens = 0
    chunk: Tokens = 0  # prompt tokens that the iteration under way reads
    shared: list[int] = field(default_factory=list)
    voices: list[Voice] = field(default_factory=list)
    cancelled: bool = False


class Batch:
    """One engine's batch, queue and KV cache.

    Args:
        capacity: KV blocks.
        slots: choices that run at once.
        prefill_budget: prompt tokens read in one iteration, whatever runs beside; `None`: as the model says.
        seed: which requests meet a slow prefill, and which drafts are wrong; nothing else is left to chance.
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
    ) -> None:
        self.cache = PagedCache(capacity)
        self.slots = slots
        self.used_slots: Slots = 0
        self.claimed: Blocks = 0
        self._times = times
        self._draft = times.draft_tokens
        self._odds = odds_of(times.draft_tokens, times.acceptance)
        self._block_tokens = block_tokens
        self._prefill_budget = prefill_budget
        self._seed = seed
        self._submitted = 0
        self._queue: deque[Running] = deque()
        self._running: dict[Claim, Running] = {}
        self._reading: deque[Running] = deque()
        self._voices: list[Voice] = []  # that are not paused
        self._held_tokens: Tokens = 0  # in the KV cache, for all of these
        self._waking: list[Voice] = []  # paused ones that go on with the next iteration
        self._ending = 0  # cancelled requests that are still in the batch
        self._gone: list[Work] = []  # cancelled while they still queued

    @property
    def idle(self) -> bool:
        """Nothing happens before it is told something: nobody is there, or all wait for room to grow."""
        if self._voices or self._reading or self._waking or self._gone or self._ending:
            return False
        return not (self._queue and self._fits(self._queue[0]))

    def submit(self, work: Work) -> None:
        """Queue a request.

        Raises:
            ValueError: see `Work.check`.
        """
        needed = work.blocks(self._block_tokens, self._draft, work.limit)
        work.check(needed, self.cache.capacity, self.slots)
        self._submitted += 1
        luck = share(self._seed, self._submitted)
        self._queue.append(Running(work, needed, work.limit, luck, work.read_before))

    def set_limit(self, claim: Claim, tokens: Tokens) -> None:
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
        check_growth(claim, max(needed, claimed), self.cache.capacity)
        self.claimed = claimed
        running.claimed, running.limit = needed, tokens
        for voice in running.voices:
            if voice.paused:
                voice.paused = False
                self._waking.append(voice)

    def cancel(self, claim: Claim) -> None:
        """End a request with the iteration under way. Unknown and ended ones are ignored."""
        running = self._running.get(claim)
        if running is not None:
            self._ending += not running.cancelled
            running.cancelled = True
            return
        for running in self._queue:
            if running.work.claim == claim:
                self._queue.remove(running)
                self._gone.append(running.work)
                return

    def plan(self, began: Callable[[Claim], None]) -> Seconds:
        """Begin an iteration and say how long it takes.

        Args:
            began: told each request whose prompt is read from now on.
        """
        self._admit()
        for voice in self._waking:
            self._voices.append(voice)
            self._held_tokens += voice.held
        self._waking.clear()
        speaking = len(self._voices)
        batch, context = speaking, self._held_tokens
        budget = self._prefill_budget or self._times.prefill_per_step(speaking + 1)
        slowness = self._times.tail(speaking + 1) - 1.0
        took = 0.0
        for running in self._reading:
            if budget <= 0:
                break
            work = running.work
            if running.read == work.read_before:
                began(work.claim)
            running.chunk = min(budget, work.to_read - running.read)
            budget -= running.chunk
            slowed = 1.0 + slowness * unlucky(running.luck)
            took += self._times.prefill(running.chunk, behind=running.read) * slowed
            if running.read + running.chunk == work.to_read:
                # The step that ends the prompt also makes its first tokens.
                batch += work.choices
                context += work.choices * work.to_read
        return took + (self._times.decode_step(batch, context / batch) if batch else 0.0)

    def finish(self, say: Say) -> None:
        """End the iteration: cancelled requests leave, prompts are read on, every voice says its tokens."""
        for work in self._gone:
            for choice in range(work.choices):
                say(work.claim, choice, None, "", EndReason.CANCELLED)
        self._gone.clear()
        for running in [r for r in self._running.values() if r.cancelled]:
            self._leave_cancelled(running, say)
        self._ending = 0
        self._read_on()
        ended = [voice for voice in self._voices if self._speak(voice, say)]
        for voice in ended:
            self._end(voice)
        for voice in [voice for voice in self._voices if voice.held == voice.running.limit]:
            self._pause(voice)

    def _fits(self, running: Running) -> bool:
        return (
            self.used_slots + running.work.choices <= self.slots
            and self.claimed + running.claimed <= self.cache.capacity
        )

    def _admit(self) -> None:
        while self._queue and self._fits(self._queue[0]):
            running = self._queue.popleft()
            choices = running.work.choices
            self._running[running.work.claim] = running
            self._reading.append(running)
            self.used_slots += choices
            self.claimed += running.claimed

    def _read_on(self) -> None:
        """Write the chunks' KV; a prompt that is read whole gets its voices."""
        for running in list(self._reading):
            if not running.chunk:
                break
            running.read += running.chunk
            running.chunk = 0
            while len(running.shared) * self._block_tokens < running.read - running.work.cached:
                running.shared.append(self.cache.take())
            if running.read == running.work.to_read:
                self._reading.popleft()
                self._find_voices(running)

    def _find_voices(self, running: Running) -> None:
        """Each choice goes on behind the prompt in blocks of its own, the first in the prompt's last one."""
        work = running.work
        tail = work.to_read % self._block_tokens
        for choice in range(work.choices):
            own = []
            if tail:
                own.append(running.shared.pop() if choice == 0 else self.cache.take())
            last, end, cut = ending(work, choice)
            room = self._block_tokens - tail if tail else 0
            voice = Voice(running, choice, work.from_index, last, end, room, own, cut=cut)
            if cut is not None:
                voice.spoken = sum(len(token(work.digest, choice, i)[1]) for i in range(work.from_index))
            running.voices.append(voice)
            self._voices.append(voice)
            self._held_tokens += work.to_read

    def _speak(self, voice: Voice, say: Say) -> bool:
        """Say what the iteration gives a choice; True: that was its last."""
        # All drafts are written, right or wrong; the next iteration overwrites the wrong ones.
        while voice.room <= self._draft:
            voice.blocks.append(self.cache.take())
            voice.room += self._block_tokens
        tokens = 1
        if self._draft:
            tokens = min(1 + self._drafts_accepted(voice), voice.last - voice.index)
            if voice.running.limit:
                tokens = min(tokens, voice.running.limit - voice.held)
        voice.room -= tokens
        self._held_tokens += tokens
        work = voice.running.work
        for _ in range(tokens):
            token_id, text = token(work.digest, voice.choice, voice.index)
            if voice.cut is not None:
                whole = len(text)
                text = text[: max(0, voice.cut - voice.spoken)]
                voice.spoken += whole
            voice.index += 1
            over = voice.index >= voice.last
            say(work.claim, voice.choice, token_id, text, voice.end if over else None)
        return over

    def _drafts_accepted(self, voice: Voice) -> Tokens:
        """Drafted tokens before the first wrong one: the same from one place on, whatever runs beside."""
        return drafts_right(self._seed, voice.running.work.digest, voice.choice, voice.index, self._odds)

    def _leave_cancelled(self, running: Running, say: Say) -> None:
        work = running.work
        if running.voices:
            for voice in list(running.voices):
                say(work.claim, voice.choice, None, "", EndReason.CANCELLED)
                self._end(voice)
            return
        self._reading.remove(running)
        for choice in range(work.choices):
            say(work.claim, choice, None, "", EndReason.CANCELLED)
        self.used_slots -= work.choices
        self._leave(running)

    def _pause(self, voice: Voice) -> None:
        """It is at its limit."""
        voice.paused = True
        self._voices.remove(voice)
        self._held_tokens -= voice.held

    def _end(self, voice: Voice) -> None:
        running = voice.running
        if voice in self._voices:
            self._voices.remove(voice)
            self._held_tokens -= voice.held
        elif voice in self._waking:
            self._waking.remove(voice)
        running.voices.remove(voice)
        self.cache.give_back(voice.blocks)
        self.used_slots -= 1
        if not running.voices:
            self._leave(running)

    def _leave(self, running: Running) -> None:
        self.cache.give_back(running.shared)
        self.claimed -= running.claimed
        del self._running[running.work.claim]


MEAN_UNLUCKY: Final = 0.5**2 / (2 * 0.45)
"""What `unlucky` comes to over many prompts."""


def unlucky(luck: float) -> float:
    """How much of the tail a prompt's reading takes: half of all are read in the median time, one in twenty
    takes the tail's, and one in a hundred somewhat more."""
    return max(0.0, (luck - 0.5) / 0.45)


def higher(limit: Tokens, than: Tokens) -> bool:
    """Whether one limit is higher than another; 0 is none at all."""
    return than != 0 and (limit == 0 or limit > than)


def check_growth(claim: Claim, claimed: Blocks, capacity: Blocks) -> None:
    """Its worker gives a request only blocks that are free.

    Raises:
        Overrun: it did not; an account somewhere is wrong.
    """
    if claimed > capacity:
        raise Overrun(f"claim {claim} may grow until {claimed} KV blocks are claimed; there are {capacity}")


def ending(work: Work, choice: int) -> tuple[Tokens, EndReason, int | None]:
    """Index behind a choice's last token, why it ends there, and where a stop string cuts its text."""
    last, end = work.max_tokens, EndReason.LENGTH
    if work.length:
        if work.length < last:
            last, end = work.length, EndReason.STOP
    elif not work.to_the_limit and (natural := natural_length(work.digest, choice)) <= last:
        last, end = natural, EndReason.STOP
    found = cut_at_stop(work.digest, choice, last, work.stop) if work.stop else None
    if found is not None:
        return found[0], EndReason.STOP, found[1]
    # An earlier attempt may have gone as far as this one's answer would: then one more token ends it.
    return max(last, work.from_index + 1), end, None
