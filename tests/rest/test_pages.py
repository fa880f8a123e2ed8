"""Models, health, readiness, metrics, and what is said of paths that are not there."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import openai
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one shim and one fleet for all of these


async def test_models_are_listed_with_whether_they_are_simulated(client: openai.AsyncOpenAI):
    models = {model.id: model async for model in client.models.list()}
    assert models.keys() == {"sim-72b", "org/real-1b"}
    assert {model.owned_by for model in models.values()} == {"diplex"}
    about: Any = {name: model.to_dict()["diplex"] for name, model in models.items()}
    assert about["sim-72b"] == {"simulated": True, "context": 32768, "workers": 2}
    assert about["org/real-1b"] == {"simulated": False, "context": 4096, "workers": 1}


@pytest.mark.parametrize("name", ["sim-72b", "org/real-1b"])
async def test_a_model_is_found_by_its_name(client: openai.AsyncOpenAI, name: str):
    model = await client.models.retrieve(name)
    assert (model.id, model.object) == (name, "model")


async def test_a_model_that_nobody_serves_is_not_found(client: openai.AsyncOpenAI):
    with pytest.raises(openai.NotFoundError, match="sim-72b") as raised:
        await client.models.retrieve("gpt-4o")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_a_ready_shim_says_so(http: httpx.AsyncClient):
    assert (await http.get("/health")).json() == {"status": "ok"}
    ready = await http.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True})


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"rebuilt": False}, "rebuilding its ledger"),
        ({"worker_state": "down"}, "no worker is up: pkg0 is down"),
    ],
)
async def test_a_fleet_that_is_not_ready_says_why(
    http: httpx.AsyncClient, fleet: Any, state: dict[str, Any], reason: str
):
    for name, value in state.items():
        setattr(fleet, name, value)
    ready = await http.get("/ready")
    assert ready.status_code == 503 and ready.headers["retry-after"] == "1"
    assert ready.json()["ready"] is False and reason in ready.json()["reason"]


async def test_a_shim_without_a_router_lives_and_is_not_ready(
    shim: Callable[..., AbstractAsyncContextManager[int]],
):
    nowhere = "127.0.0.1:1"
    async with (
        shim(nowhere) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False) as http,
    ):
        assert (await http.get("/health")).status_code == 200
        ready = await http.get("/ready")
        assert ready.status_code == 503 and nowhere in ready.json()["reason"]
        models = await http.get("/v1/models")
        assert models.status_code == 503 and "retry-after" in models.headers
        page = await http.get("/metrics")
        assert page.status_code == 200 and "diplex_rest_router_up 0.0" in page.text


async def test_the_metrics_are_the_shims_and_the_routers(http: httpx.AsyncClient):
    await http.post("/v1/completions", content=b"{")
    await http.get("/v1/models/nobody/knows")
    page = await http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = page.text.splitlines()
    counted = 'diplex_rest_requests_total{route="%s",status="%d"}'
    assert counted % ("/v1/completions", 400) + " 1.0" in lines
    assert any(line.startswith(counted % ("/v1/models/{id}", 404)) for line in lines)
    assert "diplex_queue_depth 3.0" in lines
    declared = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
async def test_wrong_paths_and_methods_have_openais_error_body_too(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"].startswith("req_")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("given", "taken"),
    [("abc-1.2:3", True), ("a" * 128, True), ("a" * 129, False), ("two words", False), ("a;b", False)],
)
async def test_a_clients_request_id_is_kept_if_it_is_sane(http: httpx.AsyncClient, given: str, taken: bool):
    answer = await http.get("/health", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is taken
