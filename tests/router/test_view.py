"""What the router shows of itself, in the wire's words."""

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_core.admission import Admission
from diplex_core.events import Report, Reported, WorkerFacts
from diplex_core.ledger import UNBOUNDED, Axis
from diplex_core.words import Pattern, Promise, Rules, Target, Tier, WhenLate
from diplex_router.view import View, account, tier_on_wire

MODEL = "m"
INTERACTIVE = Tier(
    "interactive",
    (Pattern.C, Pattern.A),
    promise=Promise(Target(0.04, 0.045), 0.008),
    promises_by_model={"small": Promise(Target(3.0), 0.15)},
    max_output_tokens=1024,
    priority=100,
    when_late=WhenLate.REJECT,
)
BULK = Tier("bulk", (Pattern.A, Pattern.B), deadline=600.0)
RULES = Rules(frozenset({MODEL}), MODEL, {"interactive": INTERACTIVE, "bulk": BULK}, "bulk")


def fleet_of(admission: Admission) -> router_pb2.Fleet:
    return View("r1", admission, (), {}, started=0.0).fleet(1.0)


def test_a_tier_is_shown_with_its_promises_in_milliseconds():
    shown = tier_on_wire(INTERACTIVE)
    assert list(shown.patterns) == ["C", "A"]
    assert (shown.promise.ttft_p95.base_ms, shown.promise.ttft_p95.per_1k_prompt_tokens_ms) == (40.0, 45.0)
    assert shown.promise.tpot_p95_ms == 8.0
    assert shown.promises_by_model["small"].ttft_p95.base_ms == 3000.0
    assert (shown.max_output_tokens, shown.priority, shown.when_late) == (1024, 100, "reject")
    assert not shown.HasField("deadline_s")


def test_what_a_tier_does_not_promise_is_absent_and_not_zero():
    shown = tier_on_wire(BULK)
    assert not shown.promise.HasField("ttft_p95")
    assert not shown.promise.HasField("tpot_p95_ms")
    assert shown.deadline_s == 600.0


def test_a_fleet_names_its_tiers_and_its_defaults_in_the_configurations_order():
    fleet = fleet_of(Admission(RULES, (), epoch=1, now=0.0))
    assert [tier.name for tier in fleet.tiers] == ["interactive", "bulk"]
    assert (fleet.default_tier, fleet.default_model) == ("bulk", MODEL)


def test_preemptions_and_the_worst_drift_stand_beside_the_leases():
    admission = Admission(RULES, (), epoch=1, now=0.0)
    admission.preempted, admission.drift_max = 3, 17
    leases = fleet_of(admission).leases
    assert (leases.preempted, leases.drift_max) == (3, 17)


def test_a_worker_shows_what_claims_wait_for_and_how_far_accounts_differ():
    admission = Admission(RULES, ("w1",), epoch=1, now=0.0)
    facts = WorkerFacts("w1", "w1", Pattern.A, frozenset({MODEL}), 1, "h:1", 32, 100, 4)
    report = Report(1, True, 0.0, 28, 0, facts=facts, residency_problem="its events stopped")
    admission.step(Reported("w1", report), 0.0)
    admission.workers["w1"].ledger.wanted = 12
    infos = {"w1": pb.WorkerInfo(name="w1")}
    (shown,) = View("r1", admission, (), infos, started=0.0).fleet(1.0).workers
    assert (shown.wanted_blocks, shown.drift_blocks) == (12, 28)
    assert "28 of 100 KV blocks" in shown.drift_alarm
    assert shown.residency_problem == "its events stopped"


def test_an_axis_without_a_bound_shows_what_is_taken_and_no_capacity():
    axis = Axis(UNBOUNDED, reserved=4096, peak=8192)
    shown = account(axis)
    assert (shown.capacity, shown.free, shown.reserved, shown.peak) == (0, 0, 4096, 8192)


def test_a_models_block_is_as_large_as_most_of_its_workers_have_it():
    infos = {
        name: pb.WorkerInfo(name=name, block_tokens=size, models=[pb.Model(name=MODEL)])
        for name, size in (("w1", 16), ("w2", 32), ("w3", 32))
    }
    admission = Admission(RULES, tuple(infos), epoch=1, now=0.0)
    assert View("r1", admission, (), infos, started=0.0).model("").block_tokens == 32
