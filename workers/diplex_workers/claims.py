"""Claims, end reasons and timings between the wire's messages and the core's words."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex_core.words import Claim, EndReason

ON_WIRE: Final[Mapping[EndReason, pb.EndReason.ValueType]] = MappingProxyType(
    {reason: pb.EndReason.Value(f"END_REASON_{reason.value}") for reason in EndReason}
)
_IN_CORE: Final[Mapping[int, EndReason]] = MappingProxyType({number: r for r, number in ON_WIRE.items()})


def claim_in_core(claim: pb.Claim) -> Claim:
    return Claim(claim.lease_id, claim.attempt)


def claim_on_wire(claim: Claim) -> pb.Claim:
    return pb.Claim(lease_id=claim.lease_id, attempt=claim.attempt)


def stop_reason(number: int) -> EndReason:
    """Why a router stops a claim: PREEMPTED, or else REVOKED."""
    return EndReason.PREEMPTED if _IN_CORE.get(number) is EndReason.PREEMPTED else EndReason.REVOKED
