"""Ports before anybody listens."""

import socket
from collections.abc import Iterator

import pytest

from diplex_cli.ports import Listener, Picker, is_free, taken


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_taken_port_is_told_with_the_option_that_mends_it(busy: int):
    (complaint,) = taken([Listener("router", "127.0.0.1", busy, "--router-port N")])
    assert complaint == (
        f"port {busy} on 127.0.0.1 is taken, the router wants it. Mend: end what uses it, or --router-port N"
    )


def test_a_free_port_is_no_complaint():
    port = Picker("127.0.0.1").one()
    assert list(taken([Listener("router", "127.0.0.1", port, "--router-port N")])) == []


def test_an_address_that_is_not_of_this_machine_is_not_free():
    assert not is_free("192.0.2.1", 7600)


def test_the_picker_never_gives_the_same_port_twice():
    picker = Picker("127.0.0.1", free=lambda host, port: True)
    picked = [picker.one() for _ in range(200)]
    assert len(set(picked)) == 200


def test_workers_get_ports_in_a_row_with_room_for_their_metrics():
    # Of every 400 ports, only the first two hundreds are free.
    def free(host: str, port: int) -> bool:
        return port % 400 < 200

    first = Picker("127.0.0.1", free).run_of(3)
    assert first % 400 <= 97


def test_a_machine_without_a_free_port_is_told():
    with pytest.raises(OSError, match="no free port on"):
        Picker("127.0.0.1", free=lambda host, port: False).one()
