"""Whom a worker believes."""

from collections.abc import Callable

import grpc
import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.wire.grants import Keys
from diplex.wire.status import Problem
from diplex_core.words import Claim
from diplex_workers.gate import Gate, Turned

KEYS = Keys.of("secret")
GOOD = {
    "claim": pb.Claim(lease_id=9, attempt=2),
    "router": "r1",
    "epoch": 5,
    "worker": "w0",
    "boot": 77,
    "start_by_ms": 5000,
}


def signed(keys: Keys = KEYS, **more: object) -> pb.SignedGrant:
    return keys.sign(pb.Grant(**{**GOOD, **more}))  # type: ignore[arg-type]


@pytest.fixture
def gate() -> Gate:
    gate = Gate("w0", 77, KEYS)
    gate.hello(KEYS.hello("r1", 5, "w0"))
    return gate


@pytest.fixture
def why(gate: Gate) -> Callable[..., str]:
    """Shows a grant and tells the reason why it is turned away; "" for one that is taken."""

    def show(grant: pb.SignedGrant, now: float = 1.0) -> str:
        answer = gate.show(grant, now)
        return answer.problem.reason if isinstance(answer, Turned) else ""

    return show


def test_a_good_grant_is_taken_as_it_was_signed(gate: Gate):
    assert gate.show(signed(), 1.0) == pb.Grant(**GOOD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bent", "reason"),
    [
        ({"worker": "w1"}, "WRONG_WORKER"),
        ({"boot": 78}, "WRONG_BOOT"),
        ({"epoch": 4}, "OLD_EPOCH"),
        ({"start_by_ms": 999}, "GRANT_EXPIRED"),
    ],
)
def test_a_grant_that_is_not_for_this_worker_now_is_turned_away(why, bent: dict[str, object], reason: str):
    assert why(signed(**bent)) == reason


def test_a_grant_signed_with_another_key_is_not_believed(why):
    assert why(signed(Keys.of("forged"))) == "BAD_GRANT"


def test_the_first_check_that_fails_is_the_answer(why):
    everything = {"worker": "w1", "boot": 78, "epoch": 4, "start_by_ms": 999}
    answers = []
    for word in ("worker", "boot", "epoch", "start_by_ms"):
        answers.append(why(signed(**everything)))
        del everything[word]
    assert answers == ["WRONG_WORKER", "WRONG_BOOT", "OLD_EPOCH", "GRANT_EXPIRED"]


def test_a_grant_is_good_to_the_last_millisecond(why):
    assert why(signed(), 5.0) == ""


def test_a_claim_shown_twice_is_refused(why):
    assert [why(signed()), why(signed()), why(signed(), 60.0)] == ["", "GRANT_SHOWN", "GRANT_EXPIRED"]


def test_another_attempt_of_the_same_lease_is_another_claim(why):
    assert why(signed()) == ""
    assert why(signed(claim=pb.Claim(lease_id=9, attempt=3))) == ""


def test_a_stopped_claim_that_starts_late_is_refused_for_a_minute(gate: Gate, why):
    gate.stopped(Claim(9, 2), Problem(grpc.StatusCode.ABORTED, "taken back", "REVOKED"), 1.0)
    late = signed(start_by_ms=10**6)
    assert why(late, 60.9) == "REVOKED"
    assert why(late, 61.1) == ""


def test_a_router_that_was_never_heard_of_is_believed_by_its_signature(why):
    assert why(signed(router="r9", epoch=1)) == ""


def test_only_grants_of_a_routers_present_epoch_are_taken(gate: Gate, why):
    gate.hello(KEYS.hello("r1", 6, "w0"))
    assert why(signed()) == "OLD_EPOCH"
    assert why(signed(epoch=6)) == ""


def test_one_routers_new_epoch_leaves_anothers_grants_alone(gate: Gate, why):
    gate.hello(KEYS.hello("r2", 1, "w0"))
    assert why(signed()) == ""


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (Keys.of("forged").hello("r1", 9, "w0"), grpc.StatusCode.UNAUTHENTICATED),
        (KEYS.hello("r1", 9, "w1"), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_a_hello_that_is_forged_or_for_another_worker_changes_nothing(gate: Gate, why, hello, code):
    with pytest.raises(Problem) as refused:
        gate.hello(hello)
    assert refused.value.code is code
    assert why(signed()) == ""


def test_without_a_key_nothing_signed_is_believed():
    gate = Gate("w0", 77, None)
    answer = gate.show(signed(), 1.0)
    assert isinstance(answer, Turned)
    assert answer.problem.code is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(Problem, match="no key"):
        gate.hello(KEYS.hello("r1", 5, "w0"))


@pytest.mark.parametrize(
    ("bent", "told"),
    [({"boot": 78}, True), ({"epoch": 4}, True), ({"worker": "w1"}, False), ({"start_by_ms": 0}, False)],
)
def test_the_router_is_told_only_of_genuine_grants_for_this_worker_that_cannot_have_run(
    gate: Gate, bent, told: bool
):
    answer = gate.show(signed(**bent), 1.0)
    assert isinstance(answer, Turned)
    assert (answer.grant is not None) == told


def test_the_router_is_not_told_of_a_second_showing(gate: Gate):
    gate.show(signed(), 1.0)
    answer = gate.show(signed(), 1.0)
    assert isinstance(answer, Turned)
    assert answer.grant is None
