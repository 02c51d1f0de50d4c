"""`GET /docs`: how to ask, on one page without scripts or other hosts; `/openapi.json` is for machines."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from service.page import render
from service.runtime import Runtime

__all__ = ["router"]


def router(_runtime: Runtime) -> APIRouter:
    """The page."""
    routes = APIRouter()

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        """The OpenAPI document as a page."""
        page = render(request.app.openapi(), str(request.base_url).rstrip("/"))
        # The page needs nothing but itself.
        policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
        return HTMLResponse(page, headers={"content-security-policy": policy, "x-content-type-options": "nosniff"})

    return routes
