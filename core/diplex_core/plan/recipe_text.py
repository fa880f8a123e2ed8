"""A recipe as a shell script that does it, step by step, and as plain fields."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from diplex_core.plan.recipe import Engine, Recipe, chapter_flags
from diplex_core.plan.recipe_trtllm import CONFIG
from diplex_core.plan.recipe_ways import FLOORS, MLOPART_NCCL, Way
from diplex_core.words import Pattern

_WIDTH: Final = 44
_LONGEST_LINE: Final = 100


def script(recipe: Recipe, title: str) -> str:
    """A script for bash.

    Args:
        title: the command that asked for it.
    """
    return "\n".join(_lines(recipe, title)) + "\n"


def fields(recipe: Recipe) -> dict[str, Any]:
    it, sizes = recipe.deployment, recipe.sizes
    floor = FLOORS[recipe.way]
    return {
        "model": it.model.name,
        "gpu": it.gpu.name,
        "count": it.count,
        "tp": it.tp,
        "pattern": it.pattern,
        "engine": recipe.asked.engine,
        "versions": recipe.module.VERSIONS,
        "weights": it.weights,
        "kv_cache": it.kv_cache,
        "serves": sizes.serves,
        "placement": recipe.way,
        "floors": {
            "driver": floor.driver or None,
            "cuda": ".".join(map(str, floor.cuda)) if any(floor.cuda) else None,
            "nccl": ".".join(map(str, MLOPART_NCCL)) if _needs_nccl(recipe) else None,
        },
        "sizes": {
            "sequences": sizes.sequences,
            "prefill_budget_tokens": sizes.prefill_budget,
            "step_tokens": sizes.step_tokens,
            "longest_tokens": sizes.longest,
            "pool_tokens": sizes.pool_tokens,
            "gap_ms": None if sizes.gap is None else round(1000 * sizes.gap, 3),
            "kept": sizes.kept,
        },
        "quantize": [list(words) for _, words in recipe.quantize],
        "prepare": list(recipe.prepare),
        "undo": list(recipe.undo),
        "engines": [
            {
                "name": one.seat.name,
                "devices": list(one.seat.devices),
                "env": dict(one.seat.env),
                "config": dict(one.config),
                "command": list(one.command),
                "url": one.url,
            }
            for one in recipe.engines
        ],
        "notes": list(recipe.notes),
        "chapter": [
            {"command": title, "flag": flag.said, "real": flag.real}
            for title, flags in chapter_flags()
            for flag in flags
        ],
    }


def yaml(tree: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Lines of YAML for mappings of plain values: what is no plain word is quoted as JSON quotes it."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield f"{' ' * indent}{key}:"
            yield from yaml(value, indent + 2)
        else:
            yield f"{' ' * indent}{key}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not value.replace("_", "").isalnum():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _lines(recipe: Recipe, title: str) -> Iterator[str]:
    it, way = recipe.deployment, recipe.way
    yield "#!/usr/bin/env bash"
    yield f"# {title}"
    yield "#"
    kind = recipe.module
    yield f"# {kind.TITLE} {kind.VERSIONS}: {it.model.title} on {_where(recipe)},"
    yield f"# pattern {it.pattern}, placement {way}."
    for note in recipe.notes:
        yield from _folded(note)
    yield from ("#", "# bash THIS [quantize | place | serve [ENGINE] | undo]", "")
    yield from ("set -euo pipefail", "", 'fail() { echo "$1" >&2; exit 1; }', "")
    if way is Way.MIG:
        yield "# The UUIDs of a GPU's MIG devices, in order."
        yield "slices() { nvidia-smi -L -i \"$1\" | sed -n 's/.*(UUID: \\(MIG-[^)]*\\)).*/\\1/p'; }"
        yield ""
    yield from _quantize(recipe)
    yield from _place(recipe)
    yield from _serve(recipe)
    yield from _undo(recipe)
    yield from (
        'case "${1:-}" in',
        '  quantize | place | serve | undo) "$@" ;;',
        '  *) fail "usage: bash $0 [quantize | place | serve [ENGINE] | undo]" ;;',
        "esac",
        "",
    )
    yield from _chapter()


def _where(recipe: Recipe) -> str:
    it = recipe.deployment
    return f"{it.count} {it.gpu.title}" if it.count > 1 else it.gpu.title


def _folded(text: str) -> Iterator[str]:
    line = "#"
    for word in f"- {text}".split():
        if len(line) + 1 + len(word) > _LONGEST_LINE:
            yield line
            line = "#  "
        line += f" {word}"
    yield line


def _quantize(recipe: Recipe) -> Iterator[str]:
    yield "quantize() {"
    if not recipe.quantize:
        yield "  echo 'BF16 is served as it is: nothing to quantize'"
    else:
        yield "  # A checkout of github.com/NVIDIA/Model-Optimizer; older ones have it in examples/llm_ptq."
        yield '  local hf_ptq="${MODELOPT:-./Model-Optimizer}/examples/hf_ptq/hf_ptq.py"'
        yield '  [ -f "$hf_ptq" ] || hf_ptq="${hf_ptq/hf_ptq\\/hf_ptq/llm_ptq\\/hf_ptq}"'
    for said, words in recipe.quantize:
        yield f"  # {said}"
        yield from _command(("python3", *words), indent=2, verbatim={words[0]: '"$hf_ptq"'})
    yield from ("}", "")


def _place(recipe: Recipe) -> Iterator[str]:
    floor = FLOORS[recipe.way]
    yield "place() {"
    if recipe.way in (Way.PLAIN, Way.PAIR):
        yield "  echo 'whole GPUs: nothing to prepare'"
    if floor.driver:
        cuda = f", CUDA {'.'.join(map(str, floor.cuda))}" if any(floor.cuda) else ""
        compute = ".".join(map(str, floor.compute))
        yield f"  # Driver {floor.driver}{cuda}, or newer; compute capability {compute} or above."
        yield "  local driver"
        yield '  driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader -i 0 | cut -d. -f1)"'
        yield (
            f'  [ "$driver" -ge {floor.driver} ] || fail "driver $driver is too old for {recipe.way}: '
            f'{floor.driver} or newer"'
        )
    if _needs_nccl(recipe):
        wanted = ".".join(map(str, MLOPART_NCCL))
        yield f"  # Two partitions of one GPU are two ranks for NCCL {wanted} or newer."
        yield (
            "  python3 -c 'import sys, torch; "
            f"sys.exit(tuple(torch.cuda.nccl.version()[:3]) < {MLOPART_NCCL})' "
            f'|| fail "NCCL is older than {wanted}: run pattern A instead"'
        )
    for variable in ("uuid", "seen"):
        if any(line.startswith(f"{variable}=") for line in recipe.prepare):
            yield f"  local {variable}"
    yield from (f"  {line}" for line in recipe.prepare)
    yield from ("}", "")


def _needs_nccl(recipe: Recipe) -> bool:
    return recipe.way is Way.MLOPART and recipe.deployment.pattern is Pattern.C


def _serve(recipe: Recipe) -> Iterator[str]:
    sizes = recipe.sizes
    yield f"# {sizes.prefill_budget:,} prompt tokens a step beside {sizes.sequences} running sequences."
    yield "serve() {"
    if any(one.config for one in recipe.engines):
        yield "  local config"
        yield '  config="$(mktemp --suffix .yaml)"'
    yield '  case "${1:-0}" in'
    for one in recipe.engines:
        yield f"    {one.seat.name})"
        yield from _engine(recipe, one)
        yield "      ;;"
    yield f"""    *) fail "engines are 0 to {len(recipe.engines) - 1}" ;;"""
    yield from ("  esac", "}", "")


def _engine(recipe: Recipe, one: Engine) -> Iterator[str]:
    if one.config:
        yield """      cat >"$config" <<'EOF'"""
        yield from yaml(one.config)
        yield "EOF"
    seat = one.seat
    for name, value in seat.env.items():
        yield f"      export {name}={shlex.quote(value)}"
    if seat.devices[0].startswith("mig:"):
        half = int(seat.devices[0].removeprefix("mig:"))
        yield "      local slice"
        yield f'      slice="$(slices {seat.gpu} | sed -n {half + 1}p)"'
        yield f'      [ -n "$slice" ] || fail "GPU {seat.gpu} has no MIG device {half}: bash $0 place"'
        yield '      export CUDA_VISIBLE_DEVICES="$slice"'
    else:
        yield f"      export CUDA_VISIBLE_DEVICES={','.join(seat.devices)}"
    yield from _command(("exec", *one.command), indent=6, verbatim={CONFIG: '"$config"'})


def _undo(recipe: Recipe) -> Iterator[str]:
    yield "undo() {"
    yield from (f"  {line}" for line in recipe.undo or ("echo 'whole GPUs: nothing to undo'",))
    yield from ("}", "")


def _chapter() -> Iterator[str]:
    yield "# The chapter's flags, and what there really is:"
    for title, flags in chapter_flags():
        yield "#"
        yield f"# {title}"
        for flag in flags:
            yield f"#   {flag.said:{_WIDTH}} {flag.real}"


def _command(words: tuple[str, ...], *, indent: int, verbatim: Mapping[str, str]) -> Iterator[str]:
    """A command with an option and its values on each line."""
    rows: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            rows.append([])
        rows[-1].append(verbatim.get(word) or shlex.quote(word))
    for number, row in enumerate(rows):
        margin = " " * (indent if number == 0 else indent + 2)
        yield margin + " ".join(row) + (" \\" if number + 1 < len(rows) else "")
