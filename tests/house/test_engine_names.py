"""Every name of another program that the code uses stands in the list of those that were looked up.

How a use is seen, file by file:
- everywhere in `SCOPE`, inside any string: what has the shape of a flag, a metric, an endpoint, or an
  environment variable of such a program, and nvidia-smi's short flags;
- in `engines/` besides: strings in the place of a key (subscripts, `get`, `in`, `getattr`, keys of dicts),
  the words of tables at the top of a module or class, and the members and arguments of each Protocol and
  TypedDict, which is how an adapter declares what it takes from a program's objects;
- there and in `launch/*_server.py`: attributes and keyword arguments that nothing in diplex, Python or the
  HTTP and gRPC libraries has.
mypy holds an adapter to its declarations; this holds the declarations to the list.
"""

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType

import pytest

from diplex_workers.engines.names import listed, page, read

ROOT = Path(__file__).parents[2]
SCOPE = (
    *("workers/diplex_workers/engines/**/*.py", "workers/diplex_workers/launch/**/*.py"),
    *("core/diplex_core/plan/recipe*.py", "cli/diplex_cli/commands/recipe.py"),
    *("cli/diplex_cli/commands/doctor.py", "cli/diplex_cli/doctor/**/*.py"),
)
# Not one word of these is another program's.
OURS = {
    *("engines/engine.py", "engines/sim.py", "engines/runs.py", "engines/names.py"),
    *("engines/introspection.py", "engines/sse.py", "dialects/prometheus.py"),
    *("engines/attached.py", "engines/judge.py", "engines/pulse.py", "engines/kv_events.py"),
}
# Libraries, not engines: their own types and tests hold their names.
LIBRARIES = (
    "aiohttp",
    "grpc",
    "google.protobuf.message",
    "google.rpc",
    "prometheus_client",
    "zmq",
    "msgspec",
)
PREFIXES = r"CUDA|NCCL|VLLM|TRTLLM|TLLM|SGLANG|LLAMA|HF|OMPI|NVIDIA|NVML|TORCH|UCX|LD|OMP"
SHAPES = {
    "flag": re.compile(r"(?<![\w-])--[a-z][\w-]+"),
    "metric": re.compile(r"\b(?:vllm|sglang|llamacpp):\w+|\b(?:trtllm|nv_trt_llm)_\w+"),
    "endpoint": re.compile(r"(?<![\w./:{}*)])/[a-z][\w-]*(?:/[a-z][\w-]*)*(?![\w/.*])"),
    "env": re.compile(rf"\b(?:{PREFIXES})_[A-Z][A-Z0-9_]*\b"),
}
WORD = re.compile(r"[A-Za-z][\w.:-]*|/[\w/-]+")
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")  # a word for people or for errors: reasons, not names


class Uses(ast.NodeVisitor):
    """The names of other programs that a file uses, each with its line."""

    def __init__(self, path: Path) -> None:
        self.found: dict[str, int] = {}
        self._adapter = "engines" in path.parts or path.name.endswith("_server.py")
        self._keyed = "engines" in path.parts or path.name in ("recipe_trtllm.py", "recipe_vllm.py")
        self._inside = 0  # functions deep

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            for shape in SHAPES.values():
                for word in shape.findall(node.value):
                    self._add(word, node)
            for command in re.findall(r"nvidia-smi ([^;|&`,\n()]*)", node.value):
                for word in re.findall(r"(?<!\S)-[a-z]+(?![\w-])", command):
                    self._add(word, node)

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        body = node.body
        if ast.get_docstring(node, clean=False) is not None:
            body = body[1:]
        for part in body:
            # A string that stands alone is an attribute's docstring.
            if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)):
                self.visit(part)

    def visit_Module(self, node: ast.Module) -> None:
        self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
        if self._adapter and bases & {"Protocol", "TypedDict"}:
            self._declared(node)
        self._body(node)

    def _declared(self, node: ast.ClassDef) -> None:
        for member in node.body:
            match member:
                case ast.AnnAssign(target=ast.Name(id=name)):
                    self._add(name, member)
                case (
                    ast.FunctionDef(name=name, args=arguments)
                    | ast.AsyncFunctionDef(name=name, args=arguments)
                ):
                    if not name.startswith("__"):
                        self._add(name, member)
                    for argument in (*arguments.args, *arguments.kwonlyargs):
                        if argument.arg != "self" and not argument.arg.startswith("_"):
                            self._add(argument.arg, argument)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._inside += 1
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._body(node)
        self._inside -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._table(node.value)
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._table(node.value)
        self.generic_visit(node)

    def _table(self, value: ast.expr) -> None:
        """Tables of words: outside functions, every word in them."""
        if self._adapter and not self._inside:
            for part in ast.walk(value):
                if isinstance(part, ast.Constant):
                    self._key(part)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._key(node.slice)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key in node.keys:
            self._key(key)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if any(isinstance(operator, ast.In | ast.NotIn) for operator in node.ops):
            self._key(node.left)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Attribute(attr="get" | "pop" | "setdefault"):
                self._key(node.args[0] if node.args else None)
            case ast.Name(id="getattr" | "hasattr" | "accepts"):
                self._key(node.args[1] if len(node.args) > 1 else None)
            case ast.Attribute(attr="add_argument"):
                # diplex's own flags, and how they read.
                return
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if self._adapter and node.arg and node.arg not in known_elsewhere():
            self._add(node.arg, node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._adapter and node.attr not in known_elsewhere():
            self._add(node.attr, node)
        self.generic_visit(node)

    def _key(self, node: ast.expr | None) -> None:
        if self._keyed and isinstance(node, ast.Constant) and isinstance(node.value, str):
            word = node.value
            if WORD.fullmatch(word) and not CONSTANT.fullmatch(word) and not word.startswith("diplex"):
                self._add(word, node)

    def _add(self, word: str, node: ast.AST) -> None:
        self.found.setdefault(word, getattr(node, "lineno", 0))


@cache
def known_elsewhere() -> frozenset[str]:
    """Names that diplex itself defines, and those of Python's and the libraries' own objects."""
    names: set[str] = set()
    modules = {"builtins", "asyncio", *LIBRARIES}
    for file in ROOT.glob("*/diplex*/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                    names |= {node.name, *(argument.arg for argument in arguments)}
                case ast.ClassDef():
                    # What an adapter declares of another program is not diplex's own.
                    if not {base.id for base in node.bases if isinstance(base, ast.Name)} & {
                        "Protocol",
                        "TypedDict",
                    }:
                        names |= {node.name, *_fields(node)}
                case ast.Attribute(value=ast.Name(id="self"), attr=attr, ctx=ast.Store()):
                    names.add(attr)
                case ast.Import(names=aliases):
                    modules |= {alias.name for alias in aliases}
                case ast.ImportFrom(module=str(module), names=aliases, level=0):
                    modules.add(module)
                    if module.startswith("diplex"):
                        names |= {alias.name for alias in aliases}
                case ast.Assign(targets=[ast.Name(id=name)]):
                    names.add(name)
    for proto in ROOT.glob("proto/diplex/v1/*.proto"):
        names |= set(re.findall(r"\w+", re.sub(r"//.*", "", proto.read_text())))
    for module in modules:
        if module.partition(".")[0] in sys.stdlib_module_names or module in LIBRARIES:
            names |= _vocabulary(module)
    return frozenset(names)


def _fields(node: ast.ClassDef) -> set[str]:
    return {
        part.target.id
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }


def _vocabulary(module: str) -> set[str]:
    """What a module's objects are called, their parts, and the arguments that they take."""
    try:
        loaded = builtins if module == "builtins" else importlib.import_module(module)
    except ImportError:
        return set()
    words = set(dir(loaded))
    for value in list(vars(loaded).values()):
        parts = [value]
        if isinstance(value, type):
            words.update(dir(value))
            parts = [part for kind in value.__mro__ for part in vars(kind).values()]
        for part in parts:
            if isinstance(code := getattr(part, "__code__", None), CodeType):
                words.update(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return words


def uses(path: Path, source: str) -> dict[str, int]:
    """The names that a file's source uses, with the line of each one's first use."""
    seen = Uses(path)
    seen.visit(ast.parse(source))
    return seen.found


def scoped() -> Iterator[Path]:
    for pattern in SCOPE:
        for path in sorted(ROOT.glob(pattern)):
            if "/".join(path.parts[-2:]) not in OURS:
                yield path.relative_to(ROOT)


def allowed(path: Path) -> frozenset[str]:
    """What a file may use: one about one program its names, its dialect OpenAI's too; others all."""
    names = listed()
    stem = path.stem.partition("_")[0]
    mine = names.names
    if stem in names.engines.keys() - {"openai"}:
        mine = names.of(stem, "openai") if "dialects" in path.parts else names.of(stem)
    words = {word for one in mine for word in (one.name, *one.name.split())}
    words |= {f"{one.of.rpartition('.')[2]}.{one.name}" for one in mine}
    return frozenset(
        words | names.ours.get("/".join(path.parts[-2:]), frozenset()) | set(names.engines) | own_flags()
    )


@cache
def own_flags() -> frozenset[str]:
    """diplex's own options, which its messages name."""
    files = [file.read_text() for file in (ROOT / "cli/diplex_cli").glob("**/*.py")]
    return frozenset(
        flag for text in files for flag in re.findall(r'add_argument\(\s*"(--[a-z][\w-]+)"', text)
    )


def unlisted(path: Path, source: str) -> dict[str, int]:
    may = allowed(path)
    return {word: line for word, line in uses(path, source).items() if word not in may}


@pytest.mark.parametrize("path", list(scoped()), ids=str)
def test_every_name_that_the_code_takes_from_another_program_is_listed(path: Path):
    missing = unlisted(path, (ROOT / path).read_text())
    told = [f"{path}:{line}: {word}" for word, line in missing.items()]
    assert told == [], "Mend: look it up in a public source, then list it with that in engines/names.toml"


ENGINES = "workers/diplex_workers/engines"


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        (f"{ENGINES}/dialects/vllm.py", "vllm:num_requests_running", "vllm:num_requests_active"),
        (f"{ENGINES}/dialects/vllm.py", "block_size", "block_length"),
        (f"{ENGINES}/dialects/vllm.py", "/tokenize", "/count_tokens"),
        (f"{ENGINES}/dialects/vllm.py", "max_model_len", "page_size"),  # SGLang's word, not vLLM's
        (f"{ENGINES}/dialects/llamacpp.py", "repeat_penalty", "repeat_punishment"),
        (f"{ENGINES}/dialects/trtllm.py", "trtllm_kv_cache_max_blocks", "trtllm_kv_cache_all"),
        (f"{ENGINES}/trtllm_made.py", "max_num_tokens", "max_step_tokens"),
        (f"{ENGINES}/trtllm_interface.py", "usedNumBlocks", "busyNumBlocks"),
        (f"{ENGINES}/trtllm_interface.py", "get_stats_async", "get_statistics"),
        (f"{ENGINES}/trtllm_interface.py", "KvCacheRetentionConfig", "KvCacheKeepingConfig"),
        (f"{ENGINES}/trtllm_requests.py", "repetition_penalty", "repeat_penalty"),  # llama.cpp's, not its
        ("core/diplex_core/plan/recipe_trtllm.py", "--max_batch_size", "--max_batch"),
        ("cli/diplex_cli/doctor/engine.py", "trtllm_model_config_info", "trtllm_model_info"),
        ("cli/diplex_cli/doctor/machine.py", "-q -d", "-q -z"),
    ],
)
def test_a_name_that_was_not_looked_up_is_found(file: str, before: str, after: str):
    path, source = Path(file), (ROOT / file).read_text()
    assert unlisted(path, source) == {} and before in source
    assert after.split()[-1] in unlisted(path, source.replace(before, after))


def test_an_attribute_that_nothing_else_has_is_found():
    path = Path("workers/diplex_workers/launch/llamacpp_server.py")
    source = (ROOT / path).read_text()
    assert "n_ubatch" in source
    assert "n_hyperbatch" in unlisted(path, source.replace("n_ubatch", "n_hyperbatch"))


def test_a_list_that_names_an_unknown_source_or_says_a_name_twice_is_refused():
    head = '[ours]\n[engines]\nx = "X"\n[sources.s]\nversion = "1"\nurl = "u"\n'
    group = '[[names]]\nengine = "x"\nkind = "flag"\nsource = "s"\nnames = ["--a"]\n'
    assert [one.name for one in read(head + group).names] == ["--a"]
    with pytest.raises(ValueError, match="twice"):
        read(head + group + group)
    with pytest.raises(ValueError, match=r"group 1: source is 't'\. Mend: one of s"):
        read(head + group.replace('"s"', '"t"'))


def test_the_page_is_made_from_the_list(root: Path):
    assert (root / "docs/engines.md").read_text() == page(listed()), "Mend: make engines"
