"""Print the commands that deploy a model in a pattern: quantize, divide the package, serve, with real flags.

The output is a script for bash: `quantize`, `place`, `serve`, `undo` are its steps. Figures (running
sequences, prefill budget, share of memory) come from the planner. Every flag of the chapter stands at its
end, with its real name. MODEL is a name such as qwen2.5-72b, or the path of a Hugging Face config.json.

examples:
  diplex recipe qwen2.5-72b --pattern A > serve.sh && bash serve.sh serve
  diplex recipe qwen2.5-72b --pattern B --placement mps --engine vllm
  diplex recipe qwen2.5-72b --gpu h100 --count 4 --tp 4 --serve latency --tpot-ms 25
"""

import json
import sys
from argparse import ArgumentParser, Namespace

from diplex_cli.commands.plan import count_in
from diplex_cli.failures import UsageError
from diplex_cli.plan.sizes import tokens_in


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model's name, or the path of its config.json")
    parser.add_argument("--engine", default="trtllm", metavar="E", help="trtllm or vllm (%(default)s)")
    parser.add_argument("--pattern", default="A", metavar="P", help="A, B, C, D or A+EAGLE (%(default)s)")
    parser.add_argument("--gpu", default="b200", help="package or box (%(default)s)")
    parser.add_argument("--count", metavar="N", help="GPUs in all (as many as --gpu has)")
    parser.add_argument("--tp", metavar="N", help="GPUs that one engine spans (all)")
    parser.add_argument(
        "--weights", default="", metavar="FORMAT", help="nvfp4 where the GPU computes FP4, else fp8"
    )
    parser.add_argument("--kv-cache", default="", metavar="FORMAT", help="fp8, nvfp4 or bf16 (fp8)")
    parser.add_argument(
        "--serve",
        choices=("latency", "throughput"),
        help="what it is sized for (latency in patterns C and D)",
    )
    parser.add_argument(
        "--tpot-ms", metavar="MS", help="with latency: time per token that a stream keeps (50)"
    )
    parser.add_argument("--context", metavar="N", help="tokens that a running sequence holds (8k)")
    parser.add_argument(
        "--longest", metavar="N", help="of one sequence, prompt and output (32k, or the model's)"
    )
    parser.add_argument(
        "--placement", default="", metavar="WAY", help="plain, pair, mig, mps or mlopart (by pattern and GPU)"
    )
    parser.add_argument("--source", default="", metavar="DIR", help="the checkpoint in BF16 (./MODEL)")
    parser.add_argument("--checkpoint", default="", metavar="DIR", help="what is served (./MODEL-FORMAT)")
    parser.add_argument("--draft", default="", metavar="DIR", help="D's draft model, or A+EAGLE's head")
    parser.add_argument("--host", default="127.0.0.1", help="where engines listen (%(default)s)")
    parser.add_argument("--port", default="8000", metavar="N", help="of the first engine (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: Namespace) -> int:
    from diplex_core.model import catalogue
    from diplex_core.plan.deployment import deployment_of
    from diplex_core.plan.recipe import Asked, recipe_of
    from diplex_core.plan.recipe_sizes import CONTEXT, GAP, Serves
    from diplex_core.plan.recipe_text import fields, script

    try:
        fp4 = catalogue.gpu(args.gpu).flops_fp4 is not None
    except catalogue.NotInCatalogue:
        fp4 = False  # `deployment_of` says it with the mend
    deployment = deployment_of(
        args.model,
        gpu=args.gpu,
        pattern=args.pattern,
        weights=args.weights or ("nvfp4" if fp4 else "fp8"),
        kv_cache=args.kv_cache or "fp8",
        count=count_in(args.count, "--count") if args.count is not None else 0,
        tp=count_in(args.tp, "--tp") if args.tp is not None else 0,
    )
    recipe = recipe_of(
        deployment,
        Asked(
            engine=args.engine,
            serves=Serves(args.serve) if args.serve else None,
            placement=args.placement,
            gap=_milliseconds(args.tpot_ms) if args.tpot_ms is not None else GAP,
            context=tokens_in(args.context, "--context") if args.context is not None else CONTEXT,
            longest=tokens_in(args.longest, "--longest") if args.longest is not None else 0,
            source=args.source,
            checkpoint=args.checkpoint,
            draft=args.draft,
            host=args.host,
            port=count_in(args.port, "--port"),
        ),
    )
    if args.json:
        print(json.dumps(fields(recipe), ensure_ascii=False))
    else:
        sys.stdout.write(script(recipe, _asked(args)))
    return 0


def _asked(args: Namespace) -> str:
    """The command that says the same."""
    words = [
        "diplex recipe",
        args.model,
        "--pattern",
        args.pattern,
        "--engine",
        args.engine,
        "--gpu",
        args.gpu,
    ]
    for option in (
        "count",
        "tp",
        "weights",
        "kv_cache",
        "serve",
        "tpot_ms",
        "context",
        "longest",
        "placement",
    ):
        if value := getattr(args, option):
            words += [f"--{option.replace('_', '-')}", value]
    return " ".join(words)


def _milliseconds(text: str) -> float:
    """Raises UsageError for what is no time above zero."""
    try:
        if 0 < (milliseconds := float(text)) <= 1e6:
            return milliseconds / 1000
    except ValueError:
        pass
    raise UsageError(f"--tpot-ms: '{text[:40]}' is no time above 0 in milliseconds. Mend: --tpot-ms 50")
