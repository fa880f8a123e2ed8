"""Reads the few samples that are wanted out of a Prometheus page, which may be a megabyte."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

Sample: TypeAlias = tuple[Mapping[str, str], float]

_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Samples:
    """Samples by name.

    >>> page = Samples('up{engine="0"} 1\\nup{engine="1"} 0.5\\nupper 7\\n', ("up",))
    >>> page["up"][0]
    ({'engine': '0'}, 1.0)
    >>> page.total("up"), page.highest("up"), page.total("down")
    (1.5, 1.0, None)
    """

    def __init__(self, page: str, names: Iterable[str]) -> None:
        self._samples: dict[str, list[Sample]] = {name: [] for name in names}
        wanted = tuple(self._samples)
        for line in page.splitlines():
            if line.startswith(wanted):
                self._keep(line)

    def _keep(self, line: str) -> None:
        head, _, rest = line.rpartition("}") if "{" in line else line.partition(" ")
        name, _, labels = head.partition("{")
        if name in self._samples:
            try:
                value = float(rest.split()[0])
            except (ValueError, IndexError):
                return
            self._samples[name].append((dict(_LABEL.findall(labels)), value))

    def __getitem__(self, name: str) -> list[Sample]:
        return self._samples.get(name, [])

    def total(self, name: str) -> float | None:
        """The sum over all labels; `None`: there is no such sample, which is not zero."""
        samples = self[name]
        return sum(value for _, value in samples) if samples else None

    def highest(self, name: str) -> float | None:
        """Where every rank repeats the same gauge, or the fullest one counts."""
        return max((value for _, value in self[name]), default=None)
