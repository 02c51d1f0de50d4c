"""The endpoints, one file each. A new one is a file and a line here."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter

from service.routes import documentation, feedback, health, metrics, model, openinference, score
from service.runtime import Runtime

__all__ = ["HOT_PATTERNS", "HOT_ROUTES", "ROUTERS"]

ROUTERS: Final[dict[str, Callable[[Runtime], APIRouter]]] = {
    "score": score.router,
    "feedback": feedback.router,
    "health": health.router,
    "model": model.router,
    "metrics": metrics.router,
    "openinference": openinference.router,
    "documentation": documentation.router,
}

# Answered before the framework's middleware and routing; each has a documented route above that does the same.
HOT_ROUTES: Final[dict[str, Callable[[Runtime], score.ScoreEndpoint]]] = {score.PATH: score.ScoreEndpoint}

# The same for paths that hold a name: what they begin and end with.
HOT_PATTERNS: Final[dict[tuple[str, str], Callable[[Runtime], score.ScoreEndpoint]]] = {
    openinference.INFER: openinference.InferEndpoint
}
