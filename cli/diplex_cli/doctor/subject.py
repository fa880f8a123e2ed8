"""What is examined: a fleet's workers, and what the planner expects of each."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import router_pb2
from diplex_core.model import catalogue
from diplex_core.plan.deployment import Deployment, Unplannable, deployment_of
from diplex_core.plan.prediction import Prediction, predictions_of
from diplex_core.words import Pattern, Tokens

# The least share of a column's rate that a healthy deployment has. An engine that was measured repeats what
# it did; of what no engine can exceed, good ones are seen to reach 50 (prefill) to 80 (decode) per cent.
_SHARE_MEASURED: Final = 0.8
_SHARE_OF_LIMIT: Final = 0.5
_APART: Final = (Pattern.B, Pattern.C, Pattern.D)

CHAPTER: Final = deployment_of("qwen2.5-72b", gpu="b200", pattern=Pattern.A, count=1, tp=1)
"""What the chapter's thresholds are about."""


@dataclass(frozen=True, slots=True)
class Basis:
    """The column that a worker is judged by.

    Attributes:
        called: what the column is, for people.
        share: of its rates, the least that is healthy.
    """

    called: str
    share: float
    prediction: Prediction
    limit: Prediction


@dataclass(frozen=True)
class Subject:
    """One worker, as its router knows it."""

    worker: router_pb2.FleetWorker

    @property
    def info(self) -> pb.WorkerInfo:
        return self.worker.info

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def simulated(self) -> bool:
        return self.info.simulated

    @property
    def scale(self) -> float:
        """Simulated seconds in a real one."""
        return self.info.time_scale or 1.0

    @cached_property
    def deployment(self) -> Deployment | None:
        """What the planner makes of it; `None`: nothing is known of such hardware or such a model."""
        info = self.info
        try:
            dies = catalogue.gpu(info.gpu).dies
            gpus = 2 if dies == 1 and info.pattern in _APART else 1
            return deployment_of(
                info.profile,
                gpu=info.gpu,
                pattern=info.pattern,
                weights=info.weights,
                kv_cache=info.kv_cache,
                count=gpus,
                tp=gpus,
            )
        except (Unplannable, ValueError):
            return None

    def basis(self, *, streams: int, context: Tokens, prompt: Tokens) -> Basis | None:
        """What so many of its streams should do."""
        deployment = self.deployment
        if deployment is None:
            return None
        said = predictions_of(deployment, batch=streams * deployment.engines, context=context, prompt=prompt)
        if self.simulated and self.info.calibration.startswith("chapter") and said.chapter:
            return Basis(
                "the chapter's column, on which it is simulated", _SHARE_MEASURED, said.chapter, said.limit
            )
        if said.measured:
            return Basis("what was measured of such hardware", _SHARE_MEASURED, said.measured, said.limit)
        return Basis("what no engine can exceed", _SHARE_OF_LIMIT, said.limit, said.limit)


def subjects(fleet: router_pb2.Fleet, model: str) -> list[Subject]:
    """The workers that serve a model and are up."""
    return [
        Subject(worker)
        for worker in fleet.workers
        if worker.state == "up" and any(one.name == model for one in worker.info.models)
    ]


def gpus_of(found: Iterable[Subject]) -> set[str]:
    """The kinds of GPU that real engines among them run on."""
    return {subject.info.gpu for subject in found if not subject.simulated and subject.info.gpu != "cpu"}
