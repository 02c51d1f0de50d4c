"""`GET /metrics`: all counts, in the text format of Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from service.runtime import Runtime

__all__ = ["router"]


def router(runtime: Runtime) -> APIRouter:
    """The scrape."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/metrics", summary="Metrics", response_class=Response)
    async def metrics(accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
        """Prometheus text, or OpenMetrics where `Accept` asks for it. The metrics are listed in the README."""
        text, content_type = runtime.metrics.render(accept)
        return Response(text, headers={"content-type": content_type})

    return routes
