"""`diplex explain` against a fleet that serves: what would happen, and what happened."""

import json
import subprocess
import sys
from typing import Any

import aiohttp


def explain(fleet: Any, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "diplex_cli.main", "explain", "--url", fleet.router, *words]
    return subprocess.run(command, cwd=fleet.folder, capture_output=True, text=True, timeout=30)


async def test_a_question_and_a_request_of_the_past_are_explained(fleet: Any):
    running = fleet()
    opened = (await running.state()).leases.opened
    asked = json.loads(explain(running, "--tier", "bulk", "--prompt-tokens", "2048", "--json").stdout)
    assert (asked["outcome"], asked["picked"], asked["request"]["tier"]) == ("granted", "pkg1", "bulk")
    assert asked["workers"]["pkg0"]["filters"] == {"pattern": "pattern C; tier bulk allows A, B"}
    assert asked["workers"]["pkg1"]["total"] > 0
    assert (await running.state()).leases.opened == opened, "a question takes nothing"

    body = {"model": "qwen2.5-72b-instruct", "prompt": "hello", "max_tokens": 4, "service_tier": "bulk"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{running.rest}/v1/completions", json=body) as response,
    ):
        assert response.status == 200
        request_id, worker = response.headers["x-request-id"], response.headers["x-diplex-worker"]
    past = explain(running, "--request", request_id)
    assert past.stdout.startswith(f"{request_id} · qwen2.5-72b-instruct · tier bulk · tenant default · "), (
        past
    )
    assert f" s ago it was granted on {worker}; it ended LENGTH with 4 output tokens, " in past.stdout

    nobody = explain(running, "--request", "no-such-id")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.startswith("no request no-such-id is remembered. Mend: ")
