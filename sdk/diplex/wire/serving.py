"""How every channel and server of diplex is set up, so that both ends agree on silence, size and ports."""

import asyncio
import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc

# The longest prompt that the REST shim takes is 64 MiB of JSON; the rest of a message is small.
_MAX_MESSAGE_BYTES: Final = 80 * 1024 * 1024
_KEEPALIVE: Final = (
    # A peer that vanished without a word is noticed after 15 s at most.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A stream may be silent for hours; pings go on all the same.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
)

CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    *_KEEPALIVE,
    # gRPC's own back-off grows to 120 s: a restarted router would stand idle for two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # This is also the time that one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    # Back-off belongs to the channel: a fresh channel to a restarted peer dials at once.
    ("grpc.use_local_subchannel_pool", 1),
    # The fleet is reached directly; a proxy for the web would only cut long streams.
    ("grpc.enable_http_proxy", 0),
)

SERVER_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    *_KEEPALIVE,
    # Without this, a quiet stream's keepalive is answered with GOAWAY too_many_pings after 50 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Two servers on one port would each get half of the clients, silently.
    ("grpc.so_reuseport", 0),
)


def channel(address: str) -> grpc.aio.Channel:
    """A channel to `host:port`. It dials when first used."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


async def connected(dialled: grpc.aio.Channel) -> bool:
    """Dial, and say whether somebody answered: no second attempt is waited for."""
    state = dialled.get_state(try_to_connect=True)
    while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
        await dialled.wait_for_state_change(state)
        state = dialled.get_state(try_to_connect=True)
    return state is grpc.ChannelConnectivity.READY


class PortTaken(Exception):
    """A server cannot listen where it was told to. The message names the option that mends it."""


async def bind(server: grpc.aio.Server, host: str, port: int, *, option: str) -> int:
    """Let a server listen, before it is started.

    Args:
        port: 0 for any free one.
        option: what a user types to choose another port, e.g. `--router-port`.
    Returns:
        The port.
    Raises:
        PortTaken: it is in use, or this machine may not or cannot listen there.
    """
    where = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{where}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise PortTaken(why_not(host, port, option))
    return bound


def why_not(host: str, port: int, option: str) -> str:
    """Why nobody can listen there: gRPC only says that it failed, so the question is put to the system."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return (
                f"cannot listen on port {port} of {host}: {error.strerror}. Mend: another host, or {option} N"
            )
    return f"port {port} on {host} is taken. Mend: end what uses it, or {option} N"


async def until_stopped(stop: asyncio.Event, tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for `stop`. A task that ends before has failed, and its failure is raised here."""
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        stopping.cancel()


class HealthControl:
    """The switch behind a server's standard health service, for the whole server and each service."""

    def __init__(self, servicer: Any, names: Sequence[str]) -> None:
        self._servicer = servicer
        self._names = ("", *names)

    async def set_serving(self, serving: bool) -> None:
        """Say SERVING or NOT_SERVING; watchers are told at once."""
        from grpc_health.v1 import health_pb2

        word = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in self._names:
            await self._servicer.set(name, word)


def add_standard_services(server: grpc.aio.Server, names: Sequence[str]) -> HealthControl:
    """Give a server health, reflection and channelz beside its own services.

    Args:
        names: full names of the server's own services, e.g. `diplex.v1.Router`.
    Returns:
        The health switch; until it is set, every service is SERVICE_UNKNOWN to a health check.
    Raises:
        ModuleNotFoundError: the `server` extra is not installed; the message says how.
    """
    try:
        from grpc_channelz.v1 import channelz
        from grpc_health.v1 import health, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a diplex server needs {error.name}. Mend: pip install 'diplex[server]'", name=error.name
        ) from error
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, "grpc.channelz.v1.Channelz", reflection.SERVICE_NAME], server
    )
    return HealthControl(servicer, names)
