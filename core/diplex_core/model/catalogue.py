"""The data files beside this module, read as frozen facts: GPUs, models, number formats, recipes for weights.

Adding one is adding a file. A model may also be any Hugging Face `config.json`, given by its path.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

from diplex_core.model.shapes import Model, NotInCatalogue, config_at, model_of_config
from diplex_core.words import Seconds

__all__ = [
    "Format",
    "Gpu",
    "Link",
    "Model",
    "NotInCatalogue",
    "Recipe",
    "Weights",
    "bytes_per_element",
    "gpu",
    "model",
    "names",
    "nearest",
    "number_format",
    "read",
    "recipe",
]

_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Link:
    """What joins two dies, or the GPUs of one box.

    Attributes:
        bandwidth: bytes/s in one direction.
        latency: of one small all-reduce over it, from kernel start to kernel end.
    """

    bandwidth: float
    latency: Seconds


@dataclass(frozen=True, slots=True)
class Gpu:
    """One package, and how many of it a box has. The TOML file names the source of each number.

    Attributes:
        memory_bytes: what the runtime reports for the whole package, all dies together.
        bandwidth: peak bytes/s between memory and chip, whole package.
        flops_bf16, flops_fp8, flops_fp4: dense operations/s, whole package; `None`: no tensor cores for it.
        die_link: between the dies of one package; `None`: it has one.
        gpu_link: to the other GPUs of its box.
        power, idle_power: watts, at its limit and with nothing to do.
        packages: how many a box has.
    """

    name: str
    title: str
    dies: int
    memory_bytes: int
    bandwidth: float
    flops_bf16: float
    flops_fp8: float
    flops_fp4: float | None
    die_link: Link | None
    gpu_link: Link
    power: float
    idle_power: float
    packages: int = 1

    def flops(self, rate: str) -> float:
        """Dense operations/s at a rate. Without tensor cores for FP4 its numbers are computed as FP8.

        Args:
            rate: "bf16", "fp8" or "fp4".
        """
        match rate:
            case "fp4":
                return self.flops_fp4 if self.flops_fp4 is not None else self.flops_fp8
            case "fp8":
                return self.flops_fp8
            case "bf16":
                return self.flops_bf16
        raise NotInCatalogue(f"unknown rate '{rate}'; known: bf16, fp8, fp4")


@dataclass(frozen=True, slots=True)
class Format:
    """A number format.

    Attributes:
        element: bytes of the element itself.
        scales: its share of the block scales, in bytes.
        rate: at which of a GPU's rates such numbers are multiplied.
    """

    name: str
    title: str
    element: float
    scales: float
    rate: str

    @property
    def bytes_per_element(self) -> float:
        """Bytes that one element takes, its share of the block scales included."""
        return self.element + self.scales


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes that a model's weights take, by group.

    Attributes:
        attention, ffn: the linear layers, block scales included.
        embeddings: the table that tokens are looked up in.
        head: the output projection, where it is not that same table.
        norms: norms and biases.
        attention_scales, ffn_scales: the block scales of these; 0 where the recipe does not tell them apart.
        unsplit: of the norms and biases, what each part of an engine has whole.
        looked_up: bytes of the table that no decode step reads: it looks up a row a token.
    """

    attention: int
    ffn: int
    embeddings: int
    head: int
    norms: int
    attention_scales: int = 0
    ffn_scales: int = 0
    unsplit: int = 0
    looked_up: int = 0

    @property
    def total(self) -> int:
        return self.attention + self.ffn + self.embeddings + self.head + self.norms

    @property
    def read(self) -> int:
        """Bytes that each decode step reads."""
        return self.total - self.looked_up


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the weights of a model are stored: bytes for each parameter, by group.

    Attributes:
        attention, ffn, embeddings, head, norms: bytes a parameter, without block scales.
        attention_scales, ffn_scales: block scales, in bytes a parameter.
        attention_rate, ffn_rate: at which of a GPU's rates the linear layers are computed.
        claimed: its bytes are claimed for a package, not counted: one table for embeddings and head, which is
            then read as the head, and norms in which those of both dies are included.
    """

    name: str
    title: str
    attention: float
    ffn: float
    embeddings: float
    head: float
    norms: float
    attention_scales: float
    ffn_scales: float
    attention_rate: str
    ffn_rate: str
    claimed: bool = False

    @property
    def rate(self) -> str:
        """The faster rate of the linear layers: what a limit may count on."""
        return max(self.attention_rate, self.ffn_rate, key=("bf16", "fp8", "fp4").index)

    def weights(self, model: Model) -> Weights:
        """Bytes of a model's weights, by group."""
        one_table = self.claimed or model.tied
        attention_scales = round(model.attention_parameters * self.attention_scales)
        ffn_scales = round(model.ffn_parameters * self.ffn_scales)
        embeddings = round(model.embedding_parameters * self.embeddings)
        return Weights(
            attention=round(model.attention_parameters * self.attention) + attention_scales,
            ffn=round(model.ffn_parameters * self.ffn) + ffn_scales,
            embeddings=embeddings,
            head=0 if one_table else round(model.head_parameters * self.head),
            norms=round(model.norm_parameters * self.norms),
            attention_scales=attention_scales,
            ffn_scales=ffn_scales,
            unsplit=0 if self.claimed else round(model.whole_parameters * self.norms),
            looked_up=0 if one_table else embeddings,
        )

    def bytes_of(self, model: Model) -> dict[str, int]:
        """The same by the groups' names."""
        weights = self.weights(model)
        return {name: getattr(weights, name) for name in ("attention", "ffn", "embeddings", "head", "norms")}


@cache
def gpu(name: str) -> Gpu:
    """Raises NotInCatalogue for a GPU without a file in profiles/gpus."""
    said = read("profiles/gpus", name)
    package = read("profiles/gpus", said.pop("package")) if "package" in said else {}
    facts = {"flops_fp4": None, "die_link": None, **package, **said}
    for link in ("die_link", "gpu_link"):
        facts[link] = Link(**facts[link]) if facts[link] else None
    return Gpu(**facts)


@cache
def model(name: str) -> Model:
    """A model by the name of its file in profiles/models, or by the path of a Hugging Face `config.json`
    or of a folder that has one.

    Raises:
        NotInCatalogue: there is no such file, or the config.json is not understood; the message has the key.
    """
    if name not in (known := names("profiles/models")) and (config := config_at(name)) is not None:
        if config.exists() or name.endswith(".json"):
            return model_of_config(config)
        raise _unknown("model", name, known)
    return Model(**read("profiles/models", name))


@cache
def number_format(name: str) -> Format:
    """Raises NotInCatalogue for a number format without a file in profiles/formats."""
    return Format(**read("profiles/formats", name))


@cache
def recipe(name: str) -> Recipe:
    """How weights of this name are stored: a recipe in profiles/recipes, or a number format, which then holds
    for the linear layers while embeddings, head, norms and biases stay in BF16, as quantised checkpoints are
    published.

    Raises:
        NotInCatalogue: neither a recipe nor a number format.
    """
    recipes, formats = names("profiles/recipes"), names("profiles/formats")
    if name in formats:
        return _plain(name, number_format(name).title, attention=name, ffn=name)
    if name not in recipes:
        raise _unknown("number format", name, (*formats, *recipes))
    said = read("profiles/recipes", name)
    if "claimed" not in said:
        return _plain(name, said["title"], attention=said["attention"], ffn=said["ffn"])
    whose, claimed = model(said["model"]), said["claimed"]
    return Recipe(
        name=name,
        title=said["title"],
        attention=claimed["attention"] / whose.attention_parameters,
        ffn=claimed["ffn"] / whose.ffn_parameters,
        embeddings=claimed["embeddings"] / whose.embedding_parameters,
        head=0.0,
        norms=claimed["norms"] / whose.norm_parameters,
        attention_scales=0.0,
        ffn_scales=0.0,
        attention_rate=said["rate"],
        ffn_rate=said["rate"],
        claimed=True,
    )


def bytes_per_element(name: str) -> float:
    """Bytes that one element takes, its share of the block scales included.

    Raises:
        NotInCatalogue: no such format.
    """
    if name not in (known := names("profiles/formats")):
        raise _unknown("number format", name, known)
    return number_format(name).bytes_per_element


@cache
def names(folder: str) -> tuple[str, ...]:
    """What there is a file for in a folder such as profiles/models."""
    return tuple(sorted(path.stem for path in (_HERE / folder).glob("*.toml")))


def read(folder: str, name: str) -> dict[str, Any]:
    """One data file as TOML reads it.

    Raises:
        NotInCatalogue: there is no such file.
    """
    if name not in (known := names(folder)):
        raise _unknown(folder.rpartition("/")[2].removesuffix("s"), name, known)
    with (_HERE / folder / f"{name}.toml").open("rb") as file:
        return tomllib.load(file)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was perhaps meant."""
    by_lower_case = {word.lower(): word for word in known}
    return next((by_lower_case[word] for word in get_close_matches(name.lower(), by_lower_case, n=1)), None)


def _plain(name: str, title: str, *, attention: str, ffn: str) -> Recipe:
    first, second, rest = (
        number_format(attention),
        number_format(ffn),
        number_format("bf16").bytes_per_element,
    )
    return Recipe(
        name=name,
        title=title,
        attention=first.element,
        ffn=second.element,
        embeddings=rest,
        head=rest,
        norms=rest,
        attention_scales=first.scales,
        ffn_scales=second.scales,
        attention_rate=first.rate,
        ffn_rate=second.rate,
    )


def _unknown(kind: str, name: str, known: Iterable[str]) -> NotInCatalogue:
    known = sorted(known)
    near = nearest(name.rpartition("/")[2], known)
    meant = f"; nearest: {near}" if near else ""
    return NotInCatalogue(f"unknown {kind} '{name}'; known: {', '.join(known)}{meant}")
