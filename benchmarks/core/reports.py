"""What it costs to take a report on 256 sequences of one worker, by what it says of them.

    .venv/bin/python benchmarks/core/reports.py

    full       all 256 that it holds, as they were: what a worker sends when its link is dialed anew
    growth     all 256 hold another block
    held       256 that were granted are held now
    first      256 first tokens are out
    ended      256 are over: each is freed, and its outcome told

In microseconds of processor time in `Admission.step` (the least of many), and for each sequence. 16 workers
of 256 slots whose speed is known hold 256 each; the reports that start and end them come from all of them,
one after another. `loop` as in decisions.py.
"""

from collections import defaultdict
from dataclasses import replace
from time import process_time

from load import RULES, A, pace, slow_collector

from diplex_core.admission import Admission
from diplex_core.events import Ask, Asked, AskKey, EndedClaim, Granted, HeldClaim, Report, Reported
from diplex_core.words import EndReason, Seconds

SEQUENCES = 256
WORKERS = 16
ROUNDS = 12
FACTS = replace(A, capacity_slots=SEQUENCES)


class Fleet:
    def __init__(self) -> None:
        names = [f"w{i}" for i in range(WORKERS)]
        self.admission = Admission(RULES, names, epoch=1, now=0.0)
        self.now: Seconds = 0.0
        self.facts = {name: replace(FACTS, name=name, package=name) for name in names}
        self.numbers = dict.fromkeys(names, 0)
        self.least: defaultdict[str, Seconds] = defaultdict(lambda: 1.0)
        self.asked = 0
        for name in names:
            self.report(name, "start", full=True, facts=self.facts[name])

    def report(self, name: str, what: str, *, full: bool = False, used: int = 0, **said: object) -> None:
        self.numbers[name] += 1
        number, slots = self.numbers[name], SEQUENCES if used else 0
        report = Report(number, full, self.now, used, slots, **said)  # type: ignore[arg-type]
        event = Reported(name, report)
        began = process_time()
        self.admission.step(event, self.now)
        self.least[what] = min(self.least[what], process_time() - began)

    def fill(self) -> dict[str, list[Granted]]:
        by_worker: defaultdict[str, list[Granted]] = defaultdict(list)
        for _ in range(SEQUENCES * WORKERS):
            self.now += 0.0001
            self.asked += 1
            ask = Ask(f"r{self.asked}", "m", "bulk", "", 1000, True, max_tokens=400)
            (granted,) = self.admission.step(Asked(AskKey(1, self.asked), ask), self.now)
            assert isinstance(granted, Granted)
            by_worker[granted.worker.name].append(granted)
        return by_worker

    def round(self) -> None:
        for name, granted in self.fill().items():
            assert len(granted) == SEQUENCES
            self.now += 1.0

            def held(
                granted: list[Granted] = granted, prefilled: bool = True, more: int = 0
            ) -> dict[str, object]:
                claims = tuple(
                    HeldClaim(g.claim, g.blocks + more, 1, prefilled, prompt_tokens=1000, tier="bulk")
                    for g in granted
                )
                return {"held": claims, "used": sum(claim.blocks for claim in claims)}

            self.report(name, "held", **held(prefilled=False))  # type: ignore[arg-type]
            self.report(name, "first", **held())  # type: ignore[arg-type]
            self.report(name, "full", full=True, facts=self.facts[name], **held())  # type: ignore[arg-type]
            self.report(name, "growth", **held(more=1))  # type: ignore[arg-type]
            ends = tuple(EndedClaim(g.claim, EndReason.STOP, 1000, 100, 0.05, 1.0) for g in granted)
            self.report(name, "ended", ended=ends)


def main() -> None:
    slow_collector()
    fleet = Fleet()
    for _ in range(ROUNDS):
        fleet.round()
    print("| report of 256 | us | us a sequence |\n| --- | ---: | ---: |")
    for what in ("full", "growth", "held", "first", "ended"):
        took = fleet.least[what] * 1e6
        print(f"| {what:13} | {took:6.0f} | {took / SEQUENCES:13.2f} |")
    print(f"loop {pace():.1f} ms")


if __name__ == "__main__":
    main()
