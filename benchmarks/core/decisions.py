"""What one request costs the core, from ask to end, as the fleet grows; with and without predictions.

    .venv/bin/python benchmarks/core/decisions.py

Each row is the least of three runs of 2,000 requests in one process, in microseconds of wall time and as a
ratio to the first row. Nothing but `Admission.step` runs: no wire, no engine.
"""

from dataclasses import replace
from time import perf_counter

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    EndedClaim,
    Granted,
    HeldClaim,
    Report,
    Reported,
    WorkerFacts,
)
from diplex_core.words import EndReason, Pattern, Promise, Rules, Target, Tier

REQUESTS = 2_000
ALIVE = 8  # requests that run on each worker
TIER = Tier("standard", (Pattern.A,), Promise(Target(1.0), 0.05))
RULES = Rules(frozenset({"m"}), "m", {TIER.name: TIER}, TIER.name)
UNKNOWN = WorkerFacts("", "", Pattern.A, frozenset({"m"}), 1, "", 32, 20_000, 256, context=65_536)
PREDICTED = replace(
    UNKNOWN,
    calibration="chapter",
    gpu="b200",
    profile="qwen2.5-72b",
    weights="mxfp4-mixed",
    kv_cache="mxfp8",
)


def main() -> None:
    print("workers  predictions  us a request  ratio")
    least = None
    for workers in (2, 16, 64):
        for facts in (UNKNOWN, PREDICTED):
            took = min(cost(facts, workers) for _ in range(3)) * 1e6
            least = least or took
            print(f"{workers:7}  {'yes' if facts.profile else 'no':11}  {took:12.0f}  {took / least:5.1f}")


def cost(facts: WorkerFacts, workers: int) -> float:
    """Seconds a request."""
    names = [f"w{number}" for number in range(workers)]
    admission = Admission(RULES, names, epoch=1, now=0.0)
    numbers = dict.fromkeys(names, 0)
    now = 0.0

    def report(name: str, **said: object) -> None:
        numbers[name] += 1
        full = numbers[name] == 1
        known = replace(facts, name=name, package=name) if full else None
        report = Report(numbers[name], full, now, 0, 0, facts=known, **said)  # type: ignore[arg-type]
        admission.step(Reported(name, report), now)

    for name in names:
        report(name)
    alive: list[Granted] = []
    began = perf_counter()
    for number in range(REQUESTS):
        now += 0.001
        ask = Ask(f"r{number}", "m", TIER.name, prompt_tokens=1000, max_tokens=100)
        (granted,) = admission.step(Asked(AskKey(1, number), ask), now)
        assert isinstance(granted, Granted)
        alive.append(granted)
        report(granted.worker.name, held=(HeldClaim(granted.claim, granted.blocks, 1, prefilled=True),))
        if len(alive) > ALIVE * workers:
            oldest = alive.pop(0)
            ended = EndedClaim(oldest.claim, EndReason.STOP, 1000, 100, 0.1, 1.0)
            report(oldest.worker.name, ended=(ended,))
    return (perf_counter() - began) / REQUESTS


if __name__ == "__main__":
    main()
