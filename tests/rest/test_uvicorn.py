"""What diplex relies on of uvicorn's inside. Where one fails, read connection.py beside the new uvicorn.

pyproject.toml bounds the versions; what a connection then does is in test_direct.py.
"""

import inspect
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version
from uvicorn import __version__
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_version_here_is_one_of_those_that_are_allowed_and_the_next_is_not():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = map(Requirement, project["optional-dependencies"]["rest"])
    allowed = next(one.specifier for one in extra if one.name == "uvicorn")
    assert Version(__version__) in allowed
    next_one = Version(f"{Version(__version__).major}.{Version(__version__).minor + 1}.0")
    assert next_one not in allowed, "uvicorn's inside is no promise: let in only versions that were read"


def test_a_protocol_hands_its_transport_flow_and_scope_on():
    made = inspect.getsource(HttpToolsProtocol.connection_made)
    assert "self.transport = transport" in made and "self.flow = FlowControl(transport)" in made
    begun = inspect.getsource(HttpToolsProtocol.on_headers_complete)
    assert "self.cycle = RequestResponseCycle(" in begun and "scope=self.scope" in begun
    # The request's task must not run before the scope is complete.
    assert "create_task(cycle.run_asgi(app)" in inspect.getsource(HttpToolsProtocol)


def test_it_hears_of_pauses_and_of_the_end():
    assert parameters(HttpToolsProtocol.pause_writing) == ["self"]
    assert parameters(HttpToolsProtocol.resume_writing) == ["self"]
    assert parameters(HttpToolsProtocol.connection_lost) == ["self", "exc"]
    assert "write_paused" in inspect.getsource(FlowControl)


def test_a_cycle_knows_its_scope_whether_its_client_is_there_and_how_it_frames_a_body():
    source = inspect.getsource(RequestResponseCycle)
    for used in (
        "self.scope = scope",
        "self.disconnected = False",
        "self.chunked_encoding: bool | None = None",
    ):
        assert used in source
    # Decided beforehand, neither a header nor a chunk is added.
    assert "if self.chunked_encoding is None and" in source and "elif self.chunked_encoding:" in source


def test_the_server_leaves_signals_and_start_to_us():
    assert parameters(Server.capture_signals) == ["self"]
    assert parameters(Server.startup) == ["self", "sockets"]
