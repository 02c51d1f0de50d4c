"""`GET /docs`: how to ask, on one page without scripts or other hosts; `/openapi.json` is for machines."""

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from service.documents.page import render
from service.runtime import Runtime

__all__ = ["router"]

# The page needs nothing but itself, belongs into no frame, and tells nobody where its reader came from.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
# Who has read it over TLS shall go on so.
_SECURE_HEADERS: Final = {"strict-transport-security": "max-age=31536000"}


def router(_runtime: Runtime) -> APIRouter:
    """The page."""
    routes = APIRouter()

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        """The OpenAPI document as a page."""
        page = render(request.app.openapi(), str(request.base_url).rstrip("/"))
        headers = _HEADERS | (_SECURE_HEADERS if request.url.scheme == "https" else {})
        return HTMLResponse(page, headers=headers)

    return routes
