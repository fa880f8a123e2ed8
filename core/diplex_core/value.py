"""What a value is, here: frozen for whoever reads or checks the code, and quick to make."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass of values that never change; the type checker sees to that.

    `dataclass(frozen=True)` sees to it again whenever one is made, which for a grant's twenty fields takes
    three times as long as all else: a fifth of what a request costs went into that (benchmarks/core).

    >>> @value
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(3) == Point(3, 0), hash(Point(3)) == hash(Point(3))
    (True, True)
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
