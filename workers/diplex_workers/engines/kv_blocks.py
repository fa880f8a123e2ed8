"""KV-cache events of vLLM and SGLang as diplex's: which prefix blocks are kept, under the names clients use.

Both name a block by a hash of their own; its event brings its tokens and its parent's hash. So each block's
name follows from its parent's, as clients chain them (`diplex.wire.blocks`). Only what lies in GPU memory is
kept, and only of the first cache group, which is the full attention's. A block that was read with more than
tokens (an adapter, an image, a salt that is not ours) has no name, and so have its children.

One batch, numbered from 0, becomes one event. Batches must be read in their order, for a parent comes before
its children: those behind a hole are put aside until it is filled, or the cache is cleared.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from diplex.wire.blocks import next_hash, root_of
from diplex_core.words import BlockHash, Tokens, salted
from diplex_workers.residency import FIRST, BlockEvent

Key: TypeAlias = int | bytes | str

STORED: Final = "BlockStored"
REMOVED: Final = "BlockRemoved"
CLEARED: Final = "AllBlocksCleared"
GPU: Final = "GPU"
# Older versions and SGLang write events as arrays, in this order, their kind first; newer ones by name.
_STORED_IN_ORDER: Final = (
    *("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name"),
    *("extra_keys", "group_idx"),
)
_REMOVED_IN_ORDER: Final = ("block_hashes", "medium", "group_idx")
# Most batches that wait behind a hole: as many as vLLM keeps to be asked for again.
_ASIDE: Final = 10_000
_SALT: Final = "diplex-"


def salt_word(salt: int) -> str:
    """What the engine is told to keep a tenant's blocks under."""
    return f"{_SALT}{salt:x}"


class Unreadable(Exception):
    """A batch that is none."""


class _Block(NamedTuple):
    plain: BlockHash  # without its salt: what children go on from
    salt: int

    @property
    def name(self) -> BlockHash:
        return salted(self.plain, self.salt)


class Blocks:
    """What one engine keeps, from its first batch on.

    Args:
        epoch: higher with each start of the engine.
    """

    def __init__(self, model: str, block_tokens: Tokens, epoch: int) -> None:
        self._root = root_of(model)
        self._block_tokens = block_tokens
        self._epoch = epoch
        self._known: dict[Key, _Block] = {}
        self._aside: dict[int, Any] = {}
        self.due = 0

    def take(self, number: int, batch: Any) -> list[BlockEvent]:
        """What follows from a batch: nothing for a repeat; for one behind a hole, that there is one; else its
        event, and those of the batches that waited for it.

        Raises:
            Unreadable: it is none.
        """
        if number < self.due:
            return []
        events = _events_of(batch)
        cleared = max((at for at, (kind, _) in enumerate(events) if kind == CLEARED), default=None)
        if number > self.due and cleared is None:
            if len(self._aside) < _ASIDE:
                self._aside[number] = batch
            return [BlockEvent(self._epoch, number + FIRST, self._block_tokens)]
        if cleared is not None:  # whatever was missed is gone too
            self._known.clear()
            events = events[cleared + 1 :]
        told = [self._one(number, events, listing=cleared is not None)]
        self.due = number + 1
        self._aside = {waits: kept for waits, kept in self._aside.items() if waits > number}
        if (following := self._aside.pop(self.due, None)) is not None:
            told += self.take(self.due, following)
        return told

    def _one(
        self, number: int, events: Sequence[tuple[str, Mapping[str, Any]]], *, listing: bool
    ) -> BlockEvent:
        kept: dict[BlockHash, bool] = {}  # stored, or removed: the last word
        size = self._block_tokens
        for kind, event in events:
            if event.get("medium") not in (None, GPU) or event.get("group_idx") not in (None, 0):
                continue
            if kind == STORED:
                if event["block_size"] != self._block_tokens:
                    size = event["block_size"]
                    continue
                kept |= dict.fromkeys(self._stored(event), True)
            elif kind == REMOVED:
                gone = [self._known.pop(key, None) for key in event["block_hashes"]]
                kept |= {block.name: False for block in gone if block is not None}
        return BlockEvent(
            epoch=self._epoch,
            number=number + FIRST,
            block_tokens=size,
            stored=tuple(block for block, there in kept.items() if there),
            removed=() if listing else tuple(block for block, there in kept.items() if not there),
            listing=listing,
        )

    def _stored(self, event: Mapping[str, Any]) -> list[BlockHash]:
        above = event["parent_block_hash"]
        parent = None if above is None else self._known.get(above)
        if above is not None and parent is None:
            return []
        names = []
        size, ids, extras = event["block_size"], event["token_ids"], event.get("extra_keys")
        for at, key in enumerate(event["block_hashes"]):
            salt = _salt_in(extras[at] if extras else None, event)
            if salt is None:
                break
            if parent is not None:
                salt = parent.salt
            before = self._root if parent is None else parent.plain
            parent = self._known[key] = _Block(next_hash(before, ids[at * size : (at + 1) * size]), salt)
            names.append(parent.name)
        return names


def _salt_in(extra: Any, event: Mapping[str, Any]) -> int | None:
    """The salt that a block was read under, 0 for none; `None`: with something that has no name here."""
    if event.get("lora_id") is not None or event.get("lora_name") is not None:
        return None
    if not extra:
        return 0
    match extra:
        case [str(word)] if word.startswith(_SALT):
            return int(word.removeprefix(_SALT), 16)
    return None


def _events_of(batch: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """A batch's events, each with its kind, whichever way they are written; those of other ranks are none."""
    try:
        if isinstance(batch, Mapping):
            events, rank = batch["events"], batch.get("data_parallel_rank")
        else:
            events, rank = batch[1], batch[2] if len(batch) > 2 else None
        return [] if rank else [_named(event) for event in events]
    except (KeyError, IndexError, TypeError) as error:
        raise Unreadable(f"a batch of KV events that is none: {error!r}") from error


def _named(event: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(event, Mapping):
        return event["type"], event
    kind, *values = event
    order = _STORED_IN_ORDER if kind == STORED else _REMOVED_IN_ORDER
    return kind, dict(zip(order, values, strict=False))
