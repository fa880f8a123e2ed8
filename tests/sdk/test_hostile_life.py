"""A request's life under hostile order: whatever comes, its consumer hears of one end, and that last."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2, worker_pb2
from diplex.wire.request import RequestLife, Wanted
from diplex.wire.status import Problem, grpc

# What may befall a request; `old` goes to an attempt that is over already.
EVENTS = st.sampled_from(
    [
        *("queued", "granted", "granted by one that cannot resume", "refused", "revoked", "lost", "back"),
        *("tokens", "old tokens", "old done", "cancel", "window", "deadline"),
        *("STOP", "PREEMPTED", "REFUSED", "REVOKED", "FAILED", "UNAVAILABLE", "CANCELLED"),
    ]
)


@dataclass
class Written:
    """Desk, streams and consumer in one, which write down what they are told."""

    asks: list[router_pb2.Ask] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    starts: list[tuple[worker_pb2.Start, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    text: str = ""

    def new_id(self) -> int:
        return 1

    def ask(self, ask: router_pb2.Ask, answers: Any) -> None:
        self.asks.append(ask)

    def withdraw(self, ask_id: int) -> None:
        self.withdrawn.append(ask_id)

    def forget(self, ask_id: int) -> None: ...

    def open(self, address: str, start: worker_pb2.Start, sink: Any) -> "Written":
        self.starts.append((start, sink))
        return self

    def cancel(self) -> None: ...

    def window(self, upto: int) -> None: ...

    def on_queued(self, position: int) -> None:
        self.heard.append("queued")

    def on_serving(self, granted: router_pb2.Granted, grant: pb.Grant) -> None:
        self.heard.append("serving")

    def on_preempted(self, preemptions: int) -> None:
        self.heard.append("preempted")

    def on_tokens(self, tokens: pb.Tokens) -> None:
        assert tokens.index == len(self.text)
        self.heard.append("tokens")
        self.text += tokens.text

    def on_done(self, done: pb.Done) -> None:
        self.heard.append("done")


def befall(life: RequestLife, written: Written, event: str) -> None:
    attempt = len(written.starts)
    claim = pb.Claim(lease_id=9, attempt=attempt + 1)
    match event:
        case "queued":
            life.on_queued(router_pb2.Queued(ask_id=1))
        case "granted" | "granted by one that cannot resume":
            grant = pb.SignedGrant(grant=pb.Grant(claim=claim, worker="w").SerializeToString())
            life.on_granted(router_pb2.Granted(ask_id=1, grant=grant, can_resume=event == "granted"))
        case "refused":
            life.on_refused(router_pb2.Refused(ask_id=1))
        case "revoked":
            life.on_revoked(router_pb2.Revoked(ask_id=1, claim=claim))
        case "lost":
            life.on_lost()
        case "back":
            life.on_back()
        case "cancel":
            life.cancel()
        case "window":
            life.window(4)
        case "deadline":
            life._deadline_passed()
        case "old tokens" | "old done" if attempt > 1:
            sink = written.starts[-2][1]
            if event == "old done":
                sink.on_done(pb.Done(reason=pb.END_REASON_STOP))
            else:
                sink.on_tokens(pb.Tokens(index=99, count=1, text="?"))
        case "tokens" if attempt:
            written.starts[-1][1].on_tokens(pb.Tokens(index=len(written.text), count=1, ids=[7], text="x"))
        case "STOP" | "PREEMPTED" | "REFUSED" | "REVOKED" | "FAILED" | "CANCELLED" if attempt:
            written.starts[-1][1].on_done(pb.Done(reason=pb.EndReason.Value(f"END_REASON_{event}")))
        case "UNAVAILABLE" if attempt:
            gone = Problem(grpc.StatusCode.UNAVAILABLE, "gone").to_bytes()
            written.starts[-1][1].on_done(pb.Done(reason=pb.END_REASON_FAILED, error=gone))


def wanted(choices: int) -> Wanted:
    return Wanted("r", "m", "", "", pb.Prompt(text="p"), pb.Sampling(), 1, False, n=choices, timeout=60.0)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(EVENTS, max_size=25), choices=st.sampled_from([1, 1, 2]))
def test_one_end_and_nothing_after_it_whatever_comes(events: list[str], choices: int):
    async def live() -> Written:
        written = Written()
        life = RequestLife(wanted(choices), written, written, written)  # type: ignore[arg-type]
        life.begin()
        for event in events:
            befall(life, written, event)
            if life._pause is not None:  # time passes
                life._pause.cancel()
                life._ask_after_pause()
            starts = written.starts
            if starts and written.heard[-1:] == ["serving"]:
                start = starts[-1][0]
                assert start.resume.from_index == len(written.text)
                assert len(start.resume.ids) == len(written.text)
        befall(life, written, "cancel")
        life._end_alone()
        assert life._timer is None and life._pause is None
        return written

    written = asyncio.run(live())
    assert written.heard.count("done") == 1
    assert written.heard[-1] == "done"
    assert len(written.starts) == written.heard.count("serving")
    assert all(ask.ask_id == 1 for ask in written.asks)
