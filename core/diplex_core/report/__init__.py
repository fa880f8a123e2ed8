"""What became of many requests: outcomes in, one report out, the same for `replay`, `bench` and `simulate`.

Start with `outcome.py` (one request), then `collector.py` (many, in little memory) and `report.py` (all of
them); `text.py` is what people read.
"""

from diplex_core.report.collector import Collector
from diplex_core.report.fairness import jain
from diplex_core.report.outcome import Ending, Outcome
from diplex_core.report.percentile import Spread, percentile
from diplex_core.report.report import LedgerFigures, Pool, Report, TierFigures, WorkerFigures, report_of
from diplex_core.report.text import text

__all__ = [
    "Collector",
    "Ending",
    "LedgerFigures",
    "Outcome",
    "Pool",
    "Report",
    "Spread",
    "TierFigures",
    "WorkerFigures",
    "jain",
    "percentile",
    "report_of",
    "text",
]
