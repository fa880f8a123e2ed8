"""The ledger's invariant under hostile orders: reserved + pinned + reclaiming + guard <= capacity, always."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from diplex_core.ledger import PoolLedger
from diplex_core.words import Claim

claims = st.builds(Claim, st.integers(1, 12), st.integers(1, 3))
hashes = st.lists(st.integers(1, 8), max_size=5, unique=True)


class LedgerMachine(RuleBasedStateMachine):
    """Charges, reports and evictions in any order; a plain dictionary beside it says what must be true."""

    @initialize(capacity=st.integers(1, 40), slots=st.integers(1, 6), guard=st.integers(0, 5))
    def build(self, capacity: int, slots: int, guard: int) -> None:
        self.ledger = PoolLedger(capacity + guard, slots, guard)
        self.charged: dict[Claim, tuple[int, int, bool]] = {}  # blocks, slots, stray

    @rule(claim=claims, blocks=st.integers(0, 20), slots=st.integers(1, 3), prompt=hashes)
    def charge_what_fits(self, claim: Claim, blocks: int, slots: int, prompt: list[int]) -> None:
        hits = prompt[: self.ledger.leading(prompt)]
        if claim not in self.charged and self.ledger.fits(blocks, slots, hits):
            self.ledger.charge(claim, blocks, slots, hits)
            self.charged[claim] = (blocks, slots, False)

    @rule(claim=claims, blocks=st.integers(0, 60), slots=st.integers(1, 3))
    def adopt_what_a_report_lists(self, claim: Claim, blocks: int, slots: int) -> None:
        if claim not in self.charged:
            self.ledger.adopt(claim, blocks, slots)
            charge = self.ledger.charge_of(claim)
            assert charge is not None
            self.charged[claim] = (blocks, slots, charge.stray)

    @rule(claim=claims, blocks=st.integers(0, 20))
    def confirm_a_smaller_size(self, claim: Claim, blocks: int) -> None:
        if claim in self.charged and blocks <= self.charged[claim][0]:
            self.ledger.confirm(claim, blocks)
            self.charged[claim] = (blocks, *self.charged[claim][1:])

    @rule(claim=claims)
    def want_a_claim_back(self, claim: Claim) -> None:
        self.ledger.reclaim(claim)

    @rule(claim=claims)
    def release_once_or_twice(self, claim: Claim) -> None:
        self.ledger.release(claim)
        self.ledger.release(claim)
        self.charged.pop(claim, None)

    @rule(blocks=hashes)
    def the_engine_keeps_blocks(self, blocks: list[int]) -> None:
        self.ledger.stored(blocks)

    @rule(blocks=hashes)
    def the_engine_evicts_blocks(self, blocks: list[int]) -> None:
        self.ledger.removed(blocks)

    @rule(blocks=st.integers(0, 80), slots=st.integers(0, 9))
    def others_take_room(self, blocks: int, slots: int) -> None:
        self.ledger.blocks.foreign, self.ledger.slots.foreign = blocks, slots

    @invariant()
    def no_axis_is_over_committed(self) -> None:
        for axis in (self.ledger.blocks, self.ledger.slots):
            assert axis.own <= axis.capacity
            assert axis.free >= 0
            assert min(axis.reserved, axis.reclaiming, axis.pinned, axis.stray) >= 0

    @invariant()
    def the_sums_are_those_of_the_charges(self) -> None:
        own = [c for c in self.charged.values() if not c[2]]
        strays = [c for c in self.charged.values() if c[2]]
        axis = self.ledger.blocks
        assert axis.reserved + axis.reclaiming == sum(blocks for blocks, _, _ in own)
        assert axis.stray == sum(blocks for blocks, _, _ in strays)
        assert self.ledger.slots.reserved + self.ledger.slots.reclaiming == sum(slots for _, slots, _ in own)
        assert len(self.ledger) == len(self.charged)


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestTheLedgersInvariant = LedgerMachine.TestCase
