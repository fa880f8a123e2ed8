"""How servers listen, and what they offer beside their own services."""

import socket
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from diplex.wire.serving import (
    CHANNEL_OPTIONS,
    SERVER_OPTIONS,
    PortTaken,
    add_standard_services,
    bind,
    channel,
)


@pytest.fixture
async def server():
    server = grpc.aio.server(options=SERVER_OPTIONS)
    yield server
    await server.stop(None)


async def test_port_0_is_any_free_port(server):
    assert await bind(server, "127.0.0.1", 0, option="--router-port") > 0


async def test_a_taken_port_is_told_with_the_option_that_mends_it(server, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken) as raised:
            await bind(server, "127.0.0.1", port, option="--router-port")
    mend = "Mend: end what uses it, or --router-port N"
    assert str(raised.value) == f"port {port} on 127.0.0.1 is taken. {mend}"


async def test_an_address_of_another_machine_is_told_apart_from_a_taken_port(server, capfd):
    with pytest.raises(PortTaken, match=r"cannot listen on port 7600 of 192\.0\.2\.1: .* --router-port N"):
        await bind(server, "192.0.2.1", 7600, option="--router-port")


def test_both_ends_agree_on_keepalive_and_the_server_bears_it():
    channels, servers = dict(CHANNEL_OPTIONS), dict(SERVER_OPTIONS)
    assert channels["grpc.keepalive_time_ms"] == servers["grpc.keepalive_time_ms"] == 10_000
    assert servers["grpc.http2.min_ping_interval_without_data_ms"] == 5_000
    assert channels["grpc.max_reconnect_backoff_ms"] <= 1_000
    assert servers["grpc.so_reuseport"] == 0


async def test_health_and_reflection_are_served_beside_a_servers_own(server):
    health = add_standard_services(server, ["diplex.v1.Router"])
    port = await bind(server, "127.0.0.1", 0, option="--router-port")
    await server.start()
    async with channel(f"127.0.0.1:{port}") as dialled:
        stub = health_pb2_grpc.HealthStub(dialled)
        request = health_pb2.HealthCheckRequest(service="diplex.v1.Router")
        for serving, word in ((True, "SERVING"), (False, "NOT_SERVING")):
            await health.set_serving(serving)
            answer = await stub.Check(request)
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == word

        call = reflection_pb2_grpc.ServerReflectionStub(dialled).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {service.name for service in (await call.read()).list_services_response.service}
        call.cancel()
    assert {"diplex.v1.Router", "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= names


async def test_without_the_extra_a_server_says_how_to_install_it(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc_health.v1", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'diplex\[server\]'"):
        add_standard_services(server, [])
