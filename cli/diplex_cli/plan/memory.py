"""The memory as a drawn box, with what the engines' flags must say for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import Final

from diplex_cli.plan.figures import GB, GIB, gigabytes
from diplex_cli.plan.lines import WIDTH, bar, box, folded, hundredths
from diplex_core.model.memory import WEIGHTS
from diplex_core.plan.page import BLOCK, Column, Page

CALLED: Final[Mapping[str, str]] = {
    "context": "CUDA context, libraries",
    "scratch": "engine and scratch",
    "attention": "attention",
    "ffn": "FFN",
    "block scales": "block scales",
    "embeddings": "embeddings",
    "head": "LM head",
    "norms": "norms, biases",
    "draft weights": "draft model",
    "activations": "activations, largest batch",
    "reserve": "headroom, fragmentation",
}
"""The groups as people call them."""

_ASKED, _FREE = "asked", "free"
_AFTER_THE_WEIGHTS: Final = ("activations", "reserve")
_NAMES: Final = 27
_FIGURE: Final = 8


@dataclass(frozen=True, slots=True)
class _Piece:
    """What lies in a column: where it begins, its size in bytes, and as it is written in GB and GiB."""

    start: int
    size: int
    gb: float
    gib: float


def memory(page: Page) -> Iterator[str]:
    """The box, and below it the pool in tokens and flags."""
    yield from box(_title(page), _lines(page))
    layout, engines = page.deployment.layout, page.deployment.engines
    whose = "KV pool" if engines == 1 else f"KV pools of {engines} engines"
    yield from folded(
        f"{whose}: {page.pool_tokens:,} tokens = {page.pool_blocks:,} blocks of {BLOCK}; "
        f"{layout.kv_bytes_per_token:,.0f} bytes a token."
    )
    yield from folded(
        f"For this pool: TensorRT-LLM --free_gpu_memory_fraction {layout.free_gpu_memory_fraction:.3f} · "
        f"vLLM --gpu-memory-utilization {layout.gpu_memory_utilization:.3f}"
    )


def _title(page: Page) -> str:
    total = sum(column.memory for column in page.columns)
    alike = page.deployment.count * page.deployment.gpu.memory_bytes // total
    several = f" · one of {alike}, all alike" if alike > 1 else ""
    return f"MEMORY · {page.deployment.package.title} · {gigabytes(total)}{several}"


def _lines(page: Page) -> Iterator[str]:
    laid = [_laid(column, page.fits) for column in page.columns]
    gap = 3 if len(laid) == 1 else 2
    cells = (WIDTH - 4 - _NAMES) // len(laid) - 2 * _FIGURE - 2 * gap

    def line(title: str, *names: str, drawn: bool = True) -> str:
        text = f"{title:{_NAMES}}"
        for column, pieces in zip(page.columns, laid, strict=True):
            these = [pieces[name] for name in names if name in pieces]
            size, gb, gib = (sum(getattr(one, what) for one in these) for what in ("size", "gb", "gib"))
            figures = f"{gb:{_FIGURE},.2f}{gib:{_FIGURE},.2f}" if size else f"{'-':>{_FIGURE}}" * 2
            picture = bar(these[0].start, size, column.memory, cells) if these and drawn else ""
            text += f"{figures}{'':{gap}}{picture:{cells}}{'':{gap}}"
        return text.rstrip()

    names = list(dict.fromkeys(name for pieces in laid for name in pieces))
    groups = [name for name in names if name not in (_ASKED, _FREE)]
    weights = [name for name in groups if name in WEIGHTS]
    last = [name for name in groups if name in _AFTER_THE_WEIGHTS]
    if len(laid) > 1:
        yield f"{'':{_NAMES}}" + "".join(
            f"{device(page, column):>{2 * _FIGURE}}{'':{cells + 2 * gap}}" for column in page.columns
        )
    yield (
        f"{'':{_NAMES}}" + f"{'GB':>{_FIGURE}}{'GiB':>{_FIGURE}}{'':{cells + 2 * gap}}" * len(laid)
    ).rstrip()
    yield from (line(CALLED.get(name, name), name) for name in groups if name not in (*weights, *last))
    yield line("weights", *weights, drawn=False)
    yield from (line(f"  {CALLED[name]}", name) for name in weights)
    yield from (line(CALLED.get(name, name), name) for name in last)
    yield line("KV pool", _ASKED, _FREE, drawn=False)
    if page.fits:
        each = ceil(page.batch / page.deployment.engines)
        yield line(f"  {each:,} × {page.context:,} tokens", _ASKED)
        yield line("  free", _FREE)
    yield ""
    yield line("all of it", *names, drawn=False)


def device(page: Page, column: Column) -> str:
    """A column's heading: its die, or the GPU that plays one."""
    return f"{'GPU' if page.deployment.paired else 'die'} {column.die}"


def _laid(column: Column, fits: bool) -> dict[str, _Piece]:
    """Everything that lies in a column, from its beginning to its end. Figures add up as they are written."""
    sizes = {group.name: 0 for group in column.groups}
    for group in column.groups:
        sizes[group.name] += group.bytes
    sizes[_ASKED] = column.asked if fits else 0
    sizes[_FREE] = column.pool - sizes[_ASKED]
    sizes = {name: size for name, size in sizes.items() if size}
    starts = accumulate(sizes.values(), initial=0)
    gbs, gibs = (hundredths(list(sizes.values()), unit) for unit in (GB, GIB))
    return {
        name: _Piece(start, size, gb, gib)
        for (name, size), start, gb, gib in zip(sizes.items(), starts, gbs, gibs, strict=False)
    }
