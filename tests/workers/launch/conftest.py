"""What tests of launching share: a simulated server as a command, and a free port for it."""

import socket
import sys
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("simulated_server.py")


@pytest.fixture
def port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        number: int = one.getsockname()[1]
        return number


@pytest.fixture
def command(port: int) -> tuple[str, ...]:
    return (sys.executable, str(SERVER), "--port", str(port))
