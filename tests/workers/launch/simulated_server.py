"""A small OpenAI-compatible server for tests of launching: it says that it is simulated, and fails on demand.

    python simulated_server.py --port N [--exit CODE] [--deaf] [--stubborn] [--never-ready]

It answers each request with words at a slow pace. A model called `die` in a request ends the process at once,
`hang` makes it answer nothing any more.
"""

import argparse
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

hung = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._wait_if_hung()
        if self.path == "/v1/models":
            self._json({"object": "list", "data": [{"id": "simulated", "object": "model"}]})
        else:
            self._json({"says": "simulated"})

    def do_POST(self) -> None:
        self._wait_if_hung()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = int(body.get("max_tokens") or 4)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        prompt = json.dumps(body)
        for number in range(words):
            if number == 2 and "please die" in prompt:
                print("simulated error: out of memory", flush=True)
                os._exit(3)
            if number == 2 and "please hang" in prompt:
                hung.set()
                threading.Event().wait()
            self._event({"choices": [{"index": 0, "text": "simulated ", "delta": {"content": "simulated "}}]})
            threading.Event().wait(0.01)
        self._event({"choices": [{"index": 0, "text": "", "delta": {}, "finish_reason": "length"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": words}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps({"model": "simulated", **event}).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _wait_if_hung(self) -> None:
        if hung.is_set():
            threading.Event().wait()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--exit", type=int)
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--never-ready", action="store_true")
    args, others = parser.parse_known_args()
    print(
        f"simulated engine, process {os.getpid()}, devices {os.environ.get('CUDA_VISIBLE_DEVICES')}",
        flush=True,
    )
    if others:
        print(f"simulated engine got {others}", flush=True)
    if args.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.exit is not None:
        print("simulated error: no such model", file=sys.stderr)
        sys.exit(args.exit)
    if args.never_ready:
        threading.Event().wait()
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
