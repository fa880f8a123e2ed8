"""One reader of 200 that takes nothing for a minute: what its neighbours notice, and how it ends."""

import re
from typing import Any

import bars
import fleet
import measure

STREAMS, PACE = 200, 0.02
BESIDE = "beyond what 200 open streams grow by: their output is kept until they end, to go on elsewhere"


def reader(quick: bool) -> dict[str, Any]:
    """199 streams before and while one more takes nothing; then what that one finds when it reads again.

    The slow client's receive buffer is small, and it asks for little at once, as a stuck one would; but the
    system holds some hundred kilobytes for a connection before anybody can notice.
    """
    seconds, minute = (4.0, 20.0) if quick else (20.0, 60.0)
    with measure.load() as loading, fleet.serving(pace=PACE, streams=STREAMS) as serving:
        port = serving.rest_port
        loading.ask(do="open", port=port, streams=STREAMS - 1, tokens=20_000, ramp=1.0)
        loading.ask(
            do="open",
            group="slow",
            port=port,
            streams=1,
            tokens=20_000,
            ramp=0.0,
            again=False,
            receive_buffer=4096,
        )
        resident = [serving.resident()]
        before, _, _ = measure.window(loading, serving, seconds)
        resident.append(serving.resident())
        loading.ask(do="pause", group="slow")
        meanwhile, _, _ = measure.window(loading, serving, minute)
        resident.append(serving.resident())
        loading.ask(do="resume", group="slow")
        measure.window(loading, serving, 5.0, group="slow")
        end = loading.ask(do="last", group="slow")
        loading.ask(do="close")
        loading.ask(do="close", group="slow")
    p99 = before["gap_ms"]["p99"], meanwhile["gap_ms"]["p99"]
    parts = resident[0]
    calm = {part: (resident[1][part] - resident[0][part]) / 2**20 / seconds for part in parts}
    grew = {part: (resident[2][part] - resident[1][part]) / 2**20 / minute for part in parts}
    more = (sum(grew.values()) - sum(calm.values())) * minute
    figures: measure.Figures = {
        "gap_p99_before_ms": p99[0],
        "gap_p99_meanwhile_ms": p99[1],
        "gap_p99_change_percent": 100 * (p99[1] / p99[0] - 1),
        **{f"{part}_grew_before_mib_per_s": size for part, size in calm.items()},
        **{f"{part}_grew_meanwhile_mib_per_s": size for part, size in grew.items()},
        "slow_is_open": float(end["open"]),
        "failures_of_others": float(sum(meanwhile["failures"].values())),
    }
    ended = not end["open"]
    why = _reason(end["text"])
    return {
        "figures": measure.summary({"diplex": [figures]}),
        "slow_read_last": end["text"],
        "bars": [
            bars.bar(
                "5. slow reader: change of the others' gap p99", abs(p99[1] / p99[0] - 1) * 100, 10.0, "%"
            ),
            bars.bar(
                "5. slow reader: memory that it costs in all processes", max(0.0, more), 4.0, "MiB", BESIDE
            ),
            bars.bar(
                "5. slow reader: still open after a minute (0: it was ended)",
                float(not ended),
                0.0,
                "streams",
            ),
            bars.bar(
                "5. slow reader: not told why, once it reads again (0: it was)",
                0.0 if why else 1.0,
                0.0,
                "streams",
                why or "what it read last is a token's event",
            ),
        ],
    }


def _reason(text: str) -> str:
    """The message of an error event in what was read last; "": there is none."""
    found = re.search(r'"error": ?\{.*?"message": ?"([^"]*)"', text)
    return found[1] if found else ""
