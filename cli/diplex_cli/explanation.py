"""Why a request goes where it goes: the router's answer as a sentence and a table, or as fields."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from diplex.v1 import router_pb2

WIDTH: Final = 100
MOST_ROWS: Final = 40
"""Workers that the table has at most; `--json` has all."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer, and what the fleet says beside it.

    Args:
        patterns: by worker, of those that the router knows.
        ttft_ms, tpot_ms: what the tier promises such a request; `None`: nothing.
        max_tokens, n: what was asked about; 0: not stated.
    """

    answer: "router_pb2.RouterExplainResponse"
    patterns: Mapping[str, str]
    ttft_ms: float | None
    tpot_ms: float | None
    max_tokens: int = 0
    n: int = 1

    @classmethod
    def of(
        cls, answer: "router_pb2.RouterExplainResponse", fleet: "router_pb2.Fleet", max_tokens: int, n: int
    ) -> "Explanation":
        ttft = tpot = None
        for tier in fleet.tiers:
            if tier.name == answer.tier:
                promise = tier.promises_by_model.get(answer.model, tier.promise)
                if promise.HasField("ttft_p95"):
                    target = promise.ttft_p95
                    ttft = target.base_ms + target.per_1k_prompt_tokens_ms * answer.prompt_tokens / 1000
                tpot = promise.tpot_p95_ms if promise.HasField("tpot_p95_ms") else None
        patterns = {one.info.name: one.info.pattern for one in fleet.workers}
        return cls(answer, patterns, ttft, tpot, max_tokens, n)

    def fields(self) -> dict[str, Any]:
        """What `--json` prints."""
        answer = self.answer
        return {
            "request": {
                "request_id": answer.request_id or None,
                "model": answer.model,
                "tier": answer.tier,
                "tenant": answer.tenant,
                "prompt_tokens": answer.prompt_tokens,
                "max_tokens": self.max_tokens or None,
                "n": self.n,
            },
            "outcome": answer.outcome,
            "reason": answer.reason,
            "picked": answer.picked or None,
            "picker": answer.picker or None,
            "age_s": answer.age_s if answer.HasField("age_s") else None,
            "wait": self._wait(),
            "ended": answer.ended or None,
            "target": {"ttft_ms": self.ttft_ms, "tpot_ms": self.tpot_ms},
            "weights": dict(answer.weights),
            "workers": {
                name: {
                    "pattern": self.patterns.get(name, ""),
                    "filters": dict(said.filters),
                    "scores": dict(said.scores),
                    "total": said.total,
                    "failed": said.failed or None,
                    "predicted_ttft_ms": _predicted(said, "ttft"),
                    "predicted_tpot_ms": _predicted(said, "tpot"),
                }
                for name, said in sorted(answer.workers.items())
            },
        }

    def _wait(self) -> dict[str, Any] | None:
        wait = self.answer.wait
        if not self.answer.HasField("wait"):
            return None
        return {
            "waited_s": wait.waited_s,
            "ahead": wait.ahead,
            "queued": wait.queued,
            "needed_blocks": wait.needed_blocks,
            "free_blocks": wait.free_blocks,
            "worker": wait.worker or None,
        }

    def text(self) -> str:
        """The request, what becomes of it, and a row for each worker."""
        return "\n".join([*_wrapped(self._request()), *_wrapped(self._outcome()), *self._table()])

    def _request(self) -> str:
        answer = self.answer
        words = [answer.request_id, answer.model, answer.tier and f"tier {answer.tier}"]
        words += [answer.tenant and f"tenant {answer.tenant}"]
        words += [f"{answer.prompt_tokens} prompt tokens" if answer.prompt_tokens else ""]
        words += [f"max_tokens {self.max_tokens}" if self.max_tokens else ""]
        words += [f"n {self.n}" if self.n > 1 else ""]
        return " · ".join(filter(None, words))

    def _outcome(self) -> str:
        answer = self.answer
        if answer.HasField("wait") and answer.HasField("age_s"):  # one that waits now, not one asked about
            return f"has waited {answer.wait.waited_s:.1f} s: {answer.reason}"
        if answer.ended:
            return f"{self._decided()}; {answer.ended}, {answer.ended_age_s:.1f} s ago"
        return self._decided()

    def _decided(self) -> str:
        answer = self.answer
        ago = f"{answer.age_s:.1f} s ago it " if answer.HasField("age_s") else ""
        match answer.outcome:
            case "granted":
                by = f", picked by {answer.picker}" if answer.picker not in ("", "best") else ""
                return f"{ago}{'was' if ago else 'would be'} granted on {answer.picked}{by}"
            case "queued":
                return f"{ago}{'had to' if ago else 'would'} wait because {answer.reason}"
            case _:
                return f"{ago}{'was' if ago else 'would be'} refused because {answer.reason}"

    def _table(self) -> Iterator[str]:
        workers = self.answer.workers
        able = [name for name, said in workers.items() if not said.filters]
        able.sort(key=lambda name: (name != self.answer.picked, -workers[name].total, name))
        unable = sorted(workers.keys() - able)
        shown = [*able, *unable][:MOST_ROWS]
        if not shown:
            return
        scored, alike = [name for name in shown if name in able], list[str]()
        head, rows, widths = self._laid_out(self._scorers(), scored, shown)
        if sum(widths) + len(widths) - 1 > WIDTH:  # what compares nobody gives its place to what does
            alike = [scorer for scorer in self._scorers() if len(self._words_of(scorer, scored)) == 1]
            differ = [scorer for scorer in self._scorers() if scorer not in alike]
            head, rows, widths = self._laid_out(differ, scored, shown)
        between = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
        yield ""
        head = [line for line in head if any(line)] if rows else [["worker", "pattern"]]
        yield from (_line(row, widths, between) for row in head)
        yield from (_line(row, widths, between) for row in rows)
        for name in (name for name in shown if name in unable):
            start = _line([name, self.patterns.get(name, "")], widths, between, ends=False) + "  "
            yield from _wrapped(_objections(workers[name].filters), start)
        if alike:
            words = (f"{name} {self._words_of(name, scored).pop()} x {self._weight(name)}" for name in alike)
            yield from _wrapped(f"the same for each that was scored: {', '.join(words)}")
        for name in (name for name in shown if workers[name].failed):
            yield from _wrapped(f"{name}: {workers[name].failed}; so 0")
        if more := len(workers) - len(shown):
            yield f"and {more} workers more: --json has them all"

    def _laid_out(
        self, scorers: Sequence[str], scored: Sequence[str], shown: Sequence[str]
    ) -> tuple[list[list[str]], list[list[str]], list[int]]:
        """Head, rows and the widths of their columns."""
        head = self._head(scorers)
        rows = [self._row(name, scorers) for name in scored]
        widths = [max(map(len, column)) for column in zip(*head, *rows, strict=True)] if rows else []
        name_width = max(len("worker"), *map(len, shown))
        pattern_width = max(len("pattern"), *(len(self.patterns.get(name, "")) for name in shown))
        widths[:2] = [name_width, pattern_width]
        return head, rows, widths

    def _head(self, scorers: Sequence[str]) -> list[list[str]]:
        """Three lines: names in two parts, and weights or targets."""
        columns = [["worker"], ["pattern"], ["total"]]
        for name in scorers:
            first, _, second = name.partition("_")
            columns.append([f"{first}_", second] if second else [first])
            columns[-1] += [""] * (2 - len(columns[-1])) + [f"x {self._weight(name)}"]
        for what, target in (("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms)):
            columns.append(["predicted", what, "" if target is None else f"of {target:.4g} ms"])
        return [[column[line] if line < len(column) else "" for column in columns] for line in range(3)]

    def _row(self, name: str, scorers: Sequence[str]) -> list[str]:
        said = self.answer.workers[name]
        return [
            name,
            self.patterns.get(name, ""),
            f"{said.total:.2f}",
            *(_score(said, scorer) for scorer in scorers),
            _milliseconds(_predicted(said, "ttft")),
            _milliseconds(_predicted(said, "tpot")),
        ]

    def _weight(self, scorer: str) -> str:
        return f"{self.answer.weights.get(scorer, 1):g}"

    def _words_of(self, scorer: str, workers: Iterable[str]) -> set[str]:
        """What it says of these workers, each word once."""
        return {_score(self.answer.workers[name], scorer) for name in workers}

    def _scorers(self) -> Sequence[str]:
        """Heaviest first."""
        weights = self.answer.weights
        names = {name for said in self.answer.workers.values() for name in said.scores}
        return sorted(names, key=lambda name: (-weights.get(name, 0.0), name))


def _score(said: "router_pb2.ExplainedWorker", scorer: str) -> str:
    return f"{said.scores[scorer]:.2f}" if scorer in said.scores else ""


def _predicted(said: "router_pb2.ExplainedWorker", what: Literal["ttft", "tpot"]) -> float | None:
    field = f"predicted_{what}_ms"
    return getattr(said, field) if said.HasField(field) else None  # type: ignore[arg-type]


def _milliseconds(value: float | None) -> str:
    """Three digits that count.

    >>> _milliseconds(5.584), _milliseconds(92.16), _milliseconds(1184.2), _milliseconds(None)
    ('5.58 ms', '92.2 ms', '1184 ms', '?')
    """
    if value is None:
        return "?"
    return f"{value:.{max(0, 3 - len(f'{value:.0f}'))}f} ms"


def _objections(filters: Mapping[str, str]) -> str:
    """The filters' words; of a worker that serves other models, nothing else is worth reading."""
    told = {"model": filters["model"]} if "model" in filters else dict(sorted(filters.items()))
    return "; ".join(f"{name}: {words}" for name, words in told.items())


def _line(cells: Sequence[str], widths: Sequence[int], between: str, *, ends: bool = True) -> str:
    """Words stand at the left of their column, figures at the right."""
    placed = [
        f"{cell:{width}}" if at < 2 else f"{cell:>{width}}"
        for at, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ]
    line = between.join(placed)
    return line.rstrip() if ends else line


def _wrapped(words: str, start: str = "") -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent=start, subsequent_indent=" " * len(start) or "  ")
