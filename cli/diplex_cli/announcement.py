"""What `up` prints once everything serves: where each part listens, what it is, and a request to try."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diplex_cli.deployment import Deployment
from diplex_core.config.values import reachable

if TYPE_CHECKING:
    from diplex.v1 import router_pb2


@dataclass(frozen=True, slots=True)
class Arrived:
    """A fleet that serves: what was asked for, and what each worker says of itself."""

    deployment: Deployment
    fleet: "router_pb2.Fleet"
    rest: bool
    took: float

    def addresses(self) -> dict[str, Any]:
        """What `up --json` prints."""
        config = self.deployment.config
        return {
            "router": config.router.address,
            "rest": f"http://{self._rest}" if self.rest else None,
            "metrics": f"http://{reachable(config.router.host, config.router.metrics_port)}/metrics",
            "workers": {one.info.name: one.info.address for one in self.fleet.workers},
            "fleet": {
                one.info.name: {
                    "package": one.info.package,
                    "pattern": one.info.pattern,
                    "engine": one.info.engine,
                    "models": [model.name for model in one.info.models],
                    "simulated": one.info.simulated,
                    "calibration": one.info.calibration or None,
                    "state": one.state,
                }
                for one in self.fleet.workers
            },
            "left_out": dict(self.deployment.left_out),
            "ready_s": round(self.took, 3),
        }

    def table(self) -> str:
        """What `up` prints: a row for each part, and a request to try."""
        config = self.deployment.config
        rows = [("", "pattern", "engine", "model", "address")]
        for one in self.fleet.workers:
            info = one.info
            engine = f"{info.engine}, simulated ({info.calibration})" if info.simulated else info.engine
            models = ", ".join(model.name for model in info.models) or f"({one.state}: {one.problem})"
            rows.append((info.name, info.pattern, engine, models, info.address))
        rows.append(("router", "", "", "", config.router.address))
        rows.append(
            ("", "", "", "", f"http://{reachable(config.router.host, config.router.metrics_port)}/metrics")
        )
        if self.rest:
            rows.append(("rest", "", "", "", f"http://{self._rest}/v1"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join(
            [
                f"diplex is up ({self.took:.1f} s)",
                "",
                *(f"  {line.rstrip()}" for line in lines),
                "",
                self._to_try(),
            ]
        )

    @property
    def _rest(self) -> str:
        return reachable(self.deployment.config.rest.host, self.deployment.config.rest.port)

    def _to_try(self) -> str:
        """A request for a model that is real, where there is one."""
        serving = [one.info for one in self.fleet.workers if one.info.models]
        model = next(
            (info.models[0].name for info in sorted(serving, key=lambda info: info.simulated)),
            self.deployment.config.rules.default_model,
        )
        if not self.rest:
            url = self.deployment.config.router.address
            return f"  try: diplex chat 'Name three rivers.' --model {model} --url {url}"
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Name three rivers."}}]}}'
        url = f"http://{self._rest}/v1/chat/completions"
        return f"  try: curl {url} -H 'content-type: application/json' -d '{body}'"
