"""YAML → plain tree, with file and line of every key and item; faults at keys → lines that people can go to.

Several files make one tree: a later one adds keys and replaces values; a list is replaced whole.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from diplex.tokens import sources
from diplex_cli import plugins
from diplex_core import config
from diplex_core.config import Config, ConfigErrors, Fault
from diplex_core.config.faults import Path as KeyPath
from diplex_core.config.faults import dotted

EMBEDDED: Final = "embedded"
"""Stands for the configuration that comes with diplex, where a file's name is asked for."""

_MERGE: Final = "tag:yaml.org,2002:merge"
_PLAIN: Final = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
# libyaml reads a fleet of thousands of packages in a tenth of the time.
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Place(NamedTuple):
    """Where a key stands. Lines count from 1; 0: the whole file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class FileFault(Exception):
    """A file that cannot be read, or is no YAML. The message has place, reason and mend."""


@dataclass(slots=True)
class Source:
    """One tree out of one or more files, and where each of its keys stands."""

    files: tuple[str, ...]
    tree: dict[Any, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def extended(self, later: Mapping[str, Any]) -> "Source":
        """The same with one more tree on top, whose keys keep the places of what they replace."""
        tree = copy.deepcopy(self.tree)
        _extend(tree, later)
        return Source(self.files, tree, self.places)

    def config(self, environment: Mapping[str, str] | None = None, *, key_files: bool = False) -> Config:
        """Check the tree and make values of it (see `diplex_core.config.build`).

        Args:
            environment: where tenants' keys are; with it, their key files are read too.
            key_files: read them even without it.
        Raises:
            ConfigErrors: everything that is wrong with it, in the order of the files.
        """
        read_them = key_files or environment is not None
        keys = {name: _key_in(file, name) for name, file in self.key_files().items()} if read_them else None
        try:
            return config.build(self.tree, environment, keys, plugins.book())
        except ConfigErrors as errors:
            raise Located(self, errors.faults) from None

    def key_files(self) -> dict[str, Path]:
        """By tenant: the file that holds its key. A relative path starts where the file that names it is."""
        tenants = self.tree.get("tenants")
        said = {
            str(name): tenant["api_key_file"]
            for name, tenant in (tenants.items() if isinstance(tenants, Mapping) else ())
            if isinstance(tenant, Mapping) and isinstance(tenant.get("api_key_file"), str)
        }
        return {
            name: Path(self.place(("tenants", name, "api_key_file")).file).parent / path
            for name, path in said.items()
        }

    def tokenizers(self) -> dict[str, str | Path]:
        """By model: its tokenizer, as `diplex.tokens.sources.given` takes it. A relative path starts where
        the file that names it is.

        Raises:
            FileFault: there is none.
        """
        models = self.tree["models"]
        said = {name: model["tokenizer"] for name, model in models.items() if (model or {}).get("tokenizer")}
        found: dict[str, str | Path] = {}
        for name, at in said.items():
            place = self.place(("models", name, "tokenizer"))
            found[name] = at if at in sources.FAMILIES else Path(place.file).parent / Path(at).expanduser()
            try:
                sources.given(name, found[name])
            except ValueError as error:
                raise FileFault(f"{place}: models.{name}.tokenizer: {error}") from error
        return found

    def place(self, path: KeyPath) -> Place:
        """Where a key stands, or the nearest one around it."""
        for length in range(len(path), 0, -1):
            if found := self.places.get(path[:length]):
                return found
        return Place(self.files[-1], 0)

    def lines(self, faults: Sequence[Fault]) -> Iterator[str]:
        """The faults as people read them, in the order of the files."""
        order = {name: at for at, name in enumerate(self.files)}
        placed = [(self.place(fault.path), fault) for fault in faults]
        for place, fault in sorted(placed, key=lambda one: (order[one[0].file], one[0].line)):
            yield from fault.lines(str(place))


class Located(ConfigErrors):
    """A configuration's faults, each with its file and line."""

    def __init__(self, source: Source, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.args = tuple(source.lines(faults))


def read(names: Sequence[str]) -> Source:
    """Read configuration files into one tree; none: the embedded one.

    Raises:
        FileFault: a file is missing, is no YAML, or says a key twice.
    """
    source = Source(tuple(names) or (EMBEDDED,))
    for name in source.files:
        _extend(source.tree, _Reading(name, source.places).tree(_text(name)))
    return source


def read_list(name: str, text: str, example: str) -> tuple[list[Any], Mapping[KeyPath, Place]]:
    """A YAML file that is a list, and where each of its items and their keys stands.

    Args:
        example: an item, for whoever wrote something else.
    Raises:
        FileFault: it is no list, no YAML, or says a key twice.
    """
    places: dict[KeyPath, Place] = {}
    items: list[Any] = _Reading(name, places).root(text, yaml.SequenceNode, "this is no list", f"- {example}")
    return items, places


def _text(name: str) -> str:
    if name == EMBEDDED:
        return files("diplex_core.config").joinpath("default.yaml").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFault(f"{name}: is not text in UTF-8 ({error.reason}). Mend: save it as UTF-8") from error
    except OSError as error:
        raise FileFault(
            f"{name}: {error.strerror}. Mend: --config FILE, or none for the embedded default"
        ) from error


def _key_in(file: Path, tenant: str) -> str | Fault:
    """The key that a tenant's file holds, or what is wrong with the file."""
    path: KeyPath = ("tenants", tenant, "api_key_file")
    write_it = f"printf %s KEY > {file}"
    try:
        key = file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return Fault(path, f"{file} is not text in UTF-8", write_it)
    except OSError as error:
        mend = f"chmod u+r {file}" if isinstance(error, PermissionError) else write_it
        return Fault(path, f"{file}: {error.strerror}", mend)
    except ValueError as error:  # a path that no file can have
        return Fault(path, f"{str(file)!r}: {error}", "api_key_file: keys/acme")
    if not key.strip():
        return Fault(path, f"{file} is empty", write_it)
    if key != key.strip() or len(key.splitlines()) > 1:
        return Fault(path, f"{file} is not one line with the key alone", write_it)
    return key


def _extend(tree: dict[Any, Any], later: Mapping[Any, Any]) -> None:
    for key, value in later.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _extend(tree[key], value)
        else:
            tree[key] = value


class _Reading:
    """One file being read; notes the place of each key."""

    def __init__(self, name: str, places: dict[KeyPath, Place]) -> None:
        self._name = name
        self._places = places
        self._around: list[yaml.Node] = []

    def tree(self, text: str) -> dict[Any, Any]:
        tree: dict[Any, Any] = self.root(
            text, yaml.MappingNode, "a configuration is a mapping of keys", "models:"
        )
        return tree

    def root(self, text: str, kind: type[yaml.Node], reason: str, mend: str) -> Any:
        """The whole file; `reason` and `mend` are for one whose outermost node is of another kind."""
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                example = "copy one from configs/" if kind is yaml.MappingNode else mend
                raise FileFault(f"{self._name}: is empty. Mend: {example}")
            if not isinstance(root, kind):
                raise self._fault(root, reason, mend)
            return self._value(loader, root, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            said = " ".join(part for part in (error.context, error.problem) if part)
            raise FileFault(f"{self._name}{line}: is not YAML: {said}") from error
        except yaml.YAMLError as error:
            raise FileFault(f"{self._name}: is not YAML: {' '.join(str(error).split())}") from error
        finally:
            loader.dispose()

    def _value(self, loader: Any, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(loader, node)
        if node.tag not in _PLAIN:
            raise self._fault(node, f"the tag {node.tag} is not read here", "a plain value")
        if node in self._around:
            raise self._fault(node, "an anchor holds itself", "write the value out")
        self._around.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._item(loader, item, (*path, at)) for at, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(loader, node, path)
        finally:
            self._around.pop()

    def _scalar(self, loader: Any, node: yaml.ScalarNode) -> Any:
        try:
            return loader.construct_object(node)
        except ValueError as error:  # a number or a date that looks like one and is none
            raise self._fault(node, f"{node.value!r} cannot be read: {error}", f'"{node.value}"') from error

    def _item(self, loader: Any, node: yaml.Node, path: KeyPath) -> Any:
        self._places[path] = self._place(node)
        return self._value(loader, node, path)

    def _mapping(self, loader: Any, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._fault(key_node, "a key is a word, not a list or a mapping", "key: value")
            key = self._scalar(loader, key_node)
            at: KeyPath = (*path, str(key))
            if key in found:
                first = self._places[at].line
                raise self._fault(key_node, f"{dotted(at)} is there twice, first on line {first}", "keep one")
            self._places[at] = self._place(key_node)
            found[key] = self._value(loader, value_node, at)
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(loader, value_node, path, found)
        return found

    def _merge(self, loader: Any, node: yaml.Node, path: KeyPath, found: dict[Any, Any]) -> None:
        """`<<: *anchor`, or a list of them: what the mapping itself says goes before what they say."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise self._fault(node, "`<<` takes a mapping", "<<: *anchor")
            own = {at: place for at, place in self._places.items() if at[: len(path)] == path}
            merged = self._value(loader, part, path)
            self._places.update(own)
            for key, value in merged.items():
                found.setdefault(key, value)

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._name, node.start_mark.line + 1)

    def _fault(self, node: yaml.Node, reason: str, mend: str) -> FileFault:
        return FileFault(f"{self._place(node)}: {reason}\n  mend:  {mend}")
