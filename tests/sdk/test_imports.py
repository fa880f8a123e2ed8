"""What an import costs, and what the shared part may lean on."""

import subprocess
import sys

ALLOWED = {"diplex", "grpc", "google", "opentelemetry", "typing_extensions", "importlib_metadata", "zipp"}
# grpc itself loads these where they are installed; and one is what an environment's start-up leaves.
NOT_OURS = {"grpc_tools", "grpc_health", "grpc_reflection", "grpc_status", "_distutils_hack"}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_diplex_loads_no_grpc_and_no_asyncio():
    heavy = ("grpc", "google.protobuf", "opentelemetry", "asyncio")
    assert run(f"import diplex, sys; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_every_public_name_is_there_once_it_is_used():
    assert run("import diplex; print(all(getattr(diplex, name) for name in diplex.__all__))") == "True"


def test_a_name_that_there_is_not_is_an_attribute_error():
    assert run("import diplex; print(hasattr(diplex, 'Nonsense'), 'Client' in dir(diplex))") == "False True"


def test_the_wire_leans_on_grpc_protobuf_and_the_opentelemetry_api_alone():
    code = """
import importlib, pathlib, pkgutil, sys, sysconfig
import diplex.wire
for module in pkgutil.iter_modules(diplex.wire.__path__, "diplex.wire."):
    importlib.import_module(module.name)
third = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
found = {
    name.partition(".")[0] for name, module in sys.modules.items()
    if any(str(getattr(module, "__file__", None) or "").startswith(place) for place in third)
}
print(" ".join(sorted(found)))
"""
    assert set(run(code).split()) - NOT_OURS <= ALLOWED


def test_the_client_needs_no_server_extra():
    code = "import diplex, sys; diplex.Client; print({'grpc_channelz', 'aiohttp', 'uvloop'} & {*sys.modules})"
    assert run(code) == "set()"
