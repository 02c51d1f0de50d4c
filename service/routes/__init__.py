"""The endpoints, one file each. A new one is a file and a line here."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from starlette.types import ASGIApp

from service.routes import documentation, health, metrics, model, score
from service.runtime import Runtime

__all__ = ["HOT_ROUTES", "ROUTERS"]

ROUTERS: Final[dict[str, Callable[[Runtime], APIRouter]]] = {
    "score": score.router,
    "health": health.router,
    "model": model.router,
    "metrics": metrics.router,
    "documentation": documentation.router,
}

# Answered before the framework's middleware and routing; each has a documented route above that does the same.
HOT_ROUTES: Final[dict[str, Callable[[Runtime], ASGIApp]]] = {score.PATH: score.ScoreEndpoint}
