"""Who has had how much: virtual token counters, so that tenants share what there is by their weights.

Of the tenants that wait, the one with the least counter is served next. What is granted raises its counter by
the tokens of the prompt and twice those of the expected answer, divided by its weight; once the true answer
is known the rest is added or taken back. A tenant that comes back after a pause is lifted to the least
counter of those that wait: nobody saves up for a burst. Source: Sheng et al., Fairness in serving large
language models, OSDI 2024 (VTC); there tokens are charged as they are produced, here a router hears of them
at the end.

**The bound.** Two tenants f and g wait all the time, and both could use what is granted. Let r be the most
that one grant charges (weighted), K the most requests of each that are in flight at a time, e the most by
which an answer differs from what was expected of it (weighted). Then

    c_f - c_g <= r + 2 K e    at all times.

For at f's last grant c_f <= c_g held, and the grant charged r at most. Since then f has been charged nothing;
its counter rose only as answers in flight turned out longer, at most K times by e. That of g fell only as
answers that were in flight then turned out shorter, at most K times by e: what was granted later ends with
its true cost, which is not negative. When nothing is in flight counters say what each was truly given; and
where all answers are as expected the bound is r alone: one request.
"""

from typing import Final, NamedTuple

from diplex_core.words import Tenant, Tokens

INPUT: Final = 1.0
OUTPUT: Final = 2.0
"""What a token weighs, as in the paper: to produce one costs an engine about twice as much as to read one."""


def cost(tenant: Tenant, prompt: Tokens, output: Tokens) -> float:
    """What so many tokens charge a tenant.

    >>> cost(Tenant("acme", weight=2.0), 1000, 500)
    1000.0
    """
    return (INPUT * prompt + OUTPUT * output) / tenant.weight


class _Charge(NamedTuple):
    tenant: Tenant
    prompt: Tokens
    cost: float


class Counters:
    """The virtual token counters of all tenants that were ever here."""

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._waiting: dict[str, None] = {}
        self._last = 0.0  # the counter of the tenant that was the last to wait for nothing more
        self._charges: dict[int, _Charge] = {}  # by lease, of those whose answer is not known yet

    def of(self, tenant: str) -> float:
        return self._counters.get(tenant, 0.0)

    def waits(self, tenant: str) -> float:
        """It waits from now on, and did not. Answers its counter."""
        mine = self._lift(tenant)
        self._waiting[tenant] = None
        return mine

    def waits_no_more(self, tenant: str) -> None:
        """Nothing of it waits any longer."""
        if tenant in self._waiting:
            del self._waiting[tenant]
            if not self._waiting:
                self._last = self._counters[tenant]

    def _lift(self, tenant: str) -> float:
        counters, waiting = self._counters, self._waiting
        least = min([counters[name] for name in waiting]) if waiting else self._last
        mine = counters.get(tenant, 0.0)
        if mine < least:
            mine = least
        counters[tenant] = mine
        return mine

    def granted(self, lease_id: int, tenant: Tenant, prompt: Tokens, expected: Tokens) -> float:
        """Charge a grant; an attempt after another is charged beside it. Answers the tenant's counter."""
        name, charge = tenant.name, cost(tenant, prompt, expected)
        before = self._charges.get(lease_id)
        if before is None:
            self._charges[lease_id] = _Charge(tenant, prompt, charge)
        else:
            self._charges[lease_id] = _Charge(tenant, before.prompt + prompt, before.cost + charge)
        # One that is served at once never waited.
        counter = (self._counters[name] if name in self._waiting else self._lift(name)) + charge
        self._counters[name] = counter
        if not self._waiting:
            self._last = counter
        return counter

    def ended(self, lease_id: int, output: Tokens | None, *, ran: bool = True) -> str:
        """A request is over. Answers whose counter has changed, "" for nobody's.

        Args:
            output: tokens of its answers, those of earlier attempts included; `None`: as expected.
            ran: anything of it did; else nothing is charged.
        """
        charge = self._charges.pop(lease_id, None)
        if charge is None or (ran and output is None):
            return ""
        tenant = charge.tenant
        true = cost(tenant, charge.prompt, output) if ran and output is not None else 0.0
        if true == charge.cost:
            return ""
        self._counters[tenant.name] += true - charge.cost
        return tenant.name
