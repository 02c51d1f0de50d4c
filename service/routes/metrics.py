"""`GET /metrics`: all counts, in the text format of Prometheus."""

from fastapi import APIRouter, Request, Response

from service.runtime import Runtime

__all__ = ["router"]


def router(runtime: Runtime) -> APIRouter:
    """The scrape."""
    routes = APIRouter(tags=["operation"])

    @routes.get(
        "/metrics", summary="Metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response
    )
    async def metrics(request: Request) -> Response:
        """Prometheus text, or OpenMetrics where `Accept` asks for it. The metrics are listed in the README."""
        text, content_type = runtime.metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    return routes
