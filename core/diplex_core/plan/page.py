"""The planner's page as values: everything that `diplex plan` says of one deployment, and nothing drawn."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from diplex_core.model.memory import Group
from diplex_core.plan.claims import Claims, claims_about
from diplex_core.plan.compare import Compared, compared
from diplex_core.plan.deployment import Deployment, Unplannable, objection
from diplex_core.plan.frontier import Curve, frontier
from diplex_core.plan.inverse import Inverse, inverse
from diplex_core.plan.prediction import Beside, Predictions, chapter_times, interference, predictions_of
from diplex_core.plan.remarks import remarks
from diplex_core.words import Blocks, Pattern, Tokens

BATCH: Final = 16
CONTEXT: Final[Tokens] = 32768
"""What is planned for where nothing is said; the context at most the model's."""
CHUNKS: Final[tuple[Tokens, ...]] = (0, 256, 1024, 2048, 8192, 16384)
"""Prompt tokens in one step, from none up, of which the page says what they do to the streams beside them."""
BLOCK: Final[Tokens] = 32
"""Tokens of a KV block: what TensorRT-LLM takes where nothing is said (vLLM: 16)."""


@dataclass(frozen=True, slots=True)
class Column:
    """The memory of one GPU, or of one of its dies where the pattern tells them apart.

    Attributes:
        memory: bytes of it; the groups and the pool are that, exactly.
        pool: bytes of KV cache.
        asked: bytes that the sequences asked for take of it; more than the pool: they do not fit.
    """

    die: int | None
    memory: int
    groups: tuple[Group, ...]
    pool: int
    asked: int


@dataclass(frozen=True, slots=True)
class Page:
    """One deployment and one load.

    Attributes:
        name: the model as it was asked for.
        batch: sequences of the whole deployment, each of `context` tokens; `prompt`: read among them.
        objection: why that does not fit, with the nearest that does; `None`: it fits.
        most, longest: sequences of this context that fit; context that so many sequences can have.
        columns: the memory of one GPU; where there are several, each looks the same.
        at: sequences that speed is predicted for: those asked for, or the most that fit.
        predictions: `None` where not even one sequence fits.
        calibration: what figures in the column `chapter` are called; "": there are none.
        beside: a step of `at` sequences with so many prompt tokens in it, from none up.
    """

    name: str
    deployment: Deployment
    batch: int
    context: Tokens
    prompt: Tokens
    objection: str | None
    most: int
    longest: Tokens
    columns: tuple[Column, ...]
    inverse: Inverse
    at: int
    predictions: Predictions | None
    calibration: str
    beside: tuple[Beside, ...]
    compared: tuple[Compared, ...]
    curves: tuple[Curve, ...]
    claims: Claims | None
    remarks: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.objection is None

    @property
    def asked_bytes(self) -> int:
        """KV cache that the sequences asked for take, in all."""
        return round(self.batch * self.context * self.deployment.layout.kv_bytes_per_token)

    @property
    def pool_bytes(self) -> int:
        """Of the whole deployment."""
        layout = self.deployment.layout
        return layout.pool_bytes * layout.gpus * self.deployment.engines

    @property
    def pool_blocks(self) -> Blocks:
        """Of the whole deployment."""
        return self.deployment.engines * self.deployment.layout.capacity_blocks(BLOCK)

    @property
    def pool_tokens(self) -> Tokens:
        return self.pool_blocks * BLOCK


def page_of(
    name: str, deployment: Deployment, *, batch: int = BATCH, context: Tokens = 0, prompt: Tokens = 0
) -> Page:
    """Everything about a deployment under a load.

    Args:
        name: the model as it was asked for.
        batch: sequences of the whole deployment.
        context: tokens that each holds; 0: `CONTEXT`, or the prompt, or as many as the model takes.
        prompt: tokens of a prompt that is read among them; 0: as many as the context. It may be longer than
            what the others hold.
    Raises:
        Unplannable: no model takes such a load, with the nearest that it does.
    """
    longest = deployment.model.longest
    context = context or min(max(CONTEXT, prompt), longest)
    prompt = prompt or context
    if batch < 1 or max(context, prompt) > longest:
        raise Unplannable(objection(deployment, batch, max(context, prompt)))
    most = deployment.largest_batch(context)
    at = min(batch, most)
    patterns = tuple(compared(deployment, name, batch=batch, context=context, prompt=prompt))
    able = [(row.deployment, row.most) for row in patterns if row.deployment is not None]
    return Page(
        name=name,
        deployment=deployment,
        batch=batch,
        context=context,
        prompt=prompt,
        objection=objection(deployment, batch, context),
        most=most,
        longest=deployment.largest_context(batch),
        columns=tuple(_columns(deployment, batch, context)),
        inverse=inverse(deployment),
        at=at,
        predictions=predictions_of(deployment, batch=at, context=context, prompt=prompt) if at else None,
        calibration=times.calibration if (times := chapter_times(deployment)) else "",
        beside=tuple(interference(deployment, batch=at, context=context, chunks=CHUNKS)) if at else (),
        compared=patterns,
        curves=tuple(frontier(able, context=context, prompt=prompt)),
        claims=claims_about(deployment),
        remarks=tuple(remarks(deployment, patterns, context, prompt)),
    )


def _columns(deployment: Deployment, batch: int, context: Tokens) -> Iterator[Column]:
    """One for each die that the engine tells apart; pattern B has an engine for each die."""
    layout = deployment.layout
    asked = layout.kv_bytes(ceil(batch / deployment.engines), context)
    for pool, (die, memory) in zip(layout.pools, layout.memory, strict=True):
        part = 1 / len(layout.memory) if layout.evenly else pool.bytes / layout.pool_bytes
        groups = tuple(group for group in layout.groups if group.die == die)
        column = Column(die, memory, groups, pool.bytes, round(asked * part))
        yield column
        if deployment.pattern is Pattern.B:
            yield _neighbour(column)


def _neighbour(column: Column) -> Column:
    """The other die's engine, which is the same."""
    die = 1
    return replace(column, die=die, groups=tuple(replace(group, die=die) for group in column.groups))
