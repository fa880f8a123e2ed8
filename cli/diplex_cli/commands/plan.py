"""Say how a model lies in a GPU's memory and what to expect of it, before anything is started.

Prints the memory as a drawn box, how many sequences fit, speed as the chapter claims it beside what no engine
can exceed, the five patterns compared, and what a long prompt does to the streams beside it. MODEL is a name
such as qwen2.5-72b, or the path of a Hugging Face config.json. Tokens may be written as 32k.

examples:
  diplex plan qwen2.5-72b
  diplex plan qwen2.5-72b --gpu b200 --pattern A --batch 16 --context 32k
  diplex plan llama-3.1-70b --gpu h200 --count 2 --weights fp8 --context 8k --plot plan.svg
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from diplex_cli.failures import NOT_FINE, UsageError
from diplex_cli.plan.sizes import tokens_in

if TYPE_CHECKING:
    from diplex_core.plan.page import Page

_PICTURES: Final = (".png", ".svg")
_MOST_DIGITS: Final = 6


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model's name, or the path of its config.json")
    parser.add_argument("--gpu", default="b200", help="package or box (%(default)s)")
    parser.add_argument("--pattern", default="A", metavar="P", help="A, B, C, D or A+EAGLE (%(default)s)")
    parser.add_argument("--batch", metavar="N", help="sequences at once, of the whole deployment (16)")
    parser.add_argument(
        "--context", metavar="N", help="tokens that each holds (32k, or as many as the model takes)"
    )
    parser.add_argument("--prompt", metavar="N", help="tokens of a prompt read among them (as --context)")
    parser.add_argument("--count", metavar="N", help="GPUs in all (as many as --gpu has)")
    parser.add_argument("--tp", metavar="N", help="GPUs that one engine spans (all)")
    parser.add_argument(
        "--weights", default="", metavar="FORMAT", help="mxfp4-mixed where the GPU computes FP4, else fp8"
    )
    parser.add_argument(
        "--kv-cache", default="", metavar="FORMAT", help="mxfp8 where the GPU computes FP4, else fp8"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw frontier and memory, as .png or .svg")


def run(args: Namespace) -> int:
    picture = _picture(args.plot) if args.plot else None
    if picture:
        # A missing package is told before the page, not after it.
        from diplex_cli.plan import picture as drawing
    from diplex_cli.plan.fields import fields
    from diplex_cli.plan.text import text

    page = _asked(args)
    print(json.dumps(fields(page), ensure_ascii=False) if args.json else text(page))
    if picture:
        try:
            drawing.draw(page, picture)
        except OSError as error:
            why = (error.strerror or "cannot be written").lower()
            raise UsageError(f"--plot: {picture}: {why}. Mend: --plot {picture.name}") from error
    return 0 if page.fits else NOT_FINE


def _asked(args: Namespace) -> "Page":
    from diplex_core.plan.deployment import deployment_of
    from diplex_core.plan.page import BATCH, page_of

    def count(text: str | None, option: str, otherwise: int) -> int:
        return otherwise if text is None else count_in(text, option)

    deployment = deployment_of(
        args.model,
        gpu=args.gpu,
        pattern=args.pattern,
        weights=args.weights,
        kv_cache=args.kv_cache,
        count=count(args.count, "--count", 0),
        tp=count(args.tp, "--tp", 0),
    )
    return page_of(
        args.model,
        deployment,
        batch=count(args.batch, "--batch", BATCH),
        context=tokens_in(args.context, "--context") if args.context is not None else 0,
        prompt=tokens_in(args.prompt, "--prompt") if args.prompt is not None else 0,
    )


def count_in(text: str, option: str) -> int:
    """A whole number from 1 up, of an option. Raises UsageError."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0
    if number < 1:
        raise UsageError(f"{option}: '{text[:40]}' is not a whole number from 1 to 999,999. Mend: {option} 1")
    return number


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot: '{text}' is neither .png nor .svg. Mend: --plot {path.stem or 'plan'}.png")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot: there is no folder {path.parent}. Mend: mkdir -p {path.parent}")
    return path
