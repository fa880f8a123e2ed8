"""Say whether a deployment is healthy: the chapter's checklist, each line pass, warn, fail or skip.

Looks at this machine's GPUs, at the engines and their KV caches, and puts a short load on the router: one
stream, 32 streams, one long prompt. Speed is judged by what the planner predicts for that hardware; the
chapter's own thresholds stand beside. What cannot be checked here is skipped, with what would let it be.

exit code: 0 nothing failed, 1 something did, 2 wrong usage

examples:
  diplex doctor
  diplex doctor --url gpu-box:7600 --engine-url http://gpu-box:8000
  diplex doctor --engine trtllm
"""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from diplex_cli import whom
from diplex_cli.failures import NOT_FINE, UsageError

if TYPE_CHECKING:
    from diplex_cli.doctor.check import Check
    from diplex_cli.doctor.examination import Asked


def add_arguments(parser: ArgumentParser) -> None:
    whom.add_url(parser)
    whom.add_api_key(parser)
    parser.add_argument(
        "--model", default="", help="which model (default: the configuration's default_model)"
    )
    parser.add_argument(
        "--tier", default="", help="whose promises (default: the configuration's default_tier)"
    )
    parser.add_argument("--full", action="store_true", help="as many requests as the chapter's list has")
    parser.add_argument(
        "--no-load", action="store_true", help="put no load on the router: checks 4 to 7 skipped"
    )
    parser.add_argument("--engine-url", metavar="URL", help="an engine's own HTTP server, for checks 2 and 3")
    parser.add_argument("--engine", metavar="KIND", help="look the names up that diplex relies on: trtllm")
    parser.add_argument(
        "--gpu", default="", help="what this machine's GPUs should be (default: what is there)"
    )
    parser.add_argument(
        "--pattern", default="", metavar="P", help="how they are used (default: as the fleet says)"
    )
    parser.add_argument(
        "--placement",
        default="",
        metavar="WAY",
        help="how engines get their devices: plain, pair, mig, mps or mlopart",
    )
    parser.add_argument("--nvml", metavar="FILE", help="a recording instead of this machine's GPUs")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: Namespace) -> int:
    from diplex_cli.doctor.check import fields, healthy
    from diplex_cli.doctor.text import text

    checks = list(_names(args.engine)) if args.engine else _examined(args)
    print(json.dumps(fields(checks), ensure_ascii=False) if args.json else text(checks))
    return 0 if healthy(checks) else NOT_FINE


def _names(engine: str) -> "list[Check]":
    from diplex_cli.doctor.names import PACKAGES, name_checks

    if engine not in PACKAGES:
        raise UsageError(f"--engine: '{engine}' cannot be looked into. Mend: --engine {', '.join(PACKAGES)}")
    return list(name_checks(engine))


def _examined(args: Namespace) -> "list[Check]":
    from diplex_cli.doctor.examination import examined
    from diplex_cli.doctor.looks import Looks

    return asyncio.run(examined(_asked(args), Looks(args.nvml)))


def _asked(args: Namespace) -> "Asked":
    from diplex_cli.doctor.examination import Asked
    from diplex_cli.doctor.machine import KNOWN
    from diplex_core.plan.recipe_ways import Way
    from diplex_core.words import Pattern

    _known(args.gpu, "--gpu", KNOWN)
    _known(args.pattern, "--pattern", Pattern)
    _known(args.placement, "--placement", Way)
    return Asked(
        url=args.url,
        api_key=args.api_key,
        model=args.model,
        tier=args.tier,
        load=not args.no_load,
        full=args.full,
        engine_url=args.engine_url,
        gpu=args.gpu,
        pattern=Pattern(args.pattern) if args.pattern else None,
        way=Way(args.placement) if args.placement else None,
    )


def _known(word: str, option: str, known: Iterable[str]) -> None:
    if word and word not in (names := [*known]):
        raise UsageError(f"{option}: '{word[:40]}' is not known. Mend: one of {', '.join(names)}")
