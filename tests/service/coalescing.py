"""A pipeline that notes its calls, requests of all forms, and their scores by hand."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from serving import ROW_CANDIDATES, HandModel

from service.pipeline import Pipeline, Work
from service.scorer import Scorer, ScorerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CountingPipeline(Pipeline):
    """The real pipeline, which notes the size of every call of the model and can be made to fail or to wait."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer, max_candidates=10_000)
        self.calls: list[int] = []
        self.plain = 0
        self.poison: int | None = None
        self.gate = threading.Event()
        self.gate.set()

    def run(self, work: Work) -> None:
        self.plain += 1
        super().run(work)

    def infer(self, context_ids: NDArray[np.int32], candidate_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        assert len(context_ids) in (1, len(candidate_ids))
        self.calls.append(len(candidate_ids))
        assert self.gate.wait(10)
        if self.poison is not None and (candidate_ids[:, 0] == self.poison).any():
            raise ScorerError("poisoned")
        return super().infer(context_ids, candidate_ids)


def document(candidates: int, form: str = "rows", start: int = 0) -> dict[str, Any]:
    rows = [ROW_CANDIDATES[(start + place) % 3] for place in range(candidates)]
    context = {"user": f"u{1 + start % 3}", "hour": start % 12}
    if form == "pointwise":
        return {"candidates": [{**context, **row} for row in rows]}
    if form == "columns":
        return {"context": context, "candidates": {name: [row.get(name) for row in rows] for name in ROW_CANDIDATES[0]}}
    return {"context": context, "candidates": rows}


def by_hand(model: HandModel, request: dict[str, Any]) -> list[float]:
    candidates = request["candidates"]
    if isinstance(candidates, dict):
        length = len(next(iter(candidates.values())))
        candidates = [{name: values[k] for name, values in candidates.items()} for k in range(length)]
    return [model.score(request.get("context", {}), candidate) for candidate in candidates]
