"""The engine's side of the desk: what it says of itself and of its jobs, turned into words for clients."""

from collections.abc import Sequence as Several

from diplex_core.words import Claim, EndReason
from diplex_workers import refusals
from diplex_workers.desk import Desk
from diplex_workers.engines.engine import Facts, Output
from diplex_workers.residency import BlockEvent
from diplex_workers.sequence import Sequence, Verdict

_NATURAL = frozenset({EndReason.STOP, EndReason.LENGTH})


class EngineNews:
    """The engine's `Host`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._account = desk.account

    def ready(self, facts: Facts) -> None:
        """The engine takes jobs from now on. What it forgot by starting anew has failed."""
        self._fail_all("it started anew")
        self._account.engine_is_ready(facts)

    def unready(self, problem: str) -> None:
        self._account.problem, self._account.ailing = problem or "it does not answer", ""
        self._fail_all(self._account.problem)
        self._account.tell_all()

    def ailing(self, problem: str) -> None:
        self._account.ailing = problem
        self._account.tell_all()

    def prefilling(self, claim: Claim) -> None:
        sequence = self._account.live.get(claim)
        if sequence is not None and sequence.prefill_began is None:
            sequence.prefill_began = self._account.clock.now()

    def kept(self, event: BlockEvent) -> None:
        prefixes = self._account.prefixes
        before = prefixes.problem
        prefixes.heard(event)
        if prefixes.problem != before:
            self._account.tell_all()

    def deliver(self, outputs: Several[Output]) -> None:
        """News of one iteration. No call in here waits, so all of it is in one frame a stream."""
        live = self._account.live
        for output in outputs:
            sequence = live.get(output.claim)
            if sequence is None:
                continue
            # Some engines tell it with the first token, attached servers with the last word.
            if output.cached_tokens > sequence.cached_tokens:
                sequence.cached_tokens = output.cached_tokens
            if output.count or output.text:
                self._tokens(sequence, output)
            if output.end is not None:
                self._choice_ended(sequence, output, output.end)

    def _tokens(self, sequence: Sequence, output: Output) -> None:
        if sequence.silenced or sequence.reasons[output.choice] is not None:
            return
        if sequence.first_token is None:
            sequence.first_token = self._account.clock.now()
            self._account.prefixes.read(sequence.own)
            self._account.tell_changed(sequence)
        if not sequence.say(output):
            # The engine is asked for no more than the grant allows; one that goes on is stopped.
            sequence.reasons[output.choice] = EndReason.LENGTH
            if None not in sequence.reasons:
                self._account.engine.cancel(sequence.claim)
        if sequence.limit and sequence.length >= sequence.asks_at:
            self._desk.growing.came_to(sequence)
        if sequence.held_back and sequence.window_alarm is None:
            self._desk.watch_window(sequence)

    def _choice_ended(self, sequence: Sequence, output: Output, end: EndReason) -> None:
        choice = output.choice
        if sequence.let_go[choice]:
            return
        sequence.let_go[choice] = True
        if output.problem is not None:
            sequence.problem = output.problem
        if sequence.reasons[choice] is None and not (sequence.verdict and end is EndReason.CANCELLED):
            sequence.reasons[choice] = end
        if all(sequence.let_go):
            self._desk.finish(sequence, _last_verdict(sequence))

    def _fail_all(self, problem: str) -> None:
        lost = refusals.engine_lost(self._account.settings.name, problem)
        for sequence in list(self._account.live.values()):
            self._desk.finish(sequence, Verdict(EndReason.FAILED, lost))


def _last_verdict(sequence: Sequence) -> Verdict:
    """Why the request ended, once every choice has."""
    reasons = [reason for reason in sequence.reasons if reason is not None]
    whole = len(reasons) == sequence.choices and all(reason in _NATURAL for reason in reasons)
    if sequence.verdict is not None and not (whole and not sequence.silenced):
        return sequence.verdict
    bad = next((reason for reason in reasons if reason not in _NATURAL), None)
    return Verdict(bad or reasons[0], sequence.problem)
