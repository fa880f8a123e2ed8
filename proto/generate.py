"""Turns proto/ into Python under sdk/: what `make proto` and every build run."""

import os
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent
TARGET = SOURCE.parent / "sdk"


def main() -> None:
    # protoc looks its plug-ins up on PATH; an environment that is not activated is not there.
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
    outputs = [f"--{kind}_out={TARGET}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    well_known = files("grpc_tools") / "_proto"
    protos = sorted(str(path) for path in SOURCE.rglob("*.proto"))
    code = protoc.main(["protoc", f"-I{SOURCE}", f"-I{well_known}", *outputs, *protos])
    if code:
        raise SystemExit(f"protoc refused proto/ (exit {code}); its own message is above")


if __name__ == "__main__":
    main()
