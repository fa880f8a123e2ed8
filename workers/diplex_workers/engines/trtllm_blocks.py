"""TensorRT-LLM's KV-cache events as diplex's: which prefix blocks are kept, under the names clients use.

TensorRT-LLM names a block by a hash of its own; its event brings the block's tokens and its parent's hash. So
each block's name follows from its parent's, as clients chain them (`diplex.wire.blocks`). A block is kept
while it lies in GPU memory (level 0): what went to the host may come back, but reading it is not free, and
routers are told of it only then.

An event does not say whose salt its blocks were read under. A first block is named by the salt that its
tokens were asked with; were those several, it stays without a name, and so do its children: nobody is told
of them, so nobody counts on them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from diplex.wire.blocks import next_hash, root_of
from diplex_core.words import BlockHash, Tokens, salted
from diplex_workers.engines.trtllm_interface import KvEvent, StoredBlock
from diplex_workers.residency import FIRST, BlockEvent

# First blocks of which it is remembered under which salts they were asked for.
_ASKED: Final = 65_536


@dataclass(slots=True)
class _Block:
    plain: BlockHash  # without its salt: what children go on from
    salt: int
    on_gpu: bool

    @property
    def name(self) -> BlockHash:
        return salted(self.plain, self.salt)


class Blocks:
    """What one engine keeps, from its first event on.

    Args:
        epoch: higher with each start of the engine.
    """

    def __init__(self, model: str, block_tokens: Tokens, epoch: int) -> None:
        self._root = root_of(model)
        self._block_tokens = block_tokens
        self._epoch = epoch
        self._known: dict[int | str, _Block] = {}
        self._asked: OrderedDict[tuple[int, ...], set[int]] = OrderedDict()
        self._window = 0

    def asked(self, ids: Sequence[int], salt: int) -> None:
        """A prompt goes to the engine; its blocks are kept under this salt."""
        first = tuple(ids[: self._block_tokens])
        self._asked.setdefault(first, set()).add(salt)
        self._asked.move_to_end(first)
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)

    def take(self, event: KvEvent) -> BlockEvent:
        """What an event says, in the worker's words."""
        stored: list[BlockHash] = []
        removed: list[BlockHash] = []
        data, window = event["data"], event.get("window_size", 0)
        if data["type"] == "created":
            self._window = max(self._window, window)
        elif window >= self._window:  # layers with a shorter window keep less, and are no measure
            match data["type"]:
                case "stored":
                    self._stored(data.get("parent_hash"), data["blocks"], stored)
                case "removed":
                    for key in data["block_hashes"]:
                        block = self._known.pop(key, None)
                        if block is not None and block.on_gpu:
                            removed.append(block.name)
                case "updated":
                    self._moved(data["block_hash"], data.get("cache_level"), stored, removed)
        return BlockEvent(
            epoch=self._epoch,
            number=event["event_id"] + FIRST,  # theirs count from 0
            block_tokens=self._block_tokens,
            stored=tuple(stored),
            removed=tuple(removed),
        )

    def _stored(
        self, parent_hash: int | str | None, blocks: Sequence[StoredBlock], stored: list[BlockHash]
    ) -> None:
        parent = self._known.get(parent_hash) if parent_hash else None
        if parent_hash and parent is None:
            return  # without a name, so are its children
        for block in blocks:
            ids = tuple(token["token_id"] for token in block["tokens"])
            if len(ids) != self._block_tokens:
                return  # partly filled: nobody has a name for it, and nothing follows it
            salt = self._salt_of(ids) if parent is None else parent.salt
            if salt is None:
                return
            before = self._root if parent is None else parent.plain
            parent = _Block(next_hash(before, ids), salt, on_gpu=block["cache_level"] == 0)
            self._known[block["block_hash"]] = parent
            if parent.on_gpu:
                stored.append(parent.name)

    def _salt_of(self, first: tuple[int, ...]) -> int | None:
        salts = self._asked.get(first, {0})
        return next(iter(salts)) if len(salts) == 1 else None

    def _moved(
        self,
        key: int | str,
        level: object,
        stored: list[BlockHash],
        removed: list[BlockHash],
    ) -> None:
        block = self._known.get(key)
        if block is None or not isinstance(level, dict):
            return
        on_gpu = level["new_value"] == 0
        if on_gpu != block.on_gpu:
            (stored if on_gpu else removed).append(block.name)
            block.on_gpu = on_gpu
