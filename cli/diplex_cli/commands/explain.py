"""Say why a request would go where it would: every filter's and scorer's word on each worker.

With --request, why one of the router's last thousand requests went where it went; HTTP responses carry its id
as `x-request-id`.

examples:
  diplex explain --prompt-tokens 8192 --tier interactive
  diplex explain --request req_5f3a6b
"""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from typing import Final

from diplex_cli import whom
from diplex_cli.explanation import Explanation

# Seconds to wait for a router that does not answer.
_PATIENCE: Final = 4.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--request", metavar="ID", default="", help="a request of the past, by its id")
    parser.add_argument(
        "--prompt-tokens", type=int, metavar="N", default=1000, help="length of the prompt (%(default)s)"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", default=0, help="most tokens of the answer (the tier's cap)"
    )
    parser.add_argument("--tier", default="", help="its tier (default: the configuration's default_tier)")
    parser.add_argument("--model", default="", help="its model (default: the configuration's default_model)")
    parser.add_argument(
        "--n", type=int, metavar="N", default=1, help="answers to the one prompt (%(default)s)"
    )
    whom.add_url(parser)
    whom.add_api_key(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: Namespace) -> int:
    explanation = asyncio.run(_asked(args))
    print(json.dumps(explanation.fields(), ensure_ascii=False) if args.json else explanation.text())
    return 0


async def _asked(args: Namespace) -> Explanation:
    from diplex import AsyncClient

    async with AsyncClient(args.url, api_key=args.api_key, patience=_PATIENCE) as client:
        answer = await client.explain(
            request_id=args.request,
            prompt_tokens=args.prompt_tokens,
            max_tokens=args.max_tokens,
            tier=args.tier,
            model=args.model,
            n=args.n,
        )
        fleet = await client.fleet()
    past = bool(args.request)
    return Explanation.of(answer, fleet, 0 if past else args.max_tokens, 1 if past else args.n)
