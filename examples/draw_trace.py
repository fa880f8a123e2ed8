"""Draw the last trace of a `--trace-file`: who waited for whom, and what each span knew of it.

diplex up --trace-file spans.jsonl        # then ask it something
python examples/draw_trace.py spans.jsonl
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

SHOWN = ("worker", "pattern", "tier", "lease.blocks", "queue_ms", "ttft_ms", "tpot_ms", "tokens_per_second")

spans = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
last = max(spans, key=lambda span: span["end_time_unix_nano"])
spans = [span for span in spans if span["trace_id"] == last["trace_id"]]
begun = min(span["start_time_unix_nano"] for span in spans)
below = defaultdict(list)
for span in sorted(spans, key=lambda span: span["start_time_unix_nano"]):
    below[span["parent_span_id"]].append(span)


def draw(span: dict, depth: int) -> None:
    start, end = ((span[f"{edge}_time_unix_nano"] - begun) / 1e6 for edge in ("start", "end"))
    name = "  " * depth + span["name"]
    print(f"{name:38} {start:7.2f} {end:8.2f}  {span['resource']['service.name']:13} {span['kind'].lower()}")
    known = span["attributes"]
    about = [(name, known[f"diplex.{name}"]) for name in SHOWN if f"diplex.{name}" in known]
    told = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in about]
    if told:
        print("  " * depth + "    " + ", ".join(told))
    if span["status"]["code"] == "ERROR":
        print("  " * depth + f"    {known.get('error.type')}: {span['status']['message']}")
    for child in below[span["span_id"]]:
        draw(child, depth + 1)


print(f"trace {last['trace_id']}\n{'':38} {'from ms':>7} {'to ms':>8}")
ids = {span["span_id"] for span in spans}
for root in [span for span in spans if span["parent_span_id"] not in ids]:
    draw(root, 0)
