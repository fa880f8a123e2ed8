"""The tables of docs/model.md: every row of the chapter, what its calibration makes of it, and the limit.

    python benchmarks/model/rows.py

Nothing is measured here: all of it is arithmetic on the data files of core/diplex_core/model.
"""

from collections.abc import Iterable, Iterator

from diplex_core.plan.rows import Row, contradicted, rows

FIGURES = {
    "tok_s_stream": "tok/s a stream",
    "tok_s_aggregate": "tok/s together",
    "prefill": "prefill",
    "ttft_p50": "TTFT p50",
    "ttft_p95": "TTFT p95",
    "memory": "memory in use",
    "compute": "tensor cores in use",
    "power": "power",
}


def written(figure: str, value: float) -> str:
    """A figure with three digits that count, and its unit."""
    if figure in ("memory", "compute"):
        return f"{value:.0%}"
    if figure == "power":
        return f"{value:,.0f} W"
    if figure.startswith("tok_s"):
        return f"{value:,.0f}"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def claimed(row: Row) -> str:
    if row.low == row.high:
        return written(row.figure, row.low)
    return f"{written(row.figure, row.low)} to {written(row.figure, row.high)}"


def beyond(row: Row) -> str:
    """How far the chapter's figure is beyond the limit. Peaks are shares of what there is: they cannot be."""
    if row.figure in ("memory", "compute", "power") or row.beyond <= 1:
        return ""
    return f"{row.beyond:.2f} times"


def table(found: Iterable[Row]) -> Iterator[str]:
    yield "| row | figure | chapter | ours | off by | limit | chapter beyond it |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in found:
        cells = (
            row.row,
            FIGURES[row.figure],
            claimed(row),
            written(row.figure, row.ours),
            f"{row.off:+.1%}" if abs(row.off) >= 0.0005 else "0",
            written(row.figure, row.limit),
            beyond(row),
        )
        yield f"| {' | '.join(cells)} |"


def untaken(found: Iterable[Row]) -> Iterator[str]:
    yield "| row | figure | chapter | ours | limit | taken instead |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in found:
        cells = (
            row.row,
            FIGURES[row.figure],
            claimed(row),
            written(row.figure, row.ours),
            written(row.figure, row.limit),
            row.instead,
        )
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    print("\n".join(table(rows())))
    print()
    print("\n".join(untaken(contradicted())))


if __name__ == "__main__":
    main()
