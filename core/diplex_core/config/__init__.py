"""The configuration: its words, its checks and what comes of them.

A plain tree goes in (dicts, lists, scalars: whatever read it), a frozen `Config` or a list of faults
comes out. Each fault names its key and the mend; the reader of the file adds name and line. `keys`
declares the words once, `crosschecks` compares them with each other, `build` turns them into values,
`notes` says what a right one says in vain.
"""

from diplex_core.config.build import build
from diplex_core.config.faults import ConfigErrors, Fault
from diplex_core.config.notes import cannot_run, remarks
from diplex_core.config.values import (
    AttachConfig,
    Config,
    Draft,
    EngineConfig,
    LaunchConfig,
    LlamaCppConfig,
    ModelConfig,
    RestConfig,
    RouterConfig,
    SimConfig,
    TrtLlmConfig,
    WorkerConfig,
)

__all__ = [
    "AttachConfig",
    "Config",
    "ConfigErrors",
    "Draft",
    "EngineConfig",
    "Fault",
    "LaunchConfig",
    "LlamaCppConfig",
    "ModelConfig",
    "RestConfig",
    "RouterConfig",
    "SimConfig",
    "TrtLlmConfig",
    "WorkerConfig",
    "build",
    "cannot_run",
    "remarks",
]
