"""Why a request waits: how many are served before it, and what it lacks on the worker with most room."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diplex_core.fleet import Worker
from diplex_core.placement.filters import LASTING
from diplex_core.placement.place import Explained
from diplex_core.placement.rules import Wish, need_on
from diplex_core.words import Blocks, Seconds


@dataclass(frozen=True, slots=True)
class Wait:
    """What is known of a request that waits.

    Attributes:
        waited: since it was first asked for.
        ahead: of its queue, those that are served before it.
        queued: all that wait in its queue, itself included.
        needed: KV blocks that it needs on `worker`, the one with most of them free that takes such requests;
        free: and those.
        also: what else is said of it: a worker that is kept for it, its tenant's quota.
    """

    waited: Seconds
    ahead: int
    queued: int
    needed: Blocks = 0
    free: Blocks = 0
    worker: str = ""
    also: str = ""

    @property
    def short(self) -> Blocks:
        return max(0, self.needed - self.free)


def wait_of(
    wish: Wish, ahead: int, queued: int, pools: Iterable[Worker], words: Mapping[str, Explained], also: str
) -> Wait:
    """What a wish waits for.

    Args:
        words: what every filter says of each of these pools.
    """
    able = [
        pool for pool in pools if not pool.trouble and not words[pool.name].objections.keys() & {*LASTING}
    ]
    if not able:
        return Wait(wish.waited, ahead, queued, also=also)
    needs = [(pool, need_on(wish, pool)) for pool in able]
    roomiest, need = max(needs, key=lambda one: one[0].ledger.open_blocks - one[1].blocks)
    free = roomiest.ledger.open_blocks
    return Wait(wish.waited, ahead, queued, need.blocks, free, roomiest.name, also)


def words_of(wait: Wait, wish: Wish, words: Mapping[str, Explained]) -> str:
    """Why it waits, as a user may read it."""
    said = [_place(wait, wish)]
    if wait.short:
        said.append(
            f"it needs {wait.needed} KV blocks; {wait.worker}, which has most room, has {wait.free} free, "
            f"{wait.short} too few"
        )
    elif wait.worker:
        said.append(_beside_room(words[wait.worker].objections))
    else:
        said.append(_nobody(words))
    return "; ".join(filter(None, (*said, wait.also)))


def _place(wait: Wait, wish: Wish) -> str:
    if wait.queued == 1:
        return ""
    if not wait.ahead:
        return f"it is the next of {wait.queued} in tier {wish.tier.name}"
    verb = "comes" if wait.ahead == 1 else "come"
    return f"{wait.ahead} of {wait.queued} in tier {wish.tier.name} {verb} before it"


def _beside_room(objections: Mapping[str, str]) -> str:
    """What stands against the worker that has room for it."""
    return "; ".join(objections.values()) or "there is room, and those before it go first"


def _nobody(words: Mapping[str, Explained]) -> str:
    troubles = sorted({said.objections["healthy"] for said in words.values() if "healthy" in said.objections})
    return f"no worker that takes such requests is up: {'; '.join(troubles)}" if troubles else ""
