"""The tables of docs/performance.md, from the committed results.

.venv/bin/python benchmarks/data_plane/table.py            # writes them into the page
.venv/bin/python benchmarks/data_plane/table.py --print
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- data plane, {}: made by table.py -->\n", "<!-- end -->\n"

Columns = Sequence[tuple[str, str]]
_CPU: Columns = (
    ("us_per_token", "between, µs a token"),
    ("us_per_token_rest", "of it shim"),
    ("us_per_token_workers", "worker"),
    ("us_per_token_upstream", "upstream"),
)
SIDE_BY_SIDE: Mapping[str, tuple[str, Columns]] = {
    "rest_paced_1": (
        "200 streams at 20 ms, one worker",
        (*_CPU, ("gap_p99_ms", "gap p99, ms"), ("resident_mib", "memory, MiB")),
    ),
    "rest_paced_2": ("200 streams at 20 ms, two workers", (*_CPU, ("gap_p99_ms", "gap p99, ms"))),
    "rest_paced_4": ("200 streams at 20 ms, four workers", (*_CPU, ("gap_p99_ms", "gap p99, ms"))),
    "rest_full_speed": (
        "full speed, 200 streams of 256 tokens",
        (*_CPU, ("tokens_per_s", "tokens a second"), ("tokens_per_event", "tokens an event")),
    ),
    "rest_unary": (
        "unary, 16 tokens, 100 a second",
        (
            ("ms_per_request", "between, ms a request"),
            ("whole_p50_ms", "whole p50, ms"),
            ("whole_p99_ms", "p99"),
        ),
    ),
    "rest_unary_closed": (
        "unary, 16 tokens, 16 at a time, as fast as they come back",
        (("ms_per_request", "between, ms a request"), ("requests_per_s", "requests a second")),
    ),
    "rest_first_token": (
        "first token of 40 new requests a second beside 200 streams at 20 ms",
        (
            ("ttft_p50_ms", "p50, ms"),
            ("ttft_p99_ms", "p99, ms"),
            ("added_ttft_p50_ms", "added p50"),
            ("added_ttft_p99_ms", "added p99"),
        ),
    ),
}


def promises(results: Mapping[str, Any]) -> list[str]:
    """A row for each bar, by its point."""
    rows = [one for result in results.values() for one in result.get("bars", [])]
    rows.sort(key=lambda one: one["what"][0])
    lines = ["| what | measured | bar | | of it |", "| --- | ---: | ---: | --- | --- |"]
    for one in rows:
        measured = "-" if one["measured"] is None else f"{_number(one['measured'])} {one['unit']}"
        note = " ".join(one["note"].replace("|", "\\|").split())
        lines.append(f"| {one['what']} | {measured} | {one['bar']:g} | **{one['verdict']}** | {note} |")
    return lines


def beside(results: Mapping[str, Any]) -> list[str]:
    """A table for each scenario in which others were measured too: median, and least to most behind it."""
    lines: list[str] = []
    for name, (title, columns) in SIDE_BY_SIDE.items():
        if name not in results:
            continue
        result = results[name]
        figures = result["figures"]
        shown = [(key, head) for key, head in columns if any(key in row for row in figures.values())]
        lines += [f"**{title[0].upper()}{title[1:]}** (`{name}`)", ""]
        lines.append("| | " + " | ".join(head for _, head in shown) + " |")
        lines.append("| --- |" + " ---: |" * len(shown))
        for who, row in figures.items():
            if row:
                lines.append(f"| {who} | " + " | ".join(_cell(row.get(key)) for key, _ in shown) + " |")
        lines += [f"\nLeft out: {why}" for why in result.get("missing", {}).values()]
        lines.append("")
    return lines


def others(results: Mapping[str, Any]) -> list[str]:
    """Every figure of the scenarios that measure diplex alone."""
    lines: list[str] = []
    for name, result in results.items():
        if name in SIDE_BY_SIDE:
            continue
        lines += [f"**{name}**", "", "| | | median | least | most |", "| --- | --- | ---: | ---: | ---: |"]
        for who, row in result["figures"].items():
            for key, value in row.items():
                spread = [_number(value[part]) if part in value else "" for part in ("least", "most")]
                lines.append(
                    f"| {who} | {key.replace('_', ' ')} | {_number(value['median'])} | {' | '.join(spread)} |"
                )
        lines.append("")
    return lines


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    if "least" not in value or value["least"] == value["most"]:
        return _number(value["median"])
    return f"**{_number(value['median'])}** ({_number(value['least'])} to {_number(value['most'])})"


def _number(value: float) -> str:
    """Three digits that say something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if 1 < value < 1.25 else f"{value:.3g}"


TABLES = {"promises": promises, "beside": beside, "others": others}


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with every table made anew between its two marks."""
    for name, make in TABLES.items():
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, behind = rest.partition(END)
        assert begin and end, f"{PAGE.name} has no place for the table '{name}'"
        page = before + begin + "\n".join(make(results)).rstrip() + "\n" + end + behind
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--print", action="store_true", help="print them, and leave the page alone")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text())
    if args.print:
        print("\n\n".join("\n".join(make(results)) for make in TABLES.values()))
    else:
        PAGE.write_text(filled(PAGE.read_text(), results))


if __name__ == "__main__":
    main()
