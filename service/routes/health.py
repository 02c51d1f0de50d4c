"""`GET /livez /readyz /startupz`: alive, ready to score, ever been ready."""

from typing import Any, Final

from fastapi import APIRouter

from service.errors import PROBLEM_MEDIA_TYPE
from service.runtime import Runtime
from service.schemas import Health

__all__ = ["router"]

_NOT_READY: Final[dict[int | str, dict[str, Any]]] = {
    503: {"description": "Not yet, or no more; `got` says why.", "content": {PROBLEM_MEDIA_TYPE: {}}}
}


def router(runtime: Runtime) -> APIRouter:
    """Probes, for an orchestrator or a balancer."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez", summary="Is the process alive")
    async def livez() -> Health:
        """Always 200: a process that cannot answer is what this probe looks for."""
        return Health(status="alive", model=None if runtime.model is None else runtime.model.manifest.model_id)

    @routes.get("/readyz", summary="Are requests scored", responses=_NOT_READY)
    async def readyz() -> Health:
        """200 while requests are scored by this worker, and all have started; else 503 with the reason."""
        return Health(status="ready", model=runtime.check_ready().manifest.model_id)

    @routes.get("/startupz", summary="Has the start ended", responses=_NOT_READY)
    async def startupz() -> Health:
        """503 until every worker has loaded the bundle and scored its golden rows, then 200 for good."""
        model = runtime.ready_model()
        if not runtime.metrics.all_started():
            raise runtime.not_ready()
        return Health(status="started", model=model.manifest.model_id)

    return routes
