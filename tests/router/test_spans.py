"""A request's spans in the router: a real core on invented time, asks of a client that is traced."""

from dataclasses import dataclass, field, replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_core.admission import Admission
from diplex_core.events import (
    AskKey,
    Decision,
    Granted,
    HeldClaim,
    Queued,
    Refused,
    Report,
    Reported,
    Revoked,
    Served,
    Withdrawn,
    WorkerFacts,
)
from diplex_core.words import EndReason, Pattern, Rules, Tier
from diplex_router.driver import Driver
from diplex_router.spans import AdmitSpans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RULES = Rules(
    frozenset({"m"}),
    "m",
    {"standard": Tier("standard", (Pattern.A,), max_output_tokens=64, max_queue=5.0)},
    "standard",
)
FACTS = WorkerFacts(
    "pkg0.0", "pkg0", Pattern.A, frozenset({"m"}), 1, "h:1", 32, 100, 1, context=2048, engine="sim"
)


@dataclass
class Router:
    """A driver on invented time with one worker of one slot, and one client's session."""

    now: float = 100.0
    answers: list[Decision] = field(default_factory=list)
    reports: int = 0
    asks: int = 0

    def __post_init__(self) -> None:
        self.driver = Driver(Admission(RULES, ["pkg0.0"], epoch=1, now=self.now), lambda: self.now)
        self.written, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.written))
        AdmitSpans(self.driver, lambda: self.now, provider)
        self.session = self.driver.open_session(self)
        self.report(full=True, facts=FACTS)

    def answer(self, decision: Queued | Granted | Refused | Revoked) -> None:
        self.answers.append(decision)

    def report(self, **more: object) -> None:
        self.reports += 1
        report = Report(self.reports, more.pop("full", False), self.now, 0, 0, **more)  # type: ignore[arg-type]
        self.driver.tell(Reported("pkg0.0", report))

    def ask(self, *, ask_id: int = 0, proxied: bool = False, **more: object) -> AskKey:
        self.asks += 1
        key = AskKey(self.session, ask_id or self.asks)
        words = {"request_id": "mine", "model": "m", "prompt_tokens": 40, "max_tokens": 24, **more}
        ask = router_pb2.Ask(ask_id=key.ask_id, traceparent=PARENT, **words)  # type: ignore[arg-type]
        self.driver.ask(key, ask, proxied=proxied)
        return key

    def granted(self) -> Granted:
        granted = self.answers[-1]
        assert isinstance(granted, Granted)
        return granted

    def served(self, granted: Granted, **more: object) -> Served:
        """The core's word on a request that it granted."""
        served = Served(
            granted.request_id,
            "m",
            granted.tier,
            granted.tenant,
            granted.worker,
            EndReason.STOP,
            40,
            11,
            granted.queued,
            ttft=0.5,
            tpot=0.01,
            e2e=0.6,
            met=True,
            claim=granted.claim,
        )
        served = replace(served, **more)  # type: ignore[arg-type]
        for hear in self.driver.on_decision:
            hear(served, self.now)
        return served

    def spans(self) -> dict[str, ReadableSpan]:
        spans = self.written.get_finished_spans()
        assert len({span.name for span in spans}) == len(spans)
        return {span.name: span for span in spans}


@pytest.fixture
def router() -> Router:
    return Router()


def lasted(span: ReadableSpan) -> float:
    assert span.start_time and span.end_time
    return (span.end_time - span.start_time) / 1e9


def test_a_request_that_was_served_is_an_admit_with_its_queue_and_its_placement(router):
    router.ask()
    router.now += 0.6
    router.served(replace(router.granted(), queued=0.2), predicted_ttft=0.4)
    spans = router.spans()
    assert list(spans) == ["queue", "place", "admit"]
    admit = spans["admit"]
    assert f"{admit.parent.trace_id:032x}-{admit.parent.span_id:016x}" == PARENT[3:52]
    assert admit.kind is SpanKind.SERVER
    for inside in (spans["queue"], spans["place"]):
        assert inside.parent.span_id == admit.context.span_id
        assert inside.context.trace_id == admit.context.trace_id
        assert admit.start_time <= inside.start_time <= inside.end_time <= admit.end_time
    assert dict(admit.attributes) == {
        "diplex.request_id": "mine",
        "gen_ai.request.model": "m",
        "diplex.tier": "standard",
        "diplex.tenant": "default",
        "diplex.worker": "pkg0.0",
        "diplex.package": "pkg0",
        "diplex.pattern": "A",
        "diplex.engine": "sim",
        "diplex.simulated": False,
        "diplex.lease.blocks": 2,
        "diplex.lease.attempt": 1,
        "diplex.queue_ms": 0.0,
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.response.finish_reasons": ("stop",),
        "diplex.slo.met": True,
        "diplex.ttft_ms": 500.0,
        "diplex.prediction.ttft_error": pytest.approx(0.1),
        "diplex.tpot_ms": 10.0,
        "diplex.tokens_per_second": 100.0,
    }
    assert admit.status.status_code is StatusCode.UNSET


def test_the_queue_lasts_from_the_ask_to_the_step_that_found_room(router):
    router.ask()
    first = router.granted()
    router.report(held=(HeldClaim(first.claim, first.blocks, first.slots),))
    router.ask(request_id="second")
    assert isinstance(router.answers[-1], Queued)
    router.now += 2.0
    router.report(full=True, facts=FACTS)  # the first one's claim is gone: there is room
    second = router.granted()
    assert second.request_id == "second"
    router.written.clear()
    router.served(second)
    spans = router.spans()
    assert lasted(spans["queue"]) == pytest.approx(2.0)
    assert lasted(spans["admit"]) == pytest.approx(2.0)
    assert spans["admit"].attributes["diplex.queue_ms"] == pytest.approx(2000)


def test_a_refusal_is_the_admits_error_with_its_reason(router):
    router.ask(model="nobody's")
    spans = router.spans()
    assert list(spans) == ["queue", "admit"]
    assert spans["admit"].status.status_code is StatusCode.ERROR
    assert "nobody's" in spans["admit"].status.description
    assert spans["admit"].attributes["error.type"] == "UNKNOWN_MODEL"


def test_a_grant_that_nobody_started_is_an_error(router):
    router.ask()
    router.now += 7.0
    router.driver.tick()
    assert isinstance(router.answers[-1], Revoked)
    assert router.spans()["admit"].attributes["error.type"] == "NEVER_STARTED"


def test_a_request_that_is_asked_again_has_an_admit_for_each_time(router):
    key = router.ask()
    first = router.granted()
    router.report(held=(HeldClaim(first.claim, first.blocks, first.slots),))
    again = router_pb2.Again(
        claim=pb.Claim(lease_id=first.claim.lease_id, attempt=1), reason=pb.END_REASON_PREEMPTED
    )
    router.ask(ask_id=key.ask_id, again=again)
    before = router.spans()["admit"]
    assert before.attributes["gen_ai.response.finish_reasons"] == ("preempted",)
    assert before.attributes["diplex.lease.attempt"] == 1
    assert before.status.status_code is StatusCode.UNSET
    router.written.clear()
    router.report(full=True, facts=FACTS)
    second = router.granted()
    assert second.claim.attempt == 2
    router.served(second)
    assert router.spans()["admit"].attributes["diplex.lease.attempt"] == 2


def test_what_its_client_withdrew_is_written_by_the_next_tick(router):
    router.driver.tell(Withdrawn(router.ask()))
    router.driver.tick()
    admit = router.spans()["admit"]
    assert admit.attributes["gen_ai.response.finish_reasons"] == ("cancelled",)
    assert admit.status.status_code is StatusCode.UNSET


def test_what_waited_for_a_client_that_left_is_written_by_the_next_tick(router):
    router.ask()
    router.ask(request_id="waits")
    router.driver.close_session(router.session)
    router.driver.tick()
    names = [span.name for span in router.written.get_finished_spans()]
    assert sorted(names) == ["admit", "admit", "place", "queue", "queue"]


def test_a_request_that_failed_is_an_error(router):
    router.ask()
    router.served(router.granted(), reason=EndReason.FAILED, ttft=None, tpot=None, met=False)
    admit = router.spans()["admit"]
    assert admit.status.status_code is StatusCode.ERROR
    assert admit.attributes["error.type"] == "FAILED"
    assert "diplex.ttft_ms" not in admit.attributes


def test_a_request_whose_worker_started_anew_is_an_error(router):
    router.ask()
    granted = router.granted()
    router.report(held=(HeldClaim(granted.claim, granted.blocks, granted.slots),))
    router.report(full=True, facts=replace(FACTS, boot=2))
    router.driver.tick()
    admit = router.spans()["admit"]
    assert admit.status.status_code is StatusCode.ERROR
    assert admit.attributes["error.type"] == "FAILED"


def test_the_admit_of_a_proxied_request_lies_inside_this_process(router):
    router.ask(proxied=True)
    router.served(router.granted())
    assert router.spans()["admit"].kind is SpanKind.INTERNAL


def test_nothing_is_kept_of_what_is_written(router):
    for _ in range(3):
        router.driver.tell(Withdrawn(router.ask()))
        router.driver.tick()
    (asked,) = router.driver.on_ask
    spans = asked.__self__  # type: ignore[attr-defined]
    assert not spans._open and not spans._key_of
