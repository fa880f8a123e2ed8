"""The child process around llama.cpp's own HTTP server (PyPI `xllamacpp`): start it, say where, and wait.

A process of its own, because llama.cpp computes in its host's process: there a crash would take the
worker's leases with it. Not imported by the worker; run by `launch.child`.
"""

import json
import os
import signal
import sys
from importlib.metadata import version
from typing import Any


def main() -> None:
    # When to go is the owner's to say: a Ctrl-C meant for the whole group must not cut a worker that drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    options = json.loads(sys.stdin.buffer.readline())
    try:
        server = started(options)
    except (ImportError, RuntimeError) as error:
        print(json.dumps({"problem": _words(error, options)}), flush=True)
        os._exit(1)
    print(json.dumps({"url": server.listening_address, "version": version("xllamacpp")}), flush=True)
    sys.stdin.buffer.read()  # returns when the owner closes it, or dies
    # At once: a decode that is under way is of no use to anybody, and waiting for it may take long.
    os._exit(0)


def started(options: dict[str, Any]) -> Any:
    """llama.cpp's server on a port of loopback, weights loaded.

    Args:
        options: `weights` (path), `slots`, `context` (tokens of one slot), `threads`, `prefill_chunk`
            (prompt tokens computed in one go), `port` (0: any free one), `api_key`, `niceness`.
    Raises:
        ImportError: `xllamacpp` is not installed.
        RuntimeError: llama.cpp could not load the weights, or not listen on the port.
    """
    os.nice(options["niceness"])
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["weights"]
    params.hostnames = ["127.0.0.1"]
    params.port = options["port"]
    params.api_keys = [options["api_key"]]
    # Each slot has its own share of the cache: no sequence's length is another's loss.
    params.n_parallel = options["slots"]
    params.n_ctx = options["slots"] * options["context"]
    params.ctx_shift = False
    # While a prompt chunk computes, every other sequence waits, and a cancel too: keep chunks small.
    params.n_batch = params.n_ubatch = max(options["prefill_chunk"], options["slots"])
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = options["threads"]
        threads.poll = 0  # never spin: two workers on two cores would take turns at waiting
    # A handler thread for every stream, and some for counting and gauges beside them.
    params.n_threads_http = 2 * options["slots"] + 4
    # What a claim pays for is computed for that claim: nothing is kept from one request to the next.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.warmup = False
    params.fit_params = False
    params.ui = False
    params.verbosity = 1  # errors
    return xllamacpp.Server(params)


def _words(error: Exception, options: dict[str, Any]) -> str:
    if isinstance(error, ImportError):
        return "the engine llamacpp needs xllamacpp. Mend: pip install 'diplex[llamacpp]'"
    # llama.cpp tells its log why, and its caller only that: both things that can be wrong are named.
    port = f", or not listen on port {options['port']}" if options["port"] else ""
    return f"llama.cpp could not load {options['weights']}{port}; its own words are in the worker's log"


if __name__ == "__main__":
    main()
