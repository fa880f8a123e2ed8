"""What was promised, what was measured, and whether it was kept."""

from collections.abc import Mapping, Sequence
from typing import Any

PEERS = ("vllm-router", "sglang-router", "smg")


def bar(what: str, measured: float | None, at_most: float, unit: str = "", note: str = "") -> dict[str, Any]:
    """One promise: `measured` may be `at_most`; `None`: it could not be measured here."""
    verdict = "not measured" if measured is None else "met" if measured <= at_most else "missed"
    value = None if measured is None else round(measured, 4)
    return {"what": what, "measured": value, "bar": at_most, "unit": unit, "verdict": verdict, "note": note}


def ratio(
    what: str,
    figures: Mapping[str, Mapping[str, Mapping[str, float]]],
    key: str,
    at_most: float,
    of: Sequence[str] = PEERS,
) -> dict[str, Any]:
    """diplex's median over the least median of the peers, from one run."""
    others = {name: figures[name][key]["median"] for name in of if key in figures.get(name, {})}
    if not others or key not in figures.get("diplex", {}):
        return bar(what, None, at_most, "times", "none of them ran")
    cheapest = min(others, key=lambda name: others[name])
    own = figures["diplex"][key]["median"]
    note = f"diplex {own:.4g}, {cheapest} {others[cheapest]:.4g}"
    return bar(what, own / others[cheapest], at_most, "times", note)


def line(one: Mapping[str, Any]) -> str:
    """It in one line."""
    measured = "-" if one["measured"] is None else f"{one['measured']:.4g}"
    note = f" ({one['note']})" if one["note"] else ""
    return f"{one['verdict']:12} {one['what']}: {measured} {one['unit']}, bar {one['bar']:g}{note}"
