"""`/v1/models`: what the fleet serves, each model with whether it is simulated."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from diplex import AsyncClient, ModelInfo
from diplex_rest.openai.errors import INVALID, ApiError


class Listing:
    """The two routes that tell of models."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        # OpenAI's objects have a date of birth; ours is this process's.
        self._created = int(time.time())

    async def all(self, request: Request) -> JSONResponse:
        models = [self._object(model) for model in await self._client.models()]
        return JSONResponse({"object": "list", "data": models})

    async def one(self, request: Request) -> JSONResponse:
        """Raises ApiError, 404, for a name that no worker serves."""
        wanted = request.path_params["id"]
        known = await self._client.models()
        for model in known:
            if model.name == wanted:
                return JSONResponse(self._object(model))
        names = ", ".join(model.name for model in known) or "none"
        message = f"model {wanted!r:.80} is not served here. Mend: one of {names}"
        raise ApiError(404, message, type=INVALID, param="model", code="model_not_found")

    def _object(self, model: ModelInfo) -> dict[str, Any]:
        """OpenAI's model object, and under `diplex` what it has no word for."""
        about = {"simulated": model.simulated, "context": model.context, "workers": model.workers}
        return {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "diplex",
            "diplex": about,
        }
