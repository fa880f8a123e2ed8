"""The desk: who runs on this worker, on which claim, and who frees it.

Starts, cancels and windows come in from clients, stops and raises from routers, outputs from the engine; what
follows goes out on the streams and feeds that are handed in. Everything is a plain call and none waits: the
only things left to the shells are the streams themselves and the counting of prompts. A claim is taken the
moment its start is accepted, and freed when the engine has let go of it, in one place: `_finish`.
"""

from collections.abc import Callable, Sequence as Several
from typing import Final

import grpc

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem
from diplex_core.pool import NoRoom, Pool
from diplex_core.words import Blocks, Claim, EndReason, Seconds, Tokens, blocks_needed
from diplex_workers.bound import LearnedBound, starts_of
from diplex_workers.claims import ON_WIRE, claim_in_core, claim_on_wire, stop_reason
from diplex_workers.clock import Clock
from diplex_workers.engines.engine import Counted, Engine, Facts, Job, Output
from diplex_workers.feed import Feed
from diplex_workers.gate import Gate, Turned
from diplex_workers.info import worker_info
from diplex_workers.sequence import Sequence, Tally, Verdict
from diplex_workers.settings import WorkerSettings
from diplex_workers.stream import TokenStream
