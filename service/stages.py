"""Requests that are held together go through the stages together: all are read, then all scored, then all answered.

Each stage is other code over other memory, far more of both than a processor's nearest caches hold; a request that goes
through all of them by itself finds them cold every time. Nothing waits for company: requests whose bodies came in
during one turn of the event loop wait for each other's work anyway, and each is scored by a call of its own.
"""

from __future__ import annotations

import types
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

    from service.pipeline import Stages, Work

__all__ = ["run_in_stages"]


@types.coroutine
def _next_turn() -> Generator[None, None, None]:
    """Go on after everything that is due already: the least an event loop can be asked for."""
    yield


async def run_in_stages(pipeline: Stages[Any], work: Work) -> None:
    """Fill in the answer of a request (the pipeline's kind of `Work`), a turn of the event loop a stage.

    Time spent on others is added to what the request waited before it was read, so that its stages say what they say
    without company.
    """
    pipeline.read(work)
    await _next_turn()
    work.waited(perf_counter() - work.encoded)
    work.scores = pipeline.infer(work.context_ids, work.candidate_ids)
    work.inferred = perf_counter()
    await _next_turn()
    work.waited(perf_counter() - work.inferred)
    pipeline.write(work)
