"""What a tenant may use: tokens a minute, and KV blocks at a time.

Tokens a minute are a bucket that holds a minute's worth and fills evenly. A request that is taken in takes
from it its prompt and the answer that is expected; once the true answer is known the rest is taken too, or
given back. So the bucket may be below nothing, and whoever comes then waits longer. A request of more than a
minute's worth is taken in when the bucket is full.

Blocks at a time are what a tenant's claims are charged for, on all workers together. A request beyond them
waits until others of its tenant have ended. A claim that grows is counted as it is, and never refused its
growth: what runs is not held up.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from diplex_core.words import Blocks, Claim, Seconds, Tenant, Tokens

_MINUTE: Final[Seconds] = 60.0


class _Bucket(NamedTuple):
    level: float
    at: Seconds


class _Taken(NamedTuple):
    tenant: Tenant
    tokens: Tokens


class Quotas:
    """What tenants with quotas have used. Others cost nothing here."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._taken: dict[int, _Taken] = {}  # by lease, of those whose answer is not known yet
        self._blocks: dict[str, Blocks] = {}
        self._claims: dict[Claim, tuple[str, Blocks]] = {}
        self._bounded: frozenset[str] = frozenset()

    # Tokens a minute.

    def lacks(self, tenant: Tenant, tokens: Tokens, kept: float, now: Seconds) -> Seconds | None:
        """For how long the tenant's bucket lacks so many tokens; `None`: it has them.

        Args:
            kept: tokens that are kept for others of the tenant, who were told to come back.
        """
        most = tenant.max_tokens_per_minute
        if most is None:
            return None
        needed = min(tokens, most) + kept - self._level(tenant, most, now)
        return needed * _MINUTE / most if needed > 1e-6 else None

    def take(self, lease_id: int, tenant: Tenant, tokens: Tokens, now: Seconds) -> None:
        """A request of so many tokens is taken in."""
        most = tenant.max_tokens_per_minute
        if most is not None:
            self._buckets[tenant.name] = _Bucket(self._level(tenant, most, now) - tokens, now)
            self._taken[lease_id] = _Taken(tenant, tokens)

    def true_up(self, lease_id: int, tokens: Tokens | None, now: Seconds) -> None:
        """It is over, and came to so many tokens; `None`: as many as were expected."""
        taken = self._taken.pop(lease_id, None)
        if taken is None or tokens is None:
            return
        most = taken.tenant.max_tokens_per_minute or 0
        level = min(float(most), self._level(taken.tenant, most, now) + taken.tokens - tokens)
        self._buckets[taken.tenant.name] = _Bucket(level, now)

    def _level(self, tenant: Tenant, most: Tokens, now: Seconds) -> float:
        level, at = self._buckets.get(tenant.name, (float(most), now))
        return min(float(most), level + (now - at) * most / _MINUTE)

    # Blocks at a time.

    def holds(self, claim: Claim, tenant: str, blocks: Blocks) -> None:
        """A claim of the tenant's is charged so many blocks, from now on or still."""
        if tenant not in self._bounded:
            return
        before = self._claims.get(claim)
        if before is not None and before[1] == blocks:
            return
        self._claims[claim] = tenant, blocks
        self._blocks[tenant] = self._blocks.get(tenant, 0) + blocks - (before[1] if before else 0)

    def resized(self, claim: Claim, blocks: Blocks) -> str:
        """A claim is charged so many blocks now. Answers whose it is, "" where it does not matter."""
        before = self._claims.get(claim)
        if before is None:
            return ""
        self.holds(claim, before[0], blocks)
        return before[0]

    def freed(self, claim: Claim) -> str:
        """A claim is over. Answers whose it was, "" where it does not matter."""
        tenant, blocks = self._claims.pop(claim, ("", 0))
        if tenant:
            self._blocks[tenant] -= blocks
        return tenant

    def held(self, tenant: str) -> Blocks:
        return self._blocks.get(tenant, 0)

    def room(self, tenant: Tenant, blocks: Blocks) -> bool:
        """Whether the tenant may hold so many blocks more."""
        most = tenant.max_concurrent_blocks
        return most is None or self.held(tenant.name) + blocks <= most

    def words(self, tenant: Tenant) -> str:
        """Why a request of the tenant is passed over, as a user may read it."""
        held, most = self.held(tenant.name), tenant.max_concurrent_blocks
        return f"its tenant {tenant.name} holds {held} of the {most} KV blocks that it may hold at a time"

    def recount(self, bounded: frozenset[str], claims: Mapping[Claim, tuple[str, Blocks]]) -> None:
        """Other tenants have quotas now.

        Args:
            bounded: those who may hold so many blocks at a time.
            claims: of all tenants, by what their leases hold now.
        """
        known = {**self._claims, **claims}  # what is being taken back from a lease that is over is known here
        self._bounded, self._claims, self._blocks = bounded, {}, {}
        for claim, (tenant, blocks) in known.items():
            self.holds(claim, tenant, blocks)
