"""`python -m benchmarks.reliability.untold`: the service as it is, but it counts nothing and logs no request."""

from __future__ import annotations

from typing import Any

from service.__main__ import cli
from service.edge.fast_lane import FastLane
from service.routes.score import ScoreEndpoint


def _nothing(*_arguments: Any) -> None:
    """In place of counting a request."""


if __name__ == "__main__":
    ScoreEndpoint.count = _nothing  # type: ignore[method-assign, assignment]
    FastLane._note = _nothing  # type: ignore[method-assign, assignment]  # noqa: SLF001
    cli()
