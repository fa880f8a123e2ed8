"""What an ask means for the tenant that it belongs to."""

from diplex_core.events import Ask
from diplex_core.placement.rules import Wish
from diplex_core.wishes import wish_of
from diplex_core.words import Pattern, Rules, Tenant, Tier, salted

ALONE = Tenant("alone", api_key="a", isolate_prefixes=True)
RULES = Rules(
    frozenset({"m"}), "m", {"t": Tier("t", (Pattern.A,))}, "t", tenants=(ALONE, Tenant("open", api_key="o"))
)


def blocks_of(key: str) -> tuple[int, ...]:
    wish = wish_of(Ask("r", "m", api_key=key, prompt_tokens=64, block_hashes=(7, 8)), RULES)
    assert isinstance(wish, Wish)
    return tuple(wish.block_hashes)


def test_a_tenant_that_keeps_its_prefixes_to_itself_looks_for_them_under_names_of_its_own() -> None:
    assert blocks_of("o") == (7, 8)
    assert blocks_of("a") == (salted(7, ALONE.salt), salted(8, ALONE.salt))
