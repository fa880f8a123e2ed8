"""A script of what goes wrong, from YAML: a list, each item one fault.

    - {at_s: 10, kill: pkg1, back_after_s: 5}   # without back_after_s it stays away
    - {at_s: 20, cut: pkg0, for_s: 2}
    - {at_s: 30, slow: pkg0, factor: 3, for_s: 10}
    - {at_s: 60, drain: pkg1}

A worker is named as the report names it; a package's name means all its workers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from diplex_cli import reader
from diplex_cli.failures import UsageError
from diplex_core.config.faults import Fault as Wrong
from diplex_core.config.faults import nearest, unknown
from diplex_core.config.sections import Key, Section
from diplex_core.config.shapes import Faults as Wrongs
from diplex_core.config.shapes import Real, Text
from diplex_core.sim.faults import Cut, Drain, Fault, Kill, Slow

_EXAMPLE: Final = "{at_s: 10, kill: pkg0, back_after_s: 5}"
_SHOWN: Final = 8
_AT: Final = Key("virtual seconds from the first arrival", Real(), required=True, example="10")


def _whom() -> Key:
    return Key("the worker or package", Text(example="pkg0"), required=True, example="pkg0")


def _for(required: bool = True) -> Key:
    return Key("virtual seconds that it lasts", Real(positive=True), required=required, example="5")


_FACTOR: Final = Key("times as long", Real(positive=True), required=True, example="3")
_KINDS: Final = MappingProxyType(
    {
        "kill": Section({"at_s": _AT, "kill": _whom(), "back_after_s": _for(False)}, "a kill"),
        "cut": Section({"at_s": _AT, "cut": _whom(), "for_s": _for()}, "a cut"),
        "slow": Section({"at_s": _AT, "slow": _whom(), "factor": _FACTOR, "for_s": _for()}, "a slow worker"),
        "drain": Section({"at_s": _AT, "drain": _whom()}, "a drain"),
    }
)


def read(file: str, workers: Iterable[str], packages: Iterable[str]) -> tuple[Fault, ...]:
    """The faults of a script, in the order of time.

    Args:
        workers, packages: names that a fault may hit.
    Raises:
        UsageError: everything that is wrong with it, each with file, line, reason and mend.
        FileFault: it is no list, or no YAML.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is not text in UTF-8 ({error.reason}). Mend: save it as UTF-8") from error
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}. Mend: --faults FILE with lines like - {_EXAMPLE}"
        ) from error
    items, places = reader.read_list(file, text, _EXAMPLE)
    wrongs: Wrongs = []
    known = list(dict.fromkeys([*workers, *packages]))
    found = [fault for at, item in enumerate(items) for fault in _faults(at, item, known, wrongs)]
    if wrongs:
        raise UsageError("\n".join(_told(wrongs, places)))
    return tuple(sorted(found, key=lambda fault: fault.at))


def _faults(at: int, item: Any, known: Sequence[str], wrongs: Wrongs) -> Iterator[Fault]:
    kinds = [name for name in _KINDS if isinstance(item, Mapping) and name in item]
    if len(kinds) != 1:
        reason = f"says {' and '.join(kinds)}" if kinds else "says nothing that goes wrong"
        words = list(item) if isinstance(item, Mapping) else []
        near = next(filter(None, (nearest(str(word), _KINDS) for word in words)), "")
        mend = f"{near}: …" if near and not kinds else f"one of {', '.join(_KINDS)}"
        wrongs.append(Wrong((at,), reason, mend))
        return
    (kind,) = kinds
    before = len(wrongs)
    said = _KINDS[kind].check(item, (at,), wrongs)
    if said is not None and said[kind] is not None and said[kind] not in known:
        wrongs.append(_nobody((at, kind), said[kind], known))
    if len(wrongs) > before or said is None:
        return
    match kind:
        case "kill":
            yield Kill(said["at_s"], said[kind], said["back_after_s"])
        case "cut":
            yield Cut(said["at_s"], said[kind], said["for_s"])
        case "slow":
            yield Slow(said["at_s"], said[kind], said["factor"], said["for_s"])
        case _:
            yield Drain(said["at_s"], said[kind])


def _nobody(path: tuple[str | int, ...], name: str, known: Sequence[str]) -> Wrong:
    wrong = unknown(path, "a worker or package of this fleet", name, known)
    if len(wrong.known) <= _SHOWN:
        return wrong
    shown = (*islice(wrong.known, _SHOWN - 1), f"… ({len(known):,} in all)")
    return Wrong(path, wrong.reason, wrong.mend, shown)


def _told(wrongs: Iterable[Wrong], places: Mapping[Any, reader.Place]) -> Iterator[str]:
    """Each with the line that it is on, or else its item's."""
    for wrong in wrongs:
        place = places.get(wrong.path) or places[wrong.path[:1]]
        # The item's number would only be counted by people: the line says where it is.
        yield from Wrong(wrong.path[1:], wrong.reason, wrong.mend, wrong.known).lines(str(place))
