"""Whom a command asks, and as whom: the same options for each that speaks to a running router."""

import os
from argparse import ArgumentParser

DEFAULT = "127.0.0.1:7600"


def add_url(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        metavar="HOST:PORT",
        default=os.environ.get("DIPLEX_URL", DEFAULT),
        help="the router (default: $DIPLEX_URL, else 127.0.0.1:7600)",
    )


def add_api_key(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--api-key",
        default=os.environ.get("DIPLEX_API_KEY"),
        help="names the tenant (default: $DIPLEX_API_KEY)",
    )
