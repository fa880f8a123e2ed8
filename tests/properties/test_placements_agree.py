"""However a fleet is searched, the same is decided: held against asking every worker on every occasion."""

import random
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diplex_core.admission import Admission
from diplex_core.events import (
    Ask,
    Asked,
    AskKey,
    Decision,
    EndedClaim,
    Event,
    Granted,
    HeldClaim,
    LinkLost,
    Report,
    Reported,
    Ticked,
    Withdrawn,
    WorkerFacts,
)
from diplex_core.placement.place import Placement
from diplex_core.words import EndReason, Pattern, Promise, Rules, Target, Tenant, Tier, WhenLate

TIERS = (
    Tier("fast", (Pattern.C, Pattern.A), Promise(Target(0.06), 0.008), 64, 9, when_late=WhenLate.REJECT),
    Tier("even", (Pattern.A,), Promise(Target(0.2), 0.02), 200, 5, when_late=WhenLate.DEGRADE),
    Tier("bulk", (Pattern.A, Pattern.B), max_output_tokens=400, filters=(), max_queue=3.0),
)
TENANTS = (Tenant("any", "any"), Tenant("some", "some", packages=frozenset({"p1", "p4", "p5"})))
RULES = Rules(frozenset({"m"}), "m", {tier.name: tier for tier in TIERS}, "bulk", TENANTS)
KIND = WorkerFacts(
    "", "", Pattern.A, frozenset({"m"}), 1, "", 32, 60, 3, context=4096, calibration="chapter", gpu="b200",
    profile="qwen2.5-72b", weights="mxfp4-mixed", kv_cache="mxfp8", reports_residency=True,
)  # fmt: skip
KINDS = (
    KIND,
    replace(KIND, capacity_blocks=67),
    replace(KIND, pattern=Pattern.C, prefill_budget=256),
    replace(KIND, pattern=Pattern.B, calibration=""),
)
PROMPTS = tuple(tuple(range(100 * family, 100 * family + 20)) for family in range(2))


class Twin:
    """The same events for several admissions, and workers that do as the first one decides.

    Args:
        others: admissions that must decide the same as the first.
    """

    def __init__(self, dice: random.Random, *placements: Placement) -> None:
        self.dice = dice
        kinds = [dice.choice(KINDS) for _ in range(dice.randint(2, 9))]
        self.facts = [replace(kind, name=f"w{i}", package=f"p{i}") for i, kind in enumerate(kinds)]
        names = [facts.name for facts in self.facts]
        self.admissions = [Admission(RULES, names, epoch=1, now=0.0, placement=p) for p in placements]
        self.now = 0.0
        self.asked = 0
        self.numbers = dict.fromkeys(names, 0)
        self.granted: dict[str, list[Granted]] = {name: [] for name in names}
        for name in names:
            self.report(name)

    def tell(self, event: Event) -> None:
        decided: list[list[Decision]] = [admission.step(event, self.now) for admission in self.admissions]
        for others in decided[1:]:
            assert others == decided[0]
        for decision in decided[0]:
            if isinstance(decision, Granted):
                self.granted[decision.worker.name].append(decision)

    def report(self, name: str, **said: object) -> None:
        self.numbers[name] += 1
        full = self.numbers[name] == 1
        facts = next(facts for facts in self.facts if facts.name == name) if full else None
        if full:
            said["held"] = tuple(HeldClaim(g.claim, g.blocks, g.slots) for g in self.granted[name])
        report = Report(self.numbers[name], full, self.now, 0, 0, facts=facts, **said)  # type: ignore[arg-type]
        self.tell(Reported(name, report))

    def step(self) -> None:
        dice = self.dice
        self.now += dice.choice((0.0, 0.001, 0.02, 0.3))
        name = dice.choice([facts.name for facts in self.facts])
        mine = self.granted[name]
        match dice.choice(("ask", "ask", "ask", "held", "read", "end", "end", "blocks", "tick", "trouble")):
            case "ask":
                self.asked += 1
                prompt, hashes = dice.choice((30, 200, 640, 1000)), dice.choice(((), *PROMPTS))
                ask = Ask(
                    f"r{self.asked}",
                    "m",
                    dice.choice(list(RULES.tiers)),
                    dice.choice(("any", "any", "some")),
                    prompt,
                    exact=True,
                    block_hashes=hashes[: prompt // 32],
                    max_tokens=dice.choice((0, 8, 100)),
                    choices=dice.choice((1, 1, 2)),
                )
                self.tell(Asked(AskKey(1, self.asked), ask))
            case "held" | "read" as what if mine:
                granted = dice.choice(mine)
                held = HeldClaim(granted.claim, granted.blocks, granted.slots, prefilled=what == "read")
                self.report(name, held=(held,))
            case "end" if mine:
                granted = mine.pop(dice.randrange(len(mine)))
                reason = dice.choice((EndReason.STOP, EndReason.STOP, EndReason.REFUSED))
                self.report(name, ended=(EndedClaim(granted.claim, reason, 10, 5, 0.01, 0.1),))
            case "blocks":
                blocks = dice.choice(PROMPTS)[: dice.randint(1, 20)]
                self.report(name, **{dice.choice(("stored", "stored", "removed")): blocks})
            case "tick":
                self.tell(Ticked())
            case "trouble":
                match dice.choice(("drains", "others", "lost", "withdrawn")):
                    case "drains":
                        self.report(name, draining=dice.random() < 0.3)
                    case "others":
                        self.report(
                            name, foreign_blocks=dice.choice((0, 30)), foreign_slots=dice.choice((0, 1))
                        )
                    case "lost":
                        self.tell(LinkLost(name))
                        self.numbers[name] = 0
                        self.report(name)
                    case "withdrawn" if self.asked:
                        self.tell(Withdrawn(AskKey(1, dice.randint(1, self.asked))))


@given(st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_fleet_that_is_searched_decides_as_one_that_is_asked_whole(dice: random.Random) -> None:
    twin = Twin(dice, Placement(everyone=1000), Placement(everyone=0, thorough=1000))
    for _ in range(150):
        twin.step()


@given(st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_left_waiting_while_some_worker_objects_to_nothing(dice: random.Random) -> None:
    twin = Twin(dice, Placement(everyone=0, thorough=0, looks=1))
    (admission,) = twin.admissions
    whole = Placement()
    for _ in range(150):
        twin.step()
        workers = [worker for worker in admission.workers.values() if worker.known is not None]
        for queue in admission.waiting.queues():
            head = queue.head(twin.now)
            assert head is not None
            lease = admission.leases.get(head.lease_id)
            assert lease is not None and lease.wish is not None
            wish = lease.wish.at(lease.arrived, twin.now, lease_id=lease.lease_id)
            assert whole.place(wish, workers).picked is None
